"""The modes once more, slow and plain, to compare with: no cache, no spans, no states; every look feeds all again.

Written from the rule in words (docs/visibility.md) and from the published decoders, not from `trimode.decoding`:
text tokens see the text up to themselves, canvas tokens see the whole text and the whole canvas.
"""

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from math import prod
from typing import Any

import torch
from torch import Tensor

from trimode.cost import FLAT
from trimode.models.transformer import Transformer
from trimode.numerics.keyed_noise import gumbel
from trimode.numerics.sampling import Sampling, draw
from trimode.numerics.visibility import Masked, Stream


@dataclass(frozen=True)
class Answer:
    tokens: tuple[int, ...]
    forwards: dict[str, int]
    finish: str


@dataclass(frozen=True)
class Reading:
    token: int
    confidence: float
    margin: float
    certainty: float  # exp(-entropy): 1 when one token is certain, 1 / V when all are equal


@dataclass
class Eyes:
    """A model without memory, and the way it chooses. `seen` only saves looking twice at the very same thing."""

    model: Transformer
    sampling: Sampling = field(default_factory=Sampling)
    seen: dict[tuple[tuple[int, ...], tuple[int, ...]], Tensor] = field(default_factory=dict)

    def logits(self, text: Sequence[int], canvas: Sequence[int] = ()) -> Tensor:
        """All rows of one forward over text and canvas -> [len(text) + len(canvas), V]."""
        key = (tuple(text), tuple(canvas))
        if key not in self.seen:
            n, total = len(text), len(text) + len(canvas)
            sees = torch.ones(total, total, dtype=torch.bool)
            sees[:n] = torch.tril(sees[:n])
            bias = torch.zeros(1, 1, total, total).masked_fill(~sees, float("-inf"))
            stream = Stream(start=0, count=1, rows=total, past=0, bias_NQK=bias)
            hidden = self.model(torch.tensor([*text, *canvas]), torch.arange(total), Masked(given=(stream,)))
            self.seen[key] = self.model.logits(hidden)
        return self.seen[key]

    def choose(self, logits_V: Tensor, position: int, look: int = 0) -> tuple[int, float]:
        """The token for a position at this look, and its probability at temperature 1."""
        scores = logits_V.double()
        probability = scores.softmax(0)
        scores = scores.index_fill(0, torch.tensor([self.model.config.mask_token_id]), float("-inf"))
        if self.sampling.temperature > 0:
            key = draw(self.sampling, position, look).key
            key = key - (1 << 64) if key >> 63 else key
            scores = scores / self.sampling.temperature + gumbel(torch.tensor([key]), len(scores))[0]
        token = int(scores.argmax())
        return token, float(probability[token])

    def next_token(self, text: Sequence[int], canvas: Sequence[int] = ()) -> int:
        """What comes after the text; the canvas rides along unseen by it."""
        return self.choose(self.logits(text, canvas)[len(text) - 1], len(text))[0]

    def reading(
        self, text: Sequence[int], canvas: Sequence[int], index: int, look: int = 0, ar_weight: float = 0.0
    ) -> "Reading":
        """What stands at a slot, and every way to say how sure that is; partly as the causal rows would have it."""
        logits_V = self.row(text, canvas, index)
        if ar_weight:
            causal_V = self.logits([*text, *canvas])[len(text) + index - 1]
            logits_V = (1 - ar_weight) * logits_V + ar_weight * causal_V
        token, confidence = self.choose(logits_V, len(text) + index, look)
        chances = logits_V.double().softmax(0).tolist()
        entropy = -sum(p * math.log(p) for p in chances if p > 0)
        chances[self.model.config.mask_token_id] = 0.0
        first, second = sorted(chances)[-1:-3:-1]
        return Reading(token, confidence, first - second, math.exp(-entropy))

    def slot(self, text: Sequence[int], canvas: Sequence[int], index: int, look: int = 0) -> tuple[int, float]:
        """What stands at a slot of the canvas, and how sure the model is."""
        return self.choose(self.row(text, canvas, index), len(text) + index, look)

    def row(self, text: Sequence[int], canvas: Sequence[int], index: int) -> Tensor:
        """The logits that name a slot: its own, or those of the row before it."""
        return self.logits(text, canvas)[len(text) + index - (self.model.config.canvas_logits == "shifted")]


@dataclass
class Text:
    """Prompt and answer, and whether it is over: after the first EOS that was generated, or at its full length."""

    tokens: list[int]
    n_prompt: int
    end: int
    eos: tuple[int, ...]
    forwards: Counter[str] = field(default_factory=Counter)

    @property
    def room(self) -> int:
        return self.end - len(self.tokens)

    @property
    def is_stopped(self) -> bool:
        return any(token in self.eos for token in self.tokens[self.n_prompt :])

    @property
    def is_over(self) -> bool:
        return self.is_stopped or self.room == 0

    def answer(self) -> Answer:
        tokens = tuple(self.tokens[self.n_prompt :])
        return Answer(tokens, dict(self.forwards), "stop" if self.is_stopped else "length")


