"""Text <-> token ids. User text never becomes a special token; chat templates run sandboxed. Knows no model.

A chat template's output mixes markup and user text; a marker that no user text contains breaks up whatever in user text
looks like a special token, and is removed before that text is encoded.
"""

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

from jinja2 import TemplateError
from jinja2.sandbox import ImmutableSandboxedEnvironment
from tokenizers import Tokenizer as Backend

from trimode.errors import CheckpointError, InvalidInput

Message = Mapping[str, Any]
FIM = ("<|fim_prefix|>", "<|fim_suffix|>", "<|fim_middle|>")  # the names that Qwen and others use
MARKERS = [chr(code) for code in range(0xFDD0, 0xFDF0)]  # Unicode noncharacters: never text
SIGN = MARKERS[0]


def _byte_letters() -> dict[str, int]:
    """The letter that stands for each byte in byte-level vocabularies: its own if it can be seen, else one from 256."""
    seen = [*range(33, 127), *range(161, 173), *range(174, 256)]
    hidden = [byte for byte in range(256) if byte not in seen]
    return {chr(byte): byte for byte in seen} | {chr(256 + n): byte for n, byte in enumerate(hidden)}


BYTES = _byte_letters()


class Tokenizer:
    """A `tokenizers` file, its special tokens and its chat template."""

    def __init__(
        self, backend: Backend, chat_template: str | None = None, bos_token: str | None = None,
        eos_token: str | None = None,
    ) -> None:  # fmt: skip
        self.backend = backend
        self.backend.encode_special_tokens = True  # "<|im_end|>" typed by a user is text
        self.chat_template = chat_template
        self.bos_token, self.eos_token = bos_token or "", eos_token or ""
        added = backend.get_added_tokens_decoder()
        self.special = {token.content: index for index, token in added.items() if token.special}

    @classmethod
    def load(cls, folder: Path) -> "Tokenizer":
        """tokenizer.json, tokenizer_config.json and chat_template.jinja of a checkpoint."""
        path, settings = folder / "tokenizer.json", folder / "tokenizer_config.json"
        if not path.exists():
            raise CheckpointError(f"{path}: this file is missing")
        try:
            backend = Backend.from_file(str(path))
            fields = json.loads(settings.read_text("utf-8")) if settings.exists() else {}
            file = folder / "chat_template.jinja"
            template = file.read_text("utf-8") if file.exists() else None
        except Exception as error:  # the library raises bare Exception for a damaged file
            reason = " ".join(str(error).split())
            raise CheckpointError(f"{folder}: the tokenizer cannot be read ({reason})") from error
        if not isinstance(fields, dict):
            raise CheckpointError(f"{settings}: a JSON object is expected")
        ends = {name: fields.get(name) for name in ("bos_token", "eos_token")}
        values = {"chat_template": template or fields.get("chat_template")} | {
            name: token.get("content") if isinstance(token, dict) else token for name, token in ends.items()
        }
        for name, value in values.items():
            if value is not None and not isinstance(value, str):
                raise CheckpointError(f"{settings}: {name} is not a text")
        return cls(backend, **values)

    @cached_property
    def reserved(self) -> frozenset[int]:
        """Special ids that no prompt may hold: all but those of chat templates, infilling, begin and end of text."""
        usual, known = self.chat_template or "", (self.bos_token, self.eos_token, *FIM)
        allowed = {
            index for text, index in self.special.items()
            if text in usual or text in known or re.fullmatch(r"\W*(bos|eos|s)\W*", text)
        }  # fmt: skip
        return frozenset(self.special.values()) - allowed

    @cached_property
    def fim(self) -> tuple[int, int, int] | None:
        """The markers of prefix, suffix and middle, where all three are there."""
        prefix, suffix, middle = (self.special.get(name) for name in FIM)
        return None if prefix is None or suffix is None or middle is None else (prefix, suffix, middle)

    def encode(self, text: str) -> list[int]:
        """Plain text, in which nothing is special."""
        try:
            tokens = list(self.backend.encode(text, add_special_tokens=False).ids)
        except (TypeError, UnicodeEncodeError) as error:
            raise InvalidInput("the text holds half of a surrogate pair, which is not Unicode text") from error
        if not set(self.special.values()) & set(tokens):
            return tokens
        cut = next((m for m in MARKERS if m not in text), "")  # a vocabulary that holds special tokens as words too
        pieces = self._guard(text, cut).split(cut) if cut else list(text)
        if len(pieces) == 1:
            raise InvalidInput(f"this vocabulary has no other word for {text!r:.60} than a special token")
        return [token for piece in pieces for token in self.encode(piece)]

    def checked(self, prompt: Sequence[int]) -> list[int]:
        """Token ids without the special ones that no prompt may hold; chat markup, begin and end of text are fine."""
        is_list = isinstance(prompt, Sequence) and not isinstance(prompt, bytes)
        if not is_list or not all(type(token) is int for token in prompt):
            raise InvalidInput(f"the prompt is {prompt!r:.60}, a text or a list of token ids is expected")
        for position, token in enumerate(prompt):
            if token in self.reserved:
                raise InvalidInput(f"prompt token {position} is {token}, a reserved id that no prompt may hold")
        return list(prompt)

    def decode(self, tokens: Sequence[int]) -> str:
        """The text of tokens without the special ones; bytes that are not UTF-8 become U+FFFD."""
        return str(self.backend.decode(list(tokens), skip_special_tokens=True))

    def spelled(self, token: int) -> bytes:
        """The bytes of one token, which may be a part of a character; of a special one its name."""
        name = self.backend.id_to_token(token) or ""
        if token not in self._added and self._is_byte_level and all(letter in BYTES for letter in name):
            return bytes(BYTES[letter] for letter in name)
        if byte := re.fullmatch("<0x([0-9A-F]{2})>", name):
            return bytes([int(byte[1], 16)])
        return name.replace("\u2581", " ").encode()  # the sign for a space in vocabularies of SentencePiece

    @cached_property
    def _added(self) -> frozenset[int]:
        return frozenset(self.backend.get_added_tokens_decoder())

    @cached_property
    def _is_byte_level(self) -> bool:
        decoder = json.loads(self.backend.to_str())["decoder"] or {}
        return "ByteLevel" in [decoder.get("type"), *(part.get("type") for part in decoder.get("decoders", ()))]

    def encode_chat(self, messages: Sequence[Message], **options: Any) -> list[int]:
        """Render the chat template (with the turn of the assistant opened) and encode markup and texts apart."""
        tokens: list[int] = []
        for part, is_markup in self._pieces(messages, options):
            tokens += [self.special[part]] if is_markup else self.encode(part)
        return tokens

    def render_chat(self, messages: Sequence[Message], **options: Any) -> str:
        """The same as text, for programs that hand prompts on as texts: SIGN stands before each special token.

        `encode_rendered` gives the ids of `encode_chat`.
        """
        pieces = list(self._pieces(messages, options))
        if any(SIGN in part for part, _ in pieces):
            raise InvalidInput("a message holds U+FDD0, which is no character and marks the markup of a rendered chat")
        return "".join(SIGN * is_markup + part for part, is_markup in pieces)

    def encode_rendered(self, text: str) -> list[int]:
        """Text in which a special token is one where SIGN stands before it; any other text is plain."""
        tokens: list[int] = []
        for index, part in enumerate(re.split(f"{SIGN}({self._any_special})", text) if self.special else [text]):
            tokens += [self.special[part]] if index % 2 else self.encode(part)
        return tokens

    def _pieces(self, messages: Sequence[Message], options: Mapping[str, Any]) -> Iterator[tuple[str, bool]]:
        """The rendered template in order: a special token and True, or text that is not empty and False."""
        rendered, marker = self._render(messages, options)
        parts = re.split(f"({self._any_special})(?!{marker})", rendered) if self.special else [rendered]
        for part in parts:
            if part:
                yield (part, True) if part in self.special else (part.replace(marker, ""), False)

    @property
    def _any_special(self) -> str:
        return "|".join(map(re.escape, sorted(self.special, key=len, reverse=True)))

    def _render(self, messages: Sequence[Message], options: Mapping[str, Any]) -> tuple[str, str]:
        if self.chat_template is None:
            raise InvalidInput("this checkpoint has no chat template: use a plain prompt")
        check_messages(messages)
        texts = json.dumps(messages, ensure_ascii=False, default=str)
        marker = next((m for m in MARKERS if m not in texts), None)
        if marker is None:
            raise InvalidInput("a message holds every Unicode noncharacter from U+FDD0 to U+FDEF")
        guarded = self._guarded(list(messages), marker)
        environment = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True)
        environment.globals["raise_exception"] = _refuse
        try:
            template = environment.from_string(self.chat_template)
            ends = {"bos_token": self.bos_token, "eos_token": self.eos_token}
            values = {**ends, "add_generation_prompt": True, **options}
            return template.render(messages=guarded, **values), marker
        except Exception as error:  # a template is a program: it fails in any way
            raise InvalidInput(f"the chat template does not take these messages: {error}") from error

    def _guarded(self, value: Any, marker: str) -> Any:
        """All texts of the messages, whatever field they stand in."""
        if isinstance(value, str):
            return self._guard(value, marker)
        if isinstance(value, Mapping):
            return {key: self._guarded(item, marker) for key, item in value.items()}
        return [self._guarded(item, marker) for item in value] if isinstance(value, list | tuple) else value

    def _guard(self, text: str, marker: str) -> str:
        for token in self.special:
            text = text.replace(token, token[0] + marker + token[1:])
        return text


def check_messages(messages: Sequence[Message]) -> None:
    """Messages are non-empty and each has a role and a text."""
    if not isinstance(messages, Sequence):
        raise InvalidInput("messages is not a list")
    if not messages:
        raise InvalidInput("messages is empty, at least one is needed")
    for index, message in enumerate(messages):
        for field in ("role", "content"):
            if not hasattr(message, "get") or not isinstance(message.get(field), str):
                raise InvalidInput(f"messages[{index}].{field} is missing or not a text")


def _refuse(message: str) -> None:
    raise TemplateError(message)
