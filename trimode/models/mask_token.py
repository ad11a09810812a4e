"""Which token of a causal checkpoint becomes the mask, and its place in the tokenizer's files. Knows no network."""

import json
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from trimode.config import Json, ModelConfig
from trimode.errors import CheckpointError, InvalidInput
from trimode.models.checkpoint import read_json
from trimode.tokenizer import Tokenizer

NEW = (
    "<|mask|>",
    *(f"<|mask_{i}|>" for i in range(1, 10)),
)  # the text of a token that is added: the first that is free
KNOWN = ("<|mask|>", "<|MASK|>", "<|mdm_mask|>", "[MASK]", "<mask>")
NVIDIA = "<SPECIAL_100>"  # Nemotron-Labs-Diffusion masks with id 100 of Mistral's tokenizer, a slot it never uses
RESERVED = re.compile(
    r"<SPECIAL_\d+>|\[control_\d+\]|<\|reserved_special_token_\d+\|>|<\|reserved_\d+\|>|<unused_?\d+>|\[unused_?\d+\]"
)
ROLES = ("bos_token", "eos_token", "pad_token", "unk_token", "sep_token", "cls_token")


@dataclass(frozen=True, slots=True, kw_only=True)
class MaskToken:
    """The token, and why this one. `is_new`: the tokenizer's files do not have it yet."""

    id: int
    text: str
    reason: str
    is_new: bool = False


def choose(tokenizer: Tokenizer, config: ModelConfig, fields: Json, settings: Json, wanted: str | None) -> MaskToken:
    """The mask of a checkpoint: the one asked for, else one nobody uses, else a new one.

    fields, settings: config.json, tokenizer_config.json. A new token takes the first row of the embedding that has no
    text; where there is none its id is `config.vocab_size`, and the embedding has to grow by a row.
    Raises CheckpointError for a tokenizer larger than the embedding, InvalidInput for a token that cannot be a mask.
    """
    taken = _taken(tokenizer, fields, settings, config)
    n_texts = 1 + max(tokenizer.backend.get_vocab(with_added_tokens=True).values(), default=-1)
    if n_texts > config.vocab_size:
        raise CheckpointError(
            f"config.json: vocab_size is {config.vocab_size}, but the tokenizer's ids go up to {n_texts - 1}"
        )
    if wanted is not None:
        return _named(tokenizer, taken, wanted)
    for text, reason in _candidates(tokenizer, settings):
        if tokenizer.special[text] not in taken:
            return MaskToken(id=tokenizer.special[text], text=text, reason=reason)
    return _new(tokenizer, config, n_texts)


def _named(tokenizer: Tokenizer, taken: dict[int, str], text: str) -> MaskToken:
    """The special token a user names, or the reason why it cannot be the mask."""
    if text not in tokenizer.special:
        pieces = tokenizer.backend.encode(text, add_special_tokens=False).ids
        what = "no token" if not pieces else "an ordinary word" if len(pieces) == 1 else f"{len(pieces)} tokens"
        free = [name for name, index in tokenizer.special.items() if index not in taken]
        known = ", ".join(free[:6]) or "none here: leave it out, and one is added"
        raise InvalidInput(
            f"mask_token is {text!r}, which is {what} of this tokenizer, allowed is a special token that nothing "
            f"writes ({known})"
        )
    index = tokenizer.special[text]
    if index in taken:
        raise InvalidInput(
            f"mask_token is {text!r}, which {taken[index]}: allowed is a special token that nothing writes"
        )
    return MaskToken(id=index, text=text, reason="named by mask_token")


def _taken(tokenizer: Tokenizer, fields: Json, settings: Json, config: ModelConfig) -> dict[int, str]:
    """Special ids with a use of their own, and which."""
    template = tokenizer.chat_template or ""
    out = {index: "the chat template writes" for text, index in tokenizer.special.items() if text in template}
    for role in ROLES:
        entry = settings.get(role)
        text = entry.get("content") if isinstance(entry, dict) else entry
        if isinstance(text, str) and text in tokenizer.special:
            out[tokenizer.special[text]] = f"is the {role}"
        index = fields.get(f"{role}_id")
        if type(index) is int:
            out[index] = f"is the {role}"
    return out | dict.fromkeys(config.eos_token_ids, "is an eos_token")


def _candidates(tokenizer: Tokenizer, settings: Json) -> Iterator[tuple[str, str]]:
    """Special tokens that may serve, the best first: made to be a mask, then reserved for whatever comes."""
    own = settings.get("mask_token")
    for text in (own.get("content") if isinstance(own, dict) else own, *KNOWN):
        if isinstance(text, str) and text in tokenizer.special:
            yield text, "the tokenizer's own mask"
    if NVIDIA in tokenizer.special:
        yield NVIDIA, "reserved and unused, the one NVIDIA's conversions take"
    for text, _ in sorted(tokenizer.special.items(), key=lambda item: item[1]):
        if RESERVED.fullmatch(text):
            yield text, "reserved and unused"


def _new(tokenizer: Tokenizer, config: ModelConfig, index: int) -> MaskToken:
    """A token of its own, on the first row without a text."""
    text = next((text for text in NEW if tokenizer.backend.token_to_id(text) is None), None)
    if text is None:
        raise CheckpointError(f"tokenizer.json: all of {', '.join(NEW)} have another use, name a token by mask_token")
    if index < config.vocab_size:
        reason = f"added, on an unused row of the embedding (the tokenizer ends at {index - 1})"
    else:
        reason = "added, on a new row of embedding and head (all rows have a text)"
    return MaskToken(id=index, text=text, reason=reason, is_new=True)


def write(mask: MaskToken, folder: Path) -> None:
    """Enter the mask into the tokenizer's files of `folder`, which then name it as transformers does. Mutates them."""
    entry = {"content": mask.text, "single_word": False, "lstrip": False, "rstrip": False, "normalized": False,
             "special": True}  # fmt: skip
    if mask.is_new:
        _edit(folder / "tokenizer.json", lambda f: f.setdefault("added_tokens", []).append({"id": mask.id} | entry))
        _edit(folder / "added_tokens.json", lambda f: f.update({mask.text: mask.id}))
    _edit(folder / "tokenizer_config.json", lambda f: _enter(f, mask, entry))
    _edit(folder / "special_tokens_map.json", lambda f: f.update({"mask_token": mask.text}))
    if Tokenizer.load(folder).special.get(mask.text) != mask.id:
        raise CheckpointError(
            f"tokenizer.json: a token added behind the last id {mask.id - 1} gets another id, because ids are left out "
            "before it; name a special token that is there by mask_token"
        )


def _enter(settings: dict[str, Any], mask: MaskToken, entry: dict[str, Any]) -> None:
    settings["mask_token"] = mask.text
    if mask.is_new and isinstance(settings.get("added_tokens_decoder"), dict):  # how transformers 4 wrote it
        settings["added_tokens_decoder"][str(mask.id)] = entry


def _edit(path: Path, change: Callable[[dict[str, Any]], None]) -> None:
    """Read a JSON object, change it, write it back; a file that is not there stays so."""
    if path.exists():
        fields = dict(read_json(path))
        change(fields)
        path.write_text(json.dumps(fields, indent=2, ensure_ascii=False) + "\n", "utf-8")
