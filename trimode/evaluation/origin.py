"""Where numbers come from: checkpoint, weights, software and machine, as plain JSON. Measures nothing."""

import hashlib
import platform
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from trimode import __version__
from trimode.api import BUNDLED, LLM
from trimode.models.adapters import Adapter


def origin(llm: LLM, adapter: str | None = None) -> dict[str, Any]:
    """What an answer and its time depend on besides the plan. Raises InvalidInput for an adapter that is not loaded."""
    return {
        "version": __version__,
        "weights_sha256": weights_digest(llm),
        "adapter_sha256": adapter_digest(llm.adapter(adapter)),
        "drafter_sha256": adapter_digest(llm.drafter),
        "config_sha256": hashlib.sha256(repr(llm.model.config).encode()).hexdigest(),
        "dtype": str(llm.model.embedding.dtype).removeprefix("torch."),
        "backend": llm.backend,
        "device": str(llm.model.device),
        "threads": torch.get_num_threads(),
        "cost": repr(llm.cost),
        "machine": machine(llm.model.device),
    }


def checkpoint_name(llm: LLM, adapter: str | None = None) -> str:
    """What a person calls it, with what is loaded beside it."""
    name = "bundled" if llm.folder == BUNDLED else str(llm.folder) if llm.folder else "in memory"
    more = {"adapter": adapter, "drafter": llm.drafter.name if llm.drafter else None}
    return name + "".join(f", {kind} {named}" for kind, named in more.items() if named)


def weights_digest(llm: LLM) -> str:
    """SHA-256 of the bytes of the checkpoint's safetensors files in order of their names, or of tensors in memory."""
    if llm.folder is None:
        return tensors_digest(llm.model.state_dict())
    digest = hashlib.sha256()
    for path in sorted(llm.folder.glob("*.safetensors")):
        with path.open("rb") as file:
            while piece := file.read(1 << 22):
                digest.update(piece)
    return digest.hexdigest()


def adapter_digest(adapter: Adapter | None) -> str | None:
    """SHA-256 of an adapter's settings and tensors."""
    return None if adapter is None else tensors_digest(adapter.named(), repr(adapter.settings))


def tensors_digest(tensors: Mapping[str, Tensor], settings: str = "") -> str:
    """SHA-256 of settings, names and bytes."""
    digest = hashlib.sha256(settings.encode())
    for name, tensor in sorted(tensors.items()):
        digest.update(name.encode())
        digest.update(tensor.detach().cpu().contiguous().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def machine(device: torch.device) -> str:
    """Processor or accelerator, and the versions under the software."""
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else processor()
    return f"{name}, torch {torch.__version__}, Python {platform.python_version()}"


def processor() -> str:
    """The processor's name where Linux tells it."""
    path = Path("/proc/cpuinfo")
    lines = path.read_text().splitlines() if path.exists() else []
    return next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), platform.machine())
