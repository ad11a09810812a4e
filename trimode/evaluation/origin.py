"""Where numbers come from: checkpoint, weights, software and machine, as plain JSON. Measures nothing."""

import hashlib
import platform
from pathlib import Path
from typing import Any

import torch

from trimode import __version__
from trimode.api import BUNDLED, LLM


def origin(llm: LLM) -> dict[str, Any]:
    """What an answer and its time depend on besides the plan."""
    return {
        "version": __version__,
        "weights_sha256": weights_digest(llm),
        "config_sha256": hashlib.sha256(repr(llm.model.config).encode()).hexdigest(),
        "dtype": str(llm.model.embedding.dtype).removeprefix("torch."),
        "backend": llm.backend,
        "device": str(llm.model.device),
        "threads": torch.get_num_threads(),
        "machine": machine(llm.model.device),
    }


def checkpoint_name(llm: LLM) -> str:
    """What a person calls it."""
    return "bundled" if llm.folder == BUNDLED else str(llm.folder) if llm.folder else "in memory"


def weights_digest(llm: LLM) -> str:
    """SHA-256 of the bytes of the checkpoint's safetensors files in order of their names, or of tensors in memory."""
    digest = hashlib.sha256()
    if llm.folder is None:
        for name, tensor in sorted(llm.model.state_dict().items()):
            digest.update(name.encode())
            digest.update(tensor.detach().cpu().contiguous().view(torch.uint8).numpy().tobytes())
        return digest.hexdigest()
    for path in sorted(llm.folder.glob("*.safetensors")):
        with path.open("rb") as file:
            while piece := file.read(1 << 22):
                digest.update(piece)
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
