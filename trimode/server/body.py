"""What clients may send, as pydantic models: types and ranges. The fields of the modes come from the decoders' own.

Fields that no model names are kept, and `reading` decides what becomes of them.
"""

from typing import Annotated, Any, ClassVar, Literal, Union, get_args

from pydantic import BaseModel, ConfigDict, Field, create_model

from trimode.decoding import MODES, every_option
from trimode.engine.checks import MOST_LOGPROBS
from trimode.numerics.parameters import MASK64, STRONGEST_BIAS

SHORT = Annotated[str, Field(min_length=1, max_length=256)]
MOST = 1 << 20  # of anything in a list; every check below ends at the first item that fails it
TokenId = Annotated[int, Field(ge=0, lt=2**31)]
TokenIds = Annotated[list[TokenId], Field(max_length=MOST, fail_fast=True)]
Tokens = Annotated[list[TokenId], Field(min_length=1, max_length=MOST, fail_fast=True)]
Many = Field(min_length=1, max_length=4096, fail_fast=True)
Digits = Annotated[str, Field(pattern=r"^[0-9]{1,10}$")]
Bias = Annotated[float, Field(ge=-STRONGEST_BIAS, le=STRONGEST_BIAS)]
Likeliest = Annotated[int, Field(ge=0, le=MOST_LOGPROBS)]


class Body(BaseModel):
    """Strict: a text is no number, a boolean no integer, and neither NaN nor infinity is a number."""

    model_config = ConfigDict(strict=True, extra="allow", allow_inf_nan=False)


class StreamOptions(Body):
    include_usage: bool | None = None
    continuous_usage_stats: bool | None = None  # vLLM's: the usage so far with every chunk


class TextPart(Body):
    type: Literal["text", "input_text", "output_text"]
    text: str
    annotations: Annotated[list[Any], Field(max_length=0)] | None = None


class Message(Body):
    """A turn of a conversation. Of other fields only `name` reaches the chat template."""

    role: Annotated[str, Field(min_length=1, max_length=64)]
    content: str | Annotated[list[TextPart], Field(max_length=4096, fail_fast=True)]
    name: Annotated[str, Field(max_length=256)] | None = None


class Turn(Message):
    """A turn as the responses API has it; an answer of ours may be sent back as it came."""

    type: Literal["message"] | None = None
    id: Annotated[str, Field(max_length=256)] | None = None
    status: Literal["completed", "incomplete", "in_progress"] | None = None


class Common(Body):
    """What both endpoints take, beside the parameters of the modes. A field that is null counts as left out."""

    model: Annotated[str, Field(max_length=1024)] | None = None
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    n: Annotated[int, Field(ge=1, le=4096)] | None = None
    max_tokens: Annotated[int, Field(ge=1, lt=2**31)] | None = None
    cache_salt: Annotated[str, Field(max_length=256)] | None = None
    stop: SHORT | Annotated[list[SHORT], Field(max_length=16)] | None = None
    stop_token_ids: TokenIds | None = None
    ignore_eos: bool | None = None
    seed: Annotated[int, Field(ge=-(2**63), le=MASK64)] | None = None
    temperature: Annotated[float, Field(ge=0)] | None = None
    top_p: Annotated[float, Field(gt=0, le=1)] | None = None
    top_k: Annotated[int, Field(ge=-1, lt=2**31)] | None = None
    min_p: Annotated[float, Field(ge=0, le=1)] | None = None
    presence_penalty: Annotated[float, Field(ge=-2, le=2)] | None = None
    frequency_penalty: Annotated[float, Field(ge=-2, le=2)] | None = None
    repetition_penalty: Annotated[float, Field(gt=0)] | None = None
    logit_bias: Annotated[dict[Digits, Bias], Field(max_length=4096)] | None = None
    banned_token_ids: TokenIds | None = None
    min_tokens: Annotated[int, Field(ge=0, lt=2**31)] | None = None
    max_thinking_tokens: Annotated[int, Field(ge=0, lt=2**31)] | None = None
    stream_mode: Literal["text", "denoise"] | None = None
    diffusing: Annotated[bool, Field(description="true: stream_mode denoise")] | None = None
    generation_mode: Annotated[str, Field(max_length=64)] | None = Field(None, description=f"one of {', '.join(MODES)}")


