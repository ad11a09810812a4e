"""A folder (or Hub id) with config.json and safetensors -> a model, and back. Knows families by model_type only."""

import importlib
import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Protocol, cast

import torch
from huggingface_hub import snapshot_download
from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

from trimode.config import Json, ModelConfig, read
from trimode.errors import CheckpointError, InvalidInput
from trimode.models import weights
from trimode.models.transformer import Transformer
from trimode.numerics.parameters import Sampling

SAME_NAME = ("llama", "ministral3", "mistral", "nemotron_labs_diffusion", "qwen2", "qwen3", "sdar", "seed_oss")
FAMILIES = {name: name for name in SAME_NAME} | {"Fast_dLLM_Qwen": "fast_dllm_v2"}  # model_type -> file of this folder
FILES = ("*.json", "*.safetensors", "*.jinja")
GENERATION_CONFIG = ("temperature", "top_k", "top_p", "repetition_penalty")  # read where it says do_sample
MARK = "trimode_export.json"  # says where training's weights come from, so it stays with them
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


class Family(Protocol):
    """The two public names of a family file."""

    parse: Callable[[Json, tuple[int, ...] | None], ModelConfig]
    tensors: Callable[[ModelConfig], Iterator[weights.Tensors]]


def resolve(source: str | Path) -> Path:
    """A local folder as it is; anything else is taken for a Hub id and downloaded (config, tokenizer, safetensors)."""
    folder = Path(source)
    try:
        is_folder, is_there = folder.is_dir(), folder.exists()
    except OSError:  # a name too long for any folder
        is_folder = is_there = False
    if is_folder:
        return folder
    if is_there or str(source).count("/") != 1 or str(source).startswith((".", "/", "~")):
        raise CheckpointError(f"{source}: no such folder (and not a Hub id of the form owner/name)")
    try:
        return Path(snapshot_download(str(source), allow_patterns=list(FILES)))
    except (HfHubHTTPError, HFValidationError, LocalEntryNotFoundError, OSError) as error:
        reason = str(error).splitlines()[0]
        raise CheckpointError(f"{source}: no such folder, and the Hub did not give it ({reason})") from error


def read_json(path: Path) -> Json:
    """A JSON object, or a sentence that names the file."""
    try:
        fields = json.loads(path.read_text("utf-8"))
    except FileNotFoundError as error:
        raise CheckpointError(f"{path}: this file is missing") from error
    except (OSError, ValueError, RecursionError) as error:
        raise CheckpointError(f"{path}: not readable as JSON ({error})") from error
    if not isinstance(fields, dict):
        raise CheckpointError(f"{path}: a JSON object is expected")
    return cast(Json, fields)


def family(fields: Json) -> Family:
    """The module of a model_type."""
    name = read(fields, "model_type", str)
    if name not in FAMILIES:
        raise CheckpointError(f"config.json: model_type is {name!r}, known are {', '.join(FAMILIES)}")
    return cast(Family, importlib.import_module(f"trimode.models.{FAMILIES[name]}"))


def read_config(folder: Path) -> ModelConfig:
    """config.json, with the EOS ids of generation_config.json where that file exists."""
    fields = read_json(folder / "config.json")
    eos: tuple[int, ...] | None = None
    if (folder / "generation_config.json").exists():
        given = read_json(folder / "generation_config.json").get("eos_token_id")
        eos = tuple(given) if isinstance(given, list) else None if given is None else (given,)
    return family(fields).parse(fields, eos)


def default_sampling(folder: Path) -> Sampling:
    """What a checkpoint's generation_config.json asks for if it says do_sample; else greedy.

    Raises CheckpointError for a value out of range. A do_sample without a temperature means 1, as in transformers.
    """
    file = folder / "generation_config.json"
    found = read_json(file) if file.exists() else {}
    if not found.get("do_sample"):
        return Sampling()
    given = {name: found[name] for name in GENERATION_CONFIG if found.get(name) is not None}
    try:
        return Sampling(**({"temperature": 1.0} | given))
    except InvalidInput as error:
        raise CheckpointError(f"{file}: {error}") from None


def load_model(folder: Path, dtype: str | None = None, device: str | None = None) -> Transformer:
    """Build and fill a network. dtype: float32 on CPU and the checkpoint's own elsewhere, unless given."""
    config = read_config(folder)
    place = find_device(device)
    chosen = dtype or ("float32" if place.type == "cpu" else config.dtype)
    if chosen not in DTYPES:
        raise InvalidInput(f"dtype is {chosen!r}, allowed are {', '.join(DTYPES)}")
    model = empty(config, DTYPES[chosen], place)
    with torch.no_grad():
        weights.load(folder, dict(model.named_parameters()), tensors(config))
    return model.eval().requires_grad_(False)


def find_device(name: str | None) -> torch.device:
    """A device by name that this torch can reach; CUDA where there is one, unless named."""
    try:
        device = torch.device(name or ("cuda" if torch.cuda.is_available() else "cpu"))
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        reason = str(error).splitlines()[0]
        raise InvalidInput(f"device is {name!r}, which cannot be used here ({reason})") from error
    return device


def empty(config: ModelConfig, dtype: torch.dtype, device: torch.device) -> Transformer:
    """A network with memory but no values yet."""
    previous = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        with device:
            return Transformer(config)
    except (RuntimeError, MemoryError) as error:
        sizes = (
            f"{config.vocab_size} x {config.hidden_size}, {config.n_layers} layers, inner {config.intermediate_size}"
        )
        raise CheckpointError(f"no memory for a model of the sizes in config.json ({sizes})") from error
    finally:
        torch.set_default_dtype(previous)


def save_model(model: Transformer, fields: Json, folder: Path, max_shard: str = "5GB") -> None:
    """Write config.json as given and the weights in the dtype it names, under the family's own names."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps(fields, indent=2) + "\n", "utf-8")
    config = family(fields).parse(fields, None)
    weights.save(folder, dict(model.named_parameters()), tensors(config), DTYPES[config.dtype], max_shard)


def export(model: Transformer, source: Path, folder: Path, max_shard: str = "5GB") -> None:
    """Write what was loaded from `source` to another folder: the small files as they are, and the weights."""
    if folder.resolve() == source.resolve():
        raise InvalidInput(f"{folder} is where the checkpoint was loaded from, choose another folder")
    folder.mkdir(parents=True, exist_ok=True)
    copy_small_files(source, folder)
    dtype = DTYPES[model.config.dtype]
    weights.save(folder, dict(model.named_parameters()), tensors(model.config), dtype, max_shard)


def copy_small_files(source: Path, folder: Path) -> None:
    """Configuration, tokenizer and chat template, as they are; nothing that speaks of the weights."""
    for pattern in ("*.json", "*.jinja"):
        for path in source.glob(pattern):
            if path.name not in (weights.INDEX, MARK):
                shutil.copyfile(path, folder / path.name)


def tensors(config: ModelConfig) -> Iterator[weights.Tensors]:
    """The name map of a config's family."""
    return family({"model_type": config.model_type}).tensors(config)
