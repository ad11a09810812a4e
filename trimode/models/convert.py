"""An ordinary causal checkpoint -> one that can become tri-mode: a head of its own, a mask token, a block size.

What the base computes stays as it is, which is checked on the written files; diffusion and drafts have to be trained.
"""

import errno
import json
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from trimode.config import Json, ModelConfig, read, read_optional
from trimode.errors import CheckpointError, InvalidInput
from trimode.models import mask_token as masks
from trimode.models import weights
from trimode.models.checkpoint import (
    DTYPES,
    FAMILIES,
    copy_small_files,
    family,
    load_model,
    read_config,
    read_json,
    resolve,
    tensors,
)  # fmt: skip
from trimode.models.complete import complete_folder
from trimode.models.mask_token import MaskToken
from trimode.models.probe import Probe, compare, probe
from trimode.models.transformer import Transformer
from trimode.tokenizer import Tokenizer

CAUSAL = ("llama", "ministral3", "mistral", "qwen2", "qwen3", "seed_oss")
LAYOUTS: Mapping[str, tuple[str, ...]] = {"keep": CAUSAL, "nemotron": ("ministral3", "mistral")}
EXPERTS = ("num_experts", "num_local_experts", "n_routed_experts")
LARGEST_BLOCK = 1024
UNTRAINED = 0.01  # a row this much shorter than the usual one has never been trained
WHOLE = ("joint", "sft")  # stages that train all weights for all modes
NEMOTRON: Json = {
    "model_type": "nemotron_labs_diffusion", "architectures": ["NemotronLabsDiffusionModel"], "hidden_act": "silu",
    "attention_bias": False, "mlp_bias": False, "sliding_window": None, "dlm_paradigm": "bidirectional",
    "ar_loss_weight": 1.0, "dlm_loss_weight": None, "dp_varying_mask_ratio": False,
}  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """What a conversion did, and how far its causal logits are from the base's."""

    out: Path
    parameters_before: int
    parameters_after: int
    untied_bytes: int  # of the copy the head got; 0: it was no view of the embedding
    mask: MaskToken
    has_fresh_row: bool  # the mask's rows were made here, as means
    block_size: int
    max_difference: float

    def text(self) -> str:
        """For a person, in a few lines."""
        head = f"got a copy of its own ({self.untied_bytes:,} bytes)" if self.untied_bytes else "was its own already"
        row = "its rows are the means of all rows" if self.has_fresh_row else "its rows stay as they were"
        far = f"differ by at most {self.max_difference:.1g}" if self.max_difference else "are equal bit for bit"
        return "\n".join(
            [
                f"parameters   {self.parameters_before:,} before, {self.parameters_after:,} after",
                f"head         {head}",
                f"mask token   {self.mask.text} = {self.mask.id}, {self.mask.reason}; {row}",
                f"block size   {self.block_size}",
                f"checked      causal logits {far}, the greedy text is the same",
                f"written to   {self.out}",
                "Mode ar writes what the base writes. Diffusion is no good, and self_speculation no faster, before "
                "training:",
                f"    trimode train RECIPE.toml   (a stage of kind joint, source = {json.dumps(str(self.out))})",
            ]
        )


def convert(
    base: str | Path, out: Path, *, mask_token: str | None = None, block_size: int = 32, layout: str = "keep",
    dtype: str | None = None,
) -> Report:  # fmt: skip
    """Write `base` (a folder or Hub id) with an untied head, a mask token and a block size to the new folder `out`.

    mask_token: a special token that nothing writes (default: found, or added). layout: `keep` the base's model_type and
    names, or those of `nemotron`. dtype: of the result (default: the base's). `out` appears when it is complete and
    checked, or not at all. Raises InvalidInput for these, CheckpointError for a base that cannot be converted,
    StorageError where the disk is full.
    """
    target = Path(out).resolve()
    _check_parameters(target, block_size, layout, dtype)
    source = resolve(base)
    fields = read_json(source / "config.json")
    _check_base(fields, layout)
    config = read_config(source)
    config = replace(config, dtype=dtype or config.dtype)
    settings = read_json(source / "tokenizer_config.json") if (source / "tokenizer_config.json").exists() else {}
    mask = masks.choose(Tokenizer.load(source), config, fields, settings, mask_token)
    name = source.resolve().name if Path(base).is_absolute() else str(base)  # no folders of this machine
    new = _fields(fields, config, mask, block_size, layout) | {"trimode": {"converted_from": name, "trained": []}}
    with complete_folder(target) as folder:
        written, before = _write(source, config, new, mask, folder)
        after = probe(load_model(folder, config.dtype, "cpu"), config.vocab_size, mask.id)
        difference = compare(before, after, config.dtype)
    return replace(written, out=Path(out), max_difference=difference)