def begin(eyes: Eyes, prompt: Sequence[int], max_tokens: int) -> Text:
    config = eyes.model.config
    end = min(len(prompt) + max_tokens, config.context_length)
    return Text(list(prompt), len(prompt), end, config.eos_token_ids)


def ar(eyes: Eyes, prompt: Sequence[int], max_tokens: int) -> Answer:
    """One token per forward; the first comes with the prompt (spec 3.1)."""
    text = begin(eyes, prompt, max_tokens)
    while not text.is_over:
        text.forwards["decode" if text.forwards else "prefill"] += 1
        text.tokens.append(eyes.next_token(text.tokens))
    return text.answer()


@dataclass(frozen=True)
class Speculation:
    """How to speculate, nothing left to adapt."""

    placement: str
    draft_length: int
    max_canvases: int = 2
    draft_threshold: float = 0.0
    verify_above: float = 0.0
    lookup_length: int = 0
    fallback_below: float = 0.0
    anchor: str = "committed"


Draft = list[tuple[int, float]]  # guesses for what follows the text, masks among them, and how sure each is


@dataclass
class Memory:
    """What is remembered from forward to forward."""

    draft: Draft = field(default_factory=list)
    round: list[int] = field(default_factory=list)  # tokens made by each forward of the open round
    n_poor: int = 0  # rounds in a row
    rest: int = 0  # plain steps still to take
    held: float = 2.0  # of the guesses looked up in the text, fading by a fifth with each judgement
    judged: float = 3.0

    def add(self, n_made: int) -> None:
        """A forward happened. Those of a rest are in no round. What lookups were worth is forgotten a little."""
        self.held += (2 - self.held) / 32
        self.judged += (3 - self.judged) / 32
        if self.rest:
            self.rest -= 1
        else:
            self.round.append(n_made)

    def close(self, fallback_below: float) -> None:
        """The draft is used up. After a loss come 4 plain steps per token of it, double for each poor round before."""
        loss = fallback_below - sum(self.round)
        if self.round and loss > 0:
            self.rest = min(max(round(4 * loss), 2) * 2**self.n_poor, 64)
            self.n_poor += 1
        elif self.round:
            self.n_poor = 0
        self.round = []


def self_speculation(eyes: Eyes, prompt: Sequence[int], max_tokens: int, rule: Speculation) -> Answer:
    """Spec 3.6 (linear) and 3.8 (quadratic, and what lies between), where forwards cost what FLAT says.

    The text's last token is fed as text and names the next for certain, so of the masks of a canvas the first is not
    read; with the anchor "canvas" it is fed as the canvas's first token instead, as released.
    """
    text, memory = begin(eyes, prompt, max_tokens), Memory()
    while not text.is_over:
        mask = eyes.model.config.mask_token_id
        if mask in [token for token, _ in memory.draft]:
            text.forwards["draft"] += 1
            seen = [text.tokens[-1], *(token for token, _ in memory.draft)]
            picks = {i - 1: eyes.slot(text.tokens[:-1], seen, i) for i, token in enumerate(seen) if token == mask}
            memory.draft = _fill(memory.draft, picks, rule.draft_threshold)
            memory.add(0)
        else:
            _verify(eyes, text, memory, rule)
        if not memory.draft:
            memory.close(rule.fallback_below)
        width = min(rule.draft_length, text.room)
        if rule.anchor == "canvas" and not memory.draft and not memory.rest:
            memory.draft = [(mask, 0.0)] * (width - 1)
    return text.answer()


def _fill(draft: Draft, picks: dict[int, tuple[int, float]], threshold: float) -> Draft:
    """Where the model is sure enough, and where it is surest in any case."""
    best = max(picks, key=lambda slot: (picks[slot][1], -slot))
    sure = {slot: pick for slot, pick in picks.items() if slot == best or pick[1] >= threshold}
    return [sure.get(slot, old) for slot, old in enumerate(draft)]


