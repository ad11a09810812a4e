"""The Python front door: load a checkpoint, generate, stream, chat. Texts in, completions out; the engine is below."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType
from typing import Any, TypeVar, Unpack, overload

from trimode.cost import CostModel
from trimode.decoding import build, default_mode
from trimode.engine.calibration import calibrate
from trimode.engine.completion import Completion, completion
from trimode.engine.engine import Engine
from trimode.engine.events import Event
from trimode.engine.request import Request
from trimode.errors import InvalidInput
from trimode.keywords import Options
from trimode.models.adapter_set import AdapterSet
from trimode.models.adapters import Adapter
from trimode.models.checkpoint import default_sampling, export, load_model, resolve
from trimode.models.native import NativeTransformer, reason_against
from trimode.models.transformer import Model, Transformer
from trimode.numerics.parameters import PARAMETERS, Sampling, token_ids
from trimode.tokenizer import Message, Tokenizer

__all__ = ["BACKENDS", "BUNDLED", "LLM", "Completion", "Options", "Stream", "completion", "load"]
BUNDLED = Path(__file__).parent / "assets"
BACKENDS = ("auto", "native", "torch")
Prompt = str | Sequence[int]
T = TypeVar("T")


def load(
    source: str | Path | None = None, *, dtype: str | None = None, device: str | None = None, backend: str = "auto"
) -> "LLM":
    """Load a checkpoint folder or Hub id, the bundled small model by default.

    dtype: float32, bfloat16 or float16 (default: float32 on CPU, the checkpoint's own on CUDA).
    backend: `native`, a forward compiled on this machine (CPU, float32 or bfloat16), `torch`, or `auto`: native where
    that can be had and no adapter is loaded, for it has none.
    Raises CheckpointError for missing or damaged files, InvalidInput for an unknown dtype, or a backend that cannot be.
    """
    folder = resolve(source or BUNDLED)
    model = load_model(folder, dtype, device)
    served = serving_model(model, backend)
    return LLM(model, Tokenizer.load(folder), default_sampling(folder), folder, served, backend == "native")


def serving_model(model: Transformer, backend: str) -> Model:
    """What computes the forwards of a loaded model."""
    if backend not in BACKENDS:
        raise InvalidInput(f"backend is {backend!r}, allowed are {', '.join(BACKENDS)}")
    if backend == "native" or (backend == "auto" and reason_against(model) is None):
        return NativeTransformer(model)
    return model


class LLM:
    """A model with its tokenizer. Every call makes its own engine; the weights are shared."""

    def __init__(
        self, model: Transformer, tokenizer: Tokenizer, sampling: Sampling | None = None, folder: Path | None = None,
        served: Model | None = None, insists: bool = False,
    ) -> None:  # fmt: skip
        """`insists`: `served` must compute all forwards, so that an adapter it does not have is refused."""
        self.model, self.tokenizer, self.folder = model, tokenizer, folder
        self.sampling = sampling or Sampling()  # what holds where a call says nothing
        self._served, self._insists = served or model, insists
        self._adapters = AdapterSet(model)
        self.cost = self.served.cost  # by which drafts are weighed; `calibrate` measures it here

    @property
    def served(self) -> Model:
        """What computes the forwards: the torch model while there are adapters."""
        return self._served if self._adapters.is_empty else self.model

    @property
    def backend(self) -> str:
        """`torch` or `native`: what computes the forwards."""
        return "torch" if self.served is self.model else "native"

    @property
    def adapters(self) -> Mapping[str, Adapter]:
        """The loaded adapters by name."""
        return MappingProxyType(self._adapters.named)

    @property
    def drafter(self) -> Adapter | None:
        """The adapter for the rows of drafts, if one is loaded."""
        return self._adapters.drafter

    def adapter(self, name: str | None) -> Adapter | None:
        """A loaded adapter by name; None for None. Raises InvalidInput for an unknown one."""
        return self._adapters.get(name)

    def load_adapter(self, folder: str | Path, name: str | None = None) -> str:
        """Read an adapter in peft's format; the name by which requests choose it, by default the folder's.

        Raises CheckpointError for files that are missing, damaged, for another model, or of an unsupported kind;
        InvalidInput for a name that is taken, a draft adapter, or backend `native`, which has no adapters.
        """
        return self._switching(self._adapters.load, folder, name)

    def load_drafter(self, folder: str | Path) -> None:
        """Read an adapter for the drafts of every `self_speculation`: it changes how many hold, and no answer."""
        self._switching(self._adapters.load_drafter, folder)

    def unload_adapter(self, name: str) -> None:
        """Forget an adapter. Raises InvalidInput for an unknown name."""
        self._switching(self._adapters.unload, name)

    def _switching(self, act: Callable[..., T], *given: Any) -> T:
        """Do something to the adapters; where that changes the backend, the costs of drafts change with it."""
        if self._insists:
            raise InvalidInput("backend 'native' has no adapters, load the model with backend 'auto' or 'torch'")
        before = self.served
        result = act(*given)
        if self.served is not before:
            self.cost = self.served.cost
        return result

    def engine(self, **limits: Any) -> Engine:
        """An engine of the loaded model and drafter; `limits` are those of `Engine`."""
        return Engine(self.served, self.tokenizer, drafter=self.drafter, **limits)

    @overload
    def generate(self, prompt: str | Sequence[int], **options: Unpack[Options]) -> Completion: ...
    @overload
    def generate(self, prompt: list[str] | list[list[int]], **options: Unpack[Options]) -> list[Completion]: ...
    def generate(self, prompt: Any, **options: Unpack[Options]) -> Any:
        """Continue one prompt (text or token ids), or a list of them together in shared forwards.

        Raises InvalidInput, before anything runs, for a prompt or a parameter outside its range.
        """
        are_many = isinstance(prompt, list | tuple) and not all(isinstance(token, int) for token in prompt)
        engine = self.engine()
        requests = [self.submit(engine, one, **options) for one in (prompt if are_many else [prompt])]
        while not engine.is_idle:
            engine.step()
        completions = [completion(request) for request in requests]
        return completions if are_many else completions[0]

    def stream(self, prompt: Prompt, *, watch: bool = False, **options: Unpack[Options]) -> "Stream":
        """Continue one prompt, event by event; `watch` adds the open canvas to the events."""
        engine = self.engine()
        return Stream(engine, self.submit(engine, prompt, watch=watch, **options))

    def chat(self, messages: str | Sequence[Message], **options: Unpack[Options]) -> Completion:
        """Answer a conversation: a text, or messages with `role` and `content`."""
        return self.generate(self.chat_prompt(messages), **options)

    def chat_prompt(self, messages: str | Sequence[Message]) -> list[int]:
        """The token ids of a conversation, the assistant's turn opened."""
        turns = [{"role": "user", "content": messages}] if isinstance(messages, str) else messages
        return self.tokenizer.encode_chat(turns)

    def calibrate(self) -> CostModel:
        """Measure what forwards cost on this machine (about a second for the bundled model) and weigh drafts by it."""
        self.cost = calibrate(self.served)
        return self.cost

    def save(self, folder: str | Path, max_shard: str = "5GB") -> None:
        """Write the checkpoint in the layout and dtype it came in; unchanged weights give the same bytes."""
        if self.folder is None:
            raise InvalidInput("this model was not loaded from a checkpoint, so there is no config to save it with")
        export(self.model, self.folder, Path(folder), max_shard)

    def submit(self, engine: Engine, prompt: Prompt, *, watch: bool = False, **options: Unpack[Options]) -> Request:
        """Check a prompt and its options, and queue it in an engine."""
        tokens = self.tokenizer.encode(prompt) if isinstance(prompt, str) else self.tokenizer.checked(prompt)
        chosen: dict[str, Any] = dict(options)
        mode = chosen.pop("mode", default_mode(self.model.config))
        sampling = self._sampling({name: chosen.pop(name) for name in PARAMETERS if name in chosen})
        stop = chosen.pop("stop", ())
        max_tokens = chosen.pop("max_tokens", 256)
        adapter = self.adapter(chosen.pop("adapter", None))
        asked = {name: chosen.pop(name) for name in ("logprobs", "prompt_logprobs", "cache_salt") if name in chosen}
        ends = self._ends(chosen.pop("stop_token_ids", ()), chosen.pop("ignore_eos", False))
        return engine.submit(
            tokens, build(mode, self.model.config, self.cost, ends=ends, **chosen), max_tokens=max_tokens,
            sampling=sampling, stop=stop if isinstance(stop, list | tuple) else (stop,), watch=watch, adapter=adapter,
            ends=ends, **asked,
        )  # fmt: skip

    def _ends(self, more: Any, ignore_eos: Any) -> tuple[int, ...]:
        """The tokens that end a text."""
        if type(ignore_eos) is not bool:
            raise InvalidInput(f"ignore_eos is {ignore_eos!r}, allowed are True and False")
        own, size = self.model.config.eos_token_ids, self.model.config.vocab_size
        found = token_ids(more, "stop_token_ids")
        for token in found:
            if token >= size or token == self.model.config.mask_token_id:
                raise InvalidInput(f"stop_token_ids holds {token}, allowed is 0 to {size - 1}, but for the mask")
        return found if ignore_eos else (*own, *(token for token in found if token not in own))

    def _sampling(self, chosen: dict[str, Any]) -> Sampling:
        """The defaults with what was chosen, and the tokenizer's </think> where a budget needs an end of thinking."""
        if chosen.get("max_thinking_tokens") is not None and chosen.get("end_think_token_id") is None:
            chosen["end_think_token_id"] = self.tokenizer.backend.token_to_id("</think>")
        return replace(self.sampling, **chosen)


class Stream:
    """Events of one answer as they come. Iterate to the end, or `close` to stop early.

    `completion` is the answer so far.
    """

    def __init__(self, engine: Engine, request: Request) -> None:
        self._engine, self._request = engine, request

    def __iter__(self) -> Iterator[Event]:
        while self._request.finish is None:
            yield from self._engine.step()

    def close(self) -> Event:
        """Stop now, keeping the text so far; finish_reason is then `cancelled`."""
        return self._engine.abort(self._request)

    @property
    def completion(self) -> Completion:
        return completion(self._request)