def is_untrained_conversion(fields: Json) -> bool:
    """Whether a config.json is of a conversion that no stage has yet trained with all weights and for all modes."""
    ours = read_optional(fields, "trimode", dict, {})
    return "converted_from" in ours and not set(WHOLE) & set(read_optional(ours, "trained", list, []))


def mark_trained(fields: Json, kind: str) -> dict[str, Any]:
    """config.json after a stage of that kind; that of a checkpoint that is no conversion stays as it is."""
    ours = read_optional(fields, "trimode", dict, {})
    if "converted_from" not in ours:
        return dict(fields)
    return {**fields, "trimode": {**ours, "trained": [*read_optional(ours, "trained", list, []), kind]}}


def _check_parameters(out: Path, block_size: int, layout: str, dtype: str | None) -> None:
    if not isinstance(block_size, int) or not 1 <= block_size <= LARGEST_BLOCK:
        raise InvalidInput(f"block_size is {block_size!r}, allowed is 1 to {LARGEST_BLOCK}")
    if layout not in LAYOUTS:
        raise InvalidInput(f"layout is {layout!r}, allowed are {', '.join(LAYOUTS)}")
    if dtype is not None and dtype not in DTYPES:
        raise InvalidInput(f"dtype is {dtype!r}, allowed are {', '.join(DTYPES)}")
    if out.exists() and not (out.is_dir() and not any(out.iterdir())):
        raise InvalidInput(f"out is {out}, which exists and is not an empty folder")


def _check_base(fields: Json, layout: str) -> None:
    """Say why a checkpoint cannot be converted; what the network itself cannot do is refused where config is read."""
    name, where = read(fields, "model_type", str), "config.json"
    if fields.get("quantization_config"):
        raise CheckpointError(f"{where}: quantization_config is there; a conversion needs the weights before that")
    if isinstance(fields.get("text_config"), dict):
        inner = fields["text_config"].get("model_type")
        raise CheckpointError(
            f"{where}: model_type {name!r} wraps a text model, under text_config (model_type {inner!r}), and others; "
            "save the text model as a checkpoint of its own and convert that (docs/converting.md)"
        )
    if any(fields.get(key) for key in EXPERTS):
        raise CheckpointError(f"{where}: model_type {name!r} is a mixture of experts, supported are dense models")
    if (name not in CAUSAL and name in FAMILIES) or fields.get("mask_token_id") is not None:
        raise CheckpointError(
            f"{where}: model_type {name!r} with a mask token is no causal model: it needs no conversion"
        )
    if name not in CAUSAL:
        raise CheckpointError(f"{where}: model_type is {name!r}, those that can be converted are {', '.join(CAUSAL)}")
    if name not in LAYOUTS[layout]:
        raise InvalidInput(f"layout is {layout!r}, allowed for model_type {name!r} is keep")