def _verify(eyes: Eyes, text: Text, memory: Memory, rule: Speculation) -> None:
    """One forward: the guesses worth it, and canvases for the next draft. Uses up the draft in memory."""
    is_first = not text.forwards
    old, draft, room = list(text.tokens), memory.draft, text.room
    is_found = not draft
    if is_found and not is_first:
        draft = _look_up(old, memory, rule)
    guesses = _trusted(draft[: room - 1], rule.verify_above)
    is_idle = memory.rest or rule.anchor == "canvas" or (memory.draft and not guesses)
    lengths = () if is_idle else _lengths(guesses, is_found, rule)
    widths = {length: min(rule.draft_length, room - length - 1) for length in lengths}
    widths = {length: width for length, width in widths.items() if width > 1}
    text.forwards["prefill" if is_first else "verify" if guesses else "draft" if widths else "decode"] += 1
    for guess in (*(token for token, _ in guesses), None):  # behind the last guess nothing was foreseen
        text.tokens.append(eyes.next_token(text.tokens))
        if text.is_over:
            return
        if text.tokens[-1] != guess:
            break
    made = text.tokens[len(old) :]
    if not is_first:
        memory.add(len(made))
    if is_found and guesses:
        memory.held = 0.8 * memory.held + len(made) - 1
        memory.judged = 0.8 * memory.judged + min(len(made), len(guesses))
    _next_draft(eyes, text, memory, rule, widths.get(len(made) - 1, 0), len(guesses), len(made) - 1)


def _next_draft(
    eyes: Eyes, text: Text, memory: Memory, rule: Speculation, width: int, n_verified: int, n_held: int
) -> None:
    """From the canvas of the forward before, if it had one where the guesses ended to hold; or what is left over."""
    old, memory.draft = memory.draft, []
    if width:
        if old:
            memory.close(rule.fallback_below)
        masks = [eyes.model.config.mask_token_id] * width
        picks = {slot - 1: eyes.slot(text.tokens[:-1], masks, slot) for slot in range(1, width)}
        memory.draft = _fill([(masks[0], 0.0)] * (width - 1), picks, rule.draft_threshold)
    elif n_held == n_verified < len(old) and text.tokens[-1] == old[n_verified][0]:
        memory.draft = old[n_verified + 1 :]


def _look_up(tokens: Sequence[int], memory: Memory, rule: Speculation) -> Draft:
    """What followed the latest place where the text's last 4, 3 or 2 tokens stood before; each as sure as usual."""
    for size in (4, 3, 2):
        starts = [i for i in range(len(tokens) - size) if list(tokens[i : i + size]) == list(tokens[-size:])]
        if starts:
            after = starts[-1] + size
            text = list(tokens)
            for i in range(rule.lookup_length):  # where the text ends, it is taken to repeat itself
                text.append(text[after + i])
            return [(token, memory.held / memory.judged) for token in text[after : after + rule.lookup_length]]
    return []


def _trusted(guesses: Draft, verify_above: float) -> Draft:
    """Those that hold together with at least this probability."""
    joint, n = 1.0, 0
    for _, sure in guesses:
        joint *= sure
        n += joint >= verify_above
    return guesses[:n]


def _lengths(guesses: Draft, is_found: bool, rule: Speculation) -> Sequence[int]:
    """How many guesses may hold so that a canvas stands ready. Beside guesses that were found one stands at 0."""
    n = len(guesses)
    if n and rule.placement == "quadratic":
        return range(n + 1)
    if is_found:
        return [0]
    if not n or rule.placement == "linear":
        return []
    chance = []
    for length in range(n + 1):
        held = prod(sure for _, sure in guesses[:length])
        chance.append(held * (1 - guesses[length][1]) if length < n else held)
    ranked = sorted(range(n + 1), key=lambda a: (chance[a], a), reverse=True)[: rule.max_canvases]
    if rule.placement == "chained":
        ranked = [n]
    lengths, width = [], rule.draft_length
    for i, length in enumerate(ranked):
        spared = chance[length] * (FLAT(1, width) - FLAT(1) / 2)  # a draft forward, less what its token is worth
        if spared > FLAT(1 + n, width * (i + 1)) - FLAT(1 + n, width * i):
            lengths.append(length)
    return lengths


def prompt_lookup(eyes: Eyes, prompt: Sequence[int], max_tokens: int, rule: Speculation) -> Answer:
    """`ar`, where a forward goes on as long as the text does as it did before; the last token is never a guess."""
    text = begin(eyes, prompt, max_tokens)
    while not text.is_over:
        found = [token for token, _ in _look_up(text.tokens, Memory(), rule)] if text.forwards else []
        guesses = found[: text.room - 1]
        text.forwards["verify" if guesses else "decode" if text.forwards else "prefill"] += 1
        for guess in (*guesses, None):
            text.tokens.append(eyes.next_token(text.tokens))
            if text.is_over or text.tokens[-1] != guess:
                break
    return text.answer()


def diffusion(
    eyes: Eyes, prompt: Sequence[int], max_tokens: int, block_size: int, anchor: str, threshold: float | None,
    max_denoising_steps: int | None = None, **more: Any,
) -> Answer:  # fmt: skip
    """Block after block by confidence: spec 3.2 for `canvas`, 3.3 for `none`; `fused` is between them.

    Against the model card's decoder: the mask is never chosen, an EOS read as the anchor ends the text without a look,
    and the last block is not committed.
    """
    text = begin(eyes, prompt, max_tokens)
    rule = Rule(block_size, max_denoising_steps or block_size, threshold, **more)
    while not text.is_over:
        kind = "commit" if text.forwards else "prefill"
        text.tokens += _block(eyes, text, kind, anchor, rule)
    return text.answer()