def _mode_fields() -> dict[str, Any]:
    """Every parameter of every mode, with all that any mode allows: whether this one does is for its decoder to say."""
    return {
        name: (_declared(item), Field(None, description=item.metadata["help"])) for name, item in every_option().items()
    }


def _declared(item: Any) -> Any:
    """The type of a decoder's field with its range. Null leaves it out; what Python calls None is "none" here."""
    facts, kinds = item.metadata, get_args(item.type) or (item.type,)
    if facts["choices"] is not None:
        return Union[Literal[facts["choices"]], None]  # noqa: UP007 - a runtime value
    kind = next(kind for kind in kinds if kind is not type(None))
    low = {} if facts["low"] is None else {"gt" if facts["is_open"] else "ge": facts["low"]}
    high = {} if facts["high"] in (None, float("inf")) else {"le": facts["high"]}
    words = (Literal["none"],) if facts["optional"] and item.default is not None else ()
    return Union[(Annotated[kind, Field(**low, **high)], *words, None)]


Modes: Any = create_model("Modes", __base__=Common, **_mode_fields())


class ChatBody(Modes):  # type: ignore[misc]
    """POST /v1/chat/completions."""

    asks: ClassVar[str] = "messages"
    messages: Annotated[list[Message], Many]
    max_completion_tokens: Annotated[int, Field(ge=1, lt=2**31)] | None = None
    logprobs: bool | None = None
    top_logprobs: Likeliest | None = None
    prompt_logprobs: Likeliest | None = None


class ResponsesBody(Modes):  # type: ignore[misc]
    """POST /v1/responses, without what a server has to remember."""

    asks: ClassVar[str] = "input"
    input: str | Annotated[list[Turn], Many]
    instructions: str | None = None
    max_output_tokens: Annotated[int, Field(ge=1, lt=2**31)] | None = None
    n: Literal[1] | None = None

    @property
    def conversation(self) -> list[Message]:
        """The turns as messages, the instructions first."""
        head = [] if self.instructions is None else [Message(role="system", content=self.instructions)]
        turns = [Message(role="user", content=self.input)] if isinstance(self.input, str) else self.input
        return [*head, *turns]


class Thinking(Body):
    type: Literal["disabled"]


class MessagesBody(Modes):  # type: ignore[misc]
    """POST /v1/messages, as Anthropic's API has it."""

    asks: ClassVar[str] = "messages"
    messages: Annotated[list[Message], Many]
    max_tokens: Annotated[int, Field(ge=1, lt=2**31)]
    system: str | Annotated[list[TextPart], Field(max_length=4096, fail_fast=True)] | None = None
    stop_sequences: Annotated[list[SHORT], Field(max_length=16)] | None = None
    thinking: Thinking | None = None
    n: Literal[1] | None = None

    @property
    def conversation(self) -> list[Message]:
        """The messages, the system's first."""
        return [*([Message(role="system", content=self.system)] if self.system else []), *self.messages]


class CompletionBody(Modes):  # type: ignore[misc]
    """POST /v1/completions."""

    asks: ClassVar[str] = "prompt"
    prompt: str | Tokens | Annotated[list[str], Many] | Annotated[list[Tokens], Many]
    echo: bool | None = None
    logprobs: Likeliest | Literal[False] | None = None
    prompt_logprobs: Likeliest | None = None


class TokenizeBody(Body):
    """POST /tokenize: a text, or messages as a prompt is made of them."""

    model: str | None = None
    add_special_tokens: Literal[False] | None = None  # nothing is ever added to a plain text
    prompt: str | None = None
    messages: Annotated[list[Message], Many] | None = None


class DetokenizeBody(Body):
    """POST /detokenize."""

    model: str | None = None
    tokens: TokenIds