def _fields(base: Json, config: ModelConfig, mask: MaskToken, block_size: int, layout: str) -> dict[str, Any]:
    """The new config.json; it has to mean the same network, whatever a family takes for granted."""
    if block_size > config.context_length:
        raise InvalidInput(f"block_size is {block_size}, allowed is 1 to {config.context_length}, the context's length")
    dtype = "torch_dtype" if "torch_dtype" in base and "dtype" not in base else "dtype"
    changes = {
        "vocab_size": max(config.vocab_size, mask.id + 1), "tie_word_embeddings": False, dtype: config.dtype,
        "mask_token_id": mask.id, "block_size": block_size,
    }  # fmt: skip
    fields = {**base, **changes}
    if layout == "nemotron":
        fields |= {**NEMOTRON, "head_dim": config.head_dim, "num_key_value_heads": config.n_kv_heads}
        fields["rope_parameters"] = _rope_parameters(base, config)
    expected = replace(
        config, model_type=fields["model_type"], tied=False, vocab_size=fields["vocab_size"], mask_token_id=mask.id,
        block_size=block_size,
    )  # fmt: skip
    if family(fields).parse(fields, config.eos_token_ids) != expected:
        raise CheckpointError(f"config.json: layout {layout!r} has no way to say what this model's fields say")
    return fields


def _rope_parameters(base: Json, config: ModelConfig) -> dict[str, Any]:
    """The newer spelling of the rotary fields. The two layouts differ in what they take for granted."""
    given = base.get("rope_parameters") or base.get("rope_scaling") or {}
    out = {"rope_type": config.rope.kind, "rope_theta": config.rope.theta, **given}
    return out | ({"attention_factor": config.rope.attention_factor} if config.rope.kind == "yarn" else {})


def _write(source: Path, config: ModelConfig, fields: Json, mask: MaskToken, folder: Path) -> tuple[Report, Probe]:
    """Weights, config.json, the tokenizer's files and the rest. Also says what the base computes."""
    model = load_model(source, config.dtype, "cpu")
    before = probe(model, config.vocab_size, mask.id)
    parameters, has_fresh_row = _converted(model, mask)
    size = parameters["head"].element_size()
    counts = [sum(p.numel() for p in some) for some in (model.parameters(), parameters.values())]
    if (free := shutil.disk_usage(folder).free) < counts[1] * size:
        raise OSError(errno.ENOSPC, f"{counts[1] * size:,} bytes are needed and {free:,} free")
    copy_small_files(source, folder)
    masks.write(mask, folder)
    (folder / "config.json").write_text(json.dumps(fields, indent=2) + "\n", "utf-8")
    weights.save(folder, parameters, tensors(read_config(folder)), DTYPES[config.dtype])
    untied = parameters["head"].numel() * size if config.tied else 0
    report = Report(
        out=folder, parameters_before=counts[0], parameters_after=counts[1], untied_bytes=untied, mask=mask,
        has_fresh_row=has_fresh_row, block_size=fields["block_size"], max_difference=0.0,
    )  # fmt: skip
    return report, before


def _converted(model: Transformer, mask: MaskToken) -> tuple[dict[str, Tensor], bool]:
    """All parameters by our names, the head its own; and whether the mask's rows are new.

    A new row is the mean of the rows. In the embedding that is no word's direction, and a row of zeros, as unused ones
    may be, would have an unbounded gradient behind the first norm. In the head the mask's logit is then the mean of all
    logits, which is never above the largest one: the greedy text cannot change. Nothing is random, so that a conversion
    done twice gives the same files.
    """
    parameters: dict[str, Tensor] = dict(model.named_parameters())
    is_fresh = False
    for name, matrix in (("embedding", model.embedding), ("head", model.head)):
        row = matrix[mask.id : mask.id + 1]  # empty where the matrix has to grow
        if not len(row) or row.float().norm() < UNTRAINED * matrix.norm(dtype=torch.float32) / len(matrix) ** 0.5:
            trained = matrix[: mask.id] if mask.is_new else matrix
            mean = trained.mean(0, keepdim=True, dtype=torch.float32).to(matrix.dtype)
            parameters[name] = torch.cat([matrix[: mask.id], mean, matrix[mask.id + 1 :]])
            is_fresh = True
        elif name not in parameters:
            parameters[name] = matrix.clone()  # tied: files may not share memory
    return parameters, is_fresh