@dataclass(frozen=True)
class Rule:
    block_size: int
    n_steps: int
    threshold: float | None
    rule: str = "threshold"
    slots_per_look: int = 1
    factor: float = 1.0
    remask: str = "none"
    remask_below: float = 0.5
    ar_weight: float = 0.0

    def score(self, reading: Reading) -> float:
        return {"margin": reading.margin, "entropy": reading.certainty}.get(self.rule, reading.confidence)

    def fill(self, picks: dict[int, Reading], look: int, n_known: int = 0) -> list[int]:
        """Slots to fill at this look. A slot known otherwise is one more, filled first: it stands at slot -1."""
        sure = {slot: self.score(reading) for slot, reading in picks.items()}
        if look >= self.n_steps - 1:
            return list(sure)
        sure |= dict.fromkeys(range(-n_known, 0), 1.0)
        ranked = sorted(sure, key=lambda slot: (-sure[slot], slot))
        n = self.how_many([sure[slot] for slot in ranked], self.n_steps - look)
        if self.rule == "leftmost":
            ranked = sorted(sure)
        return [slot for slot in ranked[: max(n, 1)] if slot >= 0]

    def how_many(self, c: list[float], looks_left: int) -> int:
        """How many of the slots whose scores, sorted, are c: spec 3.2, 3.3 and 3.5."""
        low = self.threshold or 0.0
        n = range(1, len(c) + 1)
        if self.rule in ("quota", "leftmost") or (
            self.threshold is None and self.rule in ("threshold", "margin", "entropy")
        ):
            return math.ceil(len(c) / looks_left)
        if self.rule == "top_k":
            return self.slots_per_look
        if self.rule == "cumulative_error":
            return max((k for k in n if math.prod(c[:k]) >= low), default=1)
        steps = [1 - self.factor / (i + 2) for i in range(len(c))]
        fits = {
            "factor": [c[i] >= steps[i] and c[i] >= low for i in range(len(c))],
            "bound": [c[i] >= 0.95 or (c[i] >= low and c[i] >= steps[i]) for i in range(len(c))],
        }.get(self.rule, [c[i] >= low for i in range(len(c))])
        return max((k for k in n if all(fits[1:k])), default=1)


def _block(eyes: Eyes, text: Text, kind: str, anchor: str, rule: Rule) -> list[int]:
    """The next block of the text, cut after its first EOS."""
    mask = eyes.model.config.mask_token_id
    width = min(rule.block_size, text.room)
    block = [mask] * width
    look, doubted = 0, set()
    if anchor != "none":
        block[0] = eyes.next_token(text.tokens)
        text.forwards[kind] += 1
    if anchor == "fused" and width > 1:  # the look that rides along saw a mask at slot 0 as well
        picks = {s: eyes.reading(text.tokens, [mask] * width, s, 0, rule.ar_weight) for s in range(1, width)}
        _write(block, picks, rule.fill(picks, 0, n_known=1))
        look = 1
    while not _is_closed(block, mask, text.eos):
        text.forwards["denoise" if look or anchor != "none" else kind] += 1
        first_eos = next((i for i, t in enumerate(block) if t in text.eos), width)
        stop = width if anchor == "canvas" else first_eos  # the model card fills what stands after an EOS, too
        noise = look if rule.remask == "none" else 0

        def read(slot: int, block: Sequence[int] = tuple(block), noise: int = noise) -> Reading:
            return eyes.reading(text.tokens, block, slot, noise, rule.ar_weight)

        picks = {slot: read(slot) for slot in range(stop) if block[slot] == mask}
        again = set()
        if rule.remask != "none" and look < rule.n_steps - 1:
            filled = {s for s in range(anchor != "none", min(first_eos + 1, width)) if block[s] != mask} - doubted
            again = {s for s in filled if read(s).token != block[s] or read(s).confidence < rule.remask_below}
        _write(block, picks, rule.fill(picks, look))
        for slot in again:
            block[slot] = mask
        doubted |= again
        look += 1
    n = next((i + 1 for i, t in enumerate(block) if t in text.eos), width)
    return block[:n]


def _write(block: list[int], picks: dict[int, Reading], slots: Sequence[int]) -> None:
    for slot in slots:
        block[slot] = picks[slot].token


def _is_closed(block: Sequence[int], mask: int, eos: Sequence[int]) -> bool:
    """Whether no mask stands before the first EOS."""
    for token in block:
        if token == mask or token in eos:
            return token != mask
    return True
