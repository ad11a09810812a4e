"""How a server is set up, as one frozen value. Flags, environment variables and the TOML file are read off its fields.

A flag goes before TRIMODE_NAME of the environment, that before the file, and the file before the default.
"""

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from ipaddress import ip_address
from pathlib import Path
from typing import Any

from trimode.decoding import every_option
from trimode.decoding.aliases import canonical_option, canonical_placement, meant
from trimode.errors import InvalidInput
from trimode.options import check_options, option

PARAMETERS = every_option()
PREFIX = "TRIMODE_"
TRUE, FALSE = ("1", "true", "yes", "on"), ("0", "false", "no", "off")


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """What `trimode serve` is told. `decoding`: parameters of modes that hold where a request says nothing."""

    model: str | None = option(None, "checkpoint folder or Hub id (default: the bundled model)")
    served_model_name: str | None = option(None, "the name clients ask for (default: the folder's)")
    host: str = option("127.0.0.1", "address to listen on")
    port: int = option(30000, "port to listen on; 0: any that is free", low=0, high=65535)
    api_key: str | None = option(None, "keys that are let in, separated by commas", is_secret=True)
    api_key_file: str | None = option(None, "file with a key per line")
    public_without_key: bool = option(False, "listen on an address that others reach, without a key")
    dtype: str | None = option(None, "float32, bfloat16 or float16 (default: float32 on CPU)")
    device: str | None = option(None, "cpu, cuda, ... (default: cuda where there is one)")
    backend: str = option("auto", "auto, native (compiled here, for CPUs) or torch")
    generation_mode: str | None = option(None, "the mode of requests that name none (default: the checkpoint's best)")
    max_model_len: int | None = option(None, "tokens of prompt and answer together (default: the checkpoint's)", low=2)
    kv_tokens: int | None = option(
        None, "positions in the caches of all requests and known beginnings (default: a quarter of free memory)", low=1
    )
    no_prefix_reuse: bool = option(False, "compute every prompt anew, whatever is known of its beginning")
    max_running_requests: int = option(64, "answers written at a time", low=1, high=4096)
    max_queued_requests: int = option(256, "answers that wait; more are refused with 429", low=0, high=1_000_000)
    max_body_bytes: int = option(4 << 20, "largest request", low=1024)
    max_answers: int = option(16, "answers to one request: prompts x n", low=1, high=4096)
    request_seconds: float = option(
        600.0, "longest time for a request; what is there by then is the answer", low=0.1, high=1e6
    )
    drain_seconds: float = option(30.0, "after SIGTERM, time for accepted requests to end", low=0.0, high=1e6)
    ping_seconds: float = option(15.0, "a stream with nothing to send says so after this long", low=0.1, high=1e6)
    stall_seconds: float = option(60.0, "without a forward while work waits, after which /health fails", low=0.1)
    lenient: bool = option(False, "pass over unknown fields with a warning header instead of refusing them")
    decoding: Mapping[str, Any] = field(default_factory=dict)
    keys: tuple[str, ...] = field(init=False, repr=False, default=())  # that are let in; none: everybody is

    def __post_init__(self) -> None:
        check_options(self)
        for name in self.decoding:
            if name not in PARAMETERS:
                raise InvalidInput(f"{name} is no parameter of any mode, allowed are {', '.join(PARAMETERS)}")
        object.__setattr__(self, "keys", self._read_keys())
        if not (self.is_local or self.keys or self.public_without_key):
            raise InvalidInput(
                f"host {self.host} can be reached by others: set --api-key or --api-key-file, or say "
                "--public-without-key if a proxy in front checks who asks"
            )

    @property
    def is_local(self) -> bool:
        """Whether only this machine reaches the address."""
        try:
            return ip_address(self.host).is_loopback
        except ValueError:
            return self.host == "localhost"

    def _read_keys(self) -> tuple[str, ...]:
        """Once: a file may be gone later, or a pipe."""
        listed = [] if self.api_key is None else self.api_key.split(",")
        if self.api_key_file is not None:
            listed += _lines(Path(self.api_key_file))
        found = tuple(dict.fromkeys(key.strip() for key in listed if key.strip()))
        if not found and (self.api_key, self.api_key_file) != (None, None):
            raise InvalidInput("api_key and api_key_file hold no key, at least one is needed where they are given")
        return found


NAMES = {item.name: item for item in fields(Settings) if "help" in item.metadata}


def gather(flags: Mapping[str, Any], environment: Mapping[str, str], file: Path | None) -> Settings:
    """Settings from flags (those that were given), the environment and a TOML file. Raises InvalidInput."""
    said = _read(file) if file is not None else {}
    decoding = _decoding(said.pop("decoding", {}), file) | flags.get("decoding", {})
    for name in said:
        if name not in NAMES:
            raise InvalidInput(f"{file}: {name} is no setting, allowed are {', '.join(NAMES)} and a table [decoding]")
    said = {name: _typed(name, value, f"{file}: ") for name, value in said.items()}
    for name in NAMES:
        if (text := environment.get(PREFIX + name.upper())) is not None:
            said[name] = _parsed(name, text)
    said |= {name: flags[name] for name in NAMES if flags.get(name) is not None}
    return Settings(**said, decoding=decoding)


def _decoding(table: Any, file: Path | None) -> dict[str, Any]:
    """Parameters of modes in our words."""
    if not isinstance(table, dict):
        raise InvalidInput(f"{file}: decoding is {table!r:.60}, allowed is a table of parameters of modes")
    found = {canonical_option(name): value for name, value in table.items()}
    if isinstance(found.get("placement"), str):
        found["placement"] = canonical_placement(found["placement"])
    return {name: meant(PARAMETERS[name], value) if name in PARAMETERS else value for name, value in found.items()}


def _read(file: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(file.read_text("utf-8"))
    except OSError as error:
        raise InvalidInput(f"{file}: these settings cannot be read ({error.strerror})") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise InvalidInput(f"{file}: not readable as TOML ({error})") from None


def _kind(name: str) -> type:
    """bool, int, float or str, as the field is declared."""
    declared: Any = NAMES[name].type
    return next(kind for kind in (bool, int, float, str) if declared in (kind, kind | None))


def _typed(name: str, value: Any, where: str) -> Any:
    kind = _kind(name)
    if type(value) is int and kind is float:
        return float(value)
    if type(value) is not kind:
        raise InvalidInput(f"{where}{name} is {value!r}, allowed is a {kind.__name__}")
    return value


def _parsed(name: str, text: str) -> Any:
    """A text of the environment as the field wants it."""
    kind, plain = _kind(name), text.strip().lower()
    if kind is bool:
        if plain not in TRUE + FALSE:
            raise InvalidInput(f"{PREFIX}{name.upper()} is {text!r}, allowed are {', '.join(TRUE + FALSE)}")
        return plain in TRUE
    try:
        return kind(text)
    except ValueError:
        raise InvalidInput(f"{PREFIX}{name.upper()} is {text!r}, allowed is a {kind.__name__}") from None


def _lines(file: Path) -> list[str]:
    try:
        return file.read_text("utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidInput(f"{file}: these keys cannot be read ({error})") from None
