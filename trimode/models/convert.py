"""An ordinary causal checkpoint -> one that can become tri-mode: a head of its own, a mask token, a block size.

What the base computes stays as it is, which is checked on the written files; diffusion and drafts have to be trained.
"""

import errno
import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from safetensors import SafetensorError
from torch import Tensor

from trimode.config import DTYPES as DTYPE_NAMES
from trimode.config import Json, ModelConfig, read
from trimode.errors import CheckpointError, InvalidInput
from trimode.models import mask_token as mask_tokens
from trimode.models import weights
from trimode.models.checkpoint import DTYPES, family, load_model, read_config, read_json, resolve, tensors
from trimode.models.mask_token import MaskToken
from trimode.models.transformer import Transformer
from trimode.numerics.visibility import serving
from trimode.spans import Span
from trimode.tokenizer import Tokenizer


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """What a conversion did."""

    out: Path
    parameters_before: int
    parameters_after: int
    untied_bytes: int  # of the head that was a view of the embedding; 0: the head was its own before
    mask: MaskToken
    fresh_row: bool  # the mask's rows were made here, as means
    block_size: int
    max_difference: float  # of causal logits, base against result


def convert(
    base: str | Path, out: Path, *, mask_token: str | None = None, block_size: int = 32, layout: str = "keep",
    dtype: str | None = None,
) -> Report:  # fmt: skip
    raise NotImplementedError


def is_untrained_conversion(fields: Json) -> bool:
    """Whether a config.json is of a conversion whose canvases were never trained together with all weights."""
    raise NotImplementedError


def mark_trained(fields: Json, kind: str) -> dict[str, Any]:
    """config.json after a stage of that kind; that of a checkpoint which is no conversion stays as it is."""
    raise NotImplementedError
