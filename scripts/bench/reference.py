"""transformers on the same weights: its Ministral-3 or Qwen3 over our tensors, greedy `generate` and prompt lookup.

Timed: `model.generate` from token ids to token ids. Forwards are counted by a hook on the network.
"""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch

from scripts.bench.systems import Answer, System, stored
from trimode import load
from trimode.config import Json, ModelConfig
from trimode.models.checkpoint import read_json

LOOKUP: dict[str, dict[str, Any]] = {"transformers": {}, "transformers prompt lookup": {"prompt_lookup_num_tokens": 10}}
OWN_NAMES = {"encoder": "model", "diffusion_head": "lm_head"}
SHARED_FIELDS = (
    "vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads",
    "num_key_value_heads", "head_dim", "rms_norm_eps", "max_position_embeddings", "tie_word_embeddings",
)  # fmt: skip


def transformers_rows(source: str | None, dtypes: Sequence[str], device: str) -> Iterator[System | str]:
    """Greedy and prompt lookup for every dtype, or a sentence why not."""
    if find_spec("transformers") is None:
        yield "transformers: not installed"
        return
    for dtype in dtypes:
        llm = load(source, dtype=dtype, device=device, backend="torch")
        assert llm.folder is not None
        fields = read_json(Path(llm.folder) / "config.json")
        model = reference(fields, stored(llm.model), llm.model.dtype, llm.model.device)
        for name, options in LOOKUP.items():
            yield System(name=f"{name} [{dtype}]", write=generate_writer(model, llm.model.config, options))


def reference(fields: Json, state: Mapping[str, Any], dtype: torch.dtype, device: torch.device) -> Any:
    """transformers' network over our tensors (shared, not copied) of a checkpoint with this config.json."""
    import transformers

    transformers.logging.set_verbosity_error()  # it remarks on rope fields that default positions do not use
    name, rope = "Qwen3", dict(fields["rope_parameters"])
    if fields["model_type"] != "qwen3":
        name, unscaled = "Ministral3", {"llama_4_scaling_beta": 0.0}
        rope = unscaled | {"original_max_position_embeddings": fields["max_position_embeddings"]} | rope
    config = getattr(transformers, f"{name}Config")(
        **{field: fields[field] for field in SHARED_FIELDS}, rope_parameters=rope,
        pad_token_id=None, bos_token_id=None, eos_token_id=None, attn_implementation="sdpa",
    )  # fmt: skip
    previous = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        with device:
            model = getattr(transformers, f"{name}ForCausalLM")(config).eval()
    finally:
        torch.set_default_dtype(previous)
    theirs = {their_name(name): tensor for name, tensor in state.items()}
    if fields["tie_word_embeddings"]:
        theirs["lm_head.weight"] = theirs["model.embed_tokens.weight"]
    model.load_state_dict(theirs, assign=True)
    return model.requires_grad_(False)


def their_name(name: str) -> str:
    """`encoder.` and `diffusion_head` under transformers' names; others have theirs."""
    first, rest = name.split(".", 1)
    return f"{OWN_NAMES.get(first, first)}.{rest}"


def generate_writer(
    model: Any, config: ModelConfig, options: Mapping[str, Any]
) -> Callable[[Sequence[int], int], Answer]:
    """`generate` as a function of token ids."""
    calls = [0]
    model.register_forward_pre_hook(lambda *_: calls.__setitem__(0, calls[0] + 1))
    fixed: dict[str, Any] = {"do_sample": False, "eos_token_id": list(config.eos_token_ids), "pad_token_id": 0}

    def write(prompt: Sequence[int], max_tokens: int) -> Answer:
        calls[0], limit = 0, min(max_tokens, config.context_length - len(prompt))
        start = time.perf_counter()
        with torch.inference_mode():
            ids = torch.tensor([list(prompt)], device=model.device)
            out = model.generate(ids, attention_mask=torch.ones_like(ids), max_new_tokens=limit, **fixed, **options)
            tokens = tuple(out[0, len(prompt) :].tolist())
        return Answer(tokens=tokens, seconds=time.perf_counter() - start, forwards=calls[0])

    return write
