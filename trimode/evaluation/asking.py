"""One group of items in one mode: prompts in, records out. Knows the engine and a clock; no file, no metric."""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from trimode.api import LLM, Completion, completion
from trimode.errors import InvalidInput
from trimode.evaluation.infilling import laid_out
from trimode.evaluation.plan import ModeSpec, Plan
from trimode.evaluation.records import Record
from trimode.evaluation.suites import Item, Suite
from trimode.numerics.parameters import PARAMETERS

PLAIN = {name: item.default for name, item in PARAMETERS.items()}
WARM = 8  # tokens written before anything is timed: the first call of each shape pays for its kernels


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """An item as the model gets it."""

    suite: Suite
    item: Item
    tokens: tuple[int, ...]


def asked(llm: LLM, suite: Suite, item: Item, chat: bool) -> Asked:
    """The prompt as token ids: as turns of a conversation if `chat`, else as the text, turns one below the other.

    A text with a hole is laid out as infilling is trained, where the checkpoint has the markers for it.
    """
    prompt = item.prompt
    if "suffix" in item.facts:
        tokens = list(laid_out(llm.tokenizer, item))
    elif chat:
        tokens = llm.chat_prompt(prompt)
    else:
        text = prompt if isinstance(prompt, str) else "\n\n".join(turn["content"] for turn in prompt) + "\n"
        tokens = llm.tokenizer.encode(text)
    return Asked(suite=suite, item=item, tokens=tuple(tokens))


def refusal(llm: LLM, one: Asked) -> str | None:
    """Why the model cannot be asked this at all: a prompt is never cut."""
    room = llm.model.config.context_length
    if len(one.tokens) < room:
        return None
    return f"the prompt has {len(one.tokens)} tokens, the context holds {room}"


def refused(spec: ModeSpec, one: Asked, why: str) -> Record:
    """The record of an item that was not asked: wrong, where answers are judged."""
    verdict = None if one.suite.judge(one.item, "") is None else False
    return _head(spec, one) | {"refused": why, "verdict": verdict}


def answered(spec: ModeSpec, one: Asked, done: Completion, seconds: Sequence[float]) -> Record:
    """The record of an answer: all of the completion, the seconds of every repeat, and the verdict."""
    fields: dict[str, Any] = done.to_dict()
    for name in ("mode", "tokens_per_forward"):
        del fields[name]
    return _head(spec, one) | fields | {"seconds": list(seconds), "verdict": one.suite.judge(one.item, done.text)}


def _head(spec: ModeSpec, one: Asked) -> Record:
    return {"mode": spec.name, "task": one.item.task, "key": one.item.key}


def ask(llm: LLM, spec: ModeSpec, group: Sequence[Asked], plan: Plan) -> tuple[list[Completion], float]:
    """Answers of a group together in one engine, and the wall seconds per item: of a group, its share."""
    engine = llm.engine(max_running=plan.batch)
    requests = [
        llm.submit(engine, one.tokens, stop=one.item.stop, max_tokens=_most(plan, one.item), **_options(spec, plan))
        for one in group
    ]
    start = time.perf_counter()
    while not engine.is_idle:
        engine.step()
    seconds = time.perf_counter() - start
    return [completion(request) for request in requests], seconds / len(group)


def warm(llm: LLM, spec: ModeSpec, one: Asked, plan: Plan) -> None:
    """A few tokens that nobody counts. Says what is wrong with a mode before anything else is run."""
    try:
        llm.generate(one.tokens, max_tokens=WARM, **_options(spec, plan))
    except InvalidInput as error:
        raise InvalidInput(f"mode {spec.name}: {error}") from None


def _options(spec: ModeSpec, plan: Plan) -> Any:
    """Greedy unless the mode says otherwise: what a checkpoint asks for by itself would differ between checkpoints."""
    return {**PLAIN, "mode": spec.mode, "adapter": plan.adapter, **spec.options}


def _most(plan: Plan, item: Item) -> int:
    return item.max_tokens if plan.max_tokens is None else min(item.max_tokens, plan.max_tokens)
