"""Only the adapter learns, from what the verifier would look at, and the loss is the plain one, canvas by canvas."""

import random
from collections.abc import Sequence
from functools import cache
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from tests.fakes import MASK, tiny_config, tiny_model
from tests.numerics.test_lk import plain
from tests.texts import CLEAN, canvas_logits, causal_logits, pack_in
from trimode.errors import InvalidInput
from trimode.models.transformer import Transformer
from trimode.numerics.keyed_noise import gumbel, noise_key, signed
from trimode.spans import Canvas, Span
from trimode.training import drafter
from trimode.training.batch import Batch
from trimode.training.drafter import Drafter, drawn
from trimode.training.objectives import value
from trimode.training.samples import Sample, Target

GREEDY = Drafter(greedy_share=1.0)
SAMPLED = Drafter(greedy_share=0.0, seed=7)


class Nudged(nn.Module):
    """A frozen model whose drafting rows pass through one more matrix, the stand-in of an adapter."""

    def __init__(self, model: Transformer, spread: float = 0.0) -> None:
        super().__init__()
        self.model, self.config = model, model.config
        width = model.config.hidden_size
        self.delta = nn.Parameter(torch.randn(width, width, generator=torch.Generator().manual_seed(0)) * spread)

    def forward(self, tokens_T: Tensor, positions_T: Tensor, visibility: Any) -> Tensor:
        hidden_TD = self.model(tokens_T, positions_T, visibility)
        rows = torch.tensor(visibility.draft_rows, dtype=torch.long)
        return hidden_TD.index_add(0, rows, hidden_TD[rows] @ self.delta)

    def logits(self, hidden_SD: Tensor) -> Tensor:
        return self.model.logits(hidden_SD)


def drafted(text: Sequence[int], starts: Sequence[int], size: int, index: int) -> Sample:
    """A text with an all-masked drafting canvas at each start; what hangs over the end is no target."""
    canvases, targets, row = [], [], len(text)
    for start in starts:
        canvases.append(Canvas(after=start, tokens=(MASK,) * size, draft=True))
        stop = min(start + size, len(text))
        targets += [Target(row=row + p - start, label=text[p], weight=1.0) for p in range(start, stop)]
        row += size
    span = Span(commit=tuple(text), canvases=tuple(canvases), kind="prefill")
    return Sample(span=span, ar=(), diffusion=tuple(targets), n_diffusion=len(targets), index=index)


def some_drafts() -> list[Sample]:
    rng = random.Random(0)
    shapes = [(17, (1, 6, 11, 16), 5), (9, (3, 7), 4), (12, (4,), 8)]  # one canvas has a target in slot 0 alone
    return [drafted(rng.choices(CLEAN, k=n), starts, size, 30 + i) for i, (n, starts, size) in enumerate(shapes)]


def written(model: Transformer, prompt: Sequence[int], n: int) -> list[int]:
    """What the model writes itself, greedily."""
    text = list(prompt)
    while len(text) < n:
        text.append(int(causal_logits(model, text)[-1].argmax()))
    return text


@cache
def written_drafts() -> tuple[Sample, ...]:
    model, prompts = tiny_model(sharpness=0.3), [random.Random(i).choices(CLEAN, k=4) for i in range(12)]
    return tuple(drafted(written(model, prompt, 16), (4, 8, 12), 4, i) for i, prompt in enumerate(prompts))


@cache
def trained() -> Nudged:
    """Has learned to draft some of `written_drafts`."""
    model, batch = Nudged(tiny_model(sharpness=0.3)), pack_in(2, written_drafts())
    optim = torch.optim.Adam([model.delta], 0.02)
    for step in range(60):
        objective = Drafter(seed=step)
        parts = objective.sums(model, batch)  # type: ignore[arg-type]
        value(parts, objective.counts(batch), objective.weights).backward()
        optim.step()
        optim.zero_grad()
    return model


def nudged(spread: float = 0.1) -> Nudged:
    return Nudged(tiny_model(sharpness=0.3), spread)


def sums(objective: Drafter, model: Nudged, samples: Sequence[Sample], streams: int = 2) -> list[float]:
    parts = objective.sums(model, pack_in(streams, samples))  # type: ignore[arg-type]
    return [parts["lk"].item(), parts["ce"].item()]


def canvases_of(model: Nudged, samples: Sequence[Sample]) -> list[tuple[Sample, Canvas, Tensor, Tensor]]:
    """(sample, canvas, the drafter's scores, the verifier's scores) from slot 1 on, from plain forwards of one text."""
    out = []
    for sample in samples:
        text = sample.span.commit
        verifier = causal_logits(model.model, text)
        for canvas in sample.span.canvases:
            n = min(len(canvas.tokens), len(text) - canvas.after)
            draft = nudged_logits(model, text[: canvas.after], canvas.tokens)[1:n]
            if n > 1:
                out.append((sample, canvas, draft, verifier[canvas.after : canvas.after - 1 + n]))
    return out


def nudged_logits(model: Nudged, before: Sequence[int], shown: Sequence[int]) -> Tensor:
    """The head is linear, so a changed row is a changed head."""
    head = model.model.head
    changed = head + head @ model.delta.detach().T
    with torch.no_grad():
        original, model.model.head = head, nn.Parameter(changed, requires_grad=False)
        scores = canvas_logits(model.model, before, shown)
        model.model.head = original
    return scores


def drawn_by_hand(objective: Drafter, sample: Sample, canvas: Canvas, draft: Tensor) -> list[int]:
    out = []
    for slot, scores in enumerate(draft, 1):
        key = noise_key(objective.seed, sample.index, canvas.after + slot, 0)
        noise = gumbel(torch.tensor([signed(key)]), len(scores))[0]
        out.append(int((scores.double() + (noise if objective.greedy_share == 0.0 else 0.0)).argmax()))
    return out


@pytest.mark.medium
@pytest.mark.parametrize("objective", [GREEDY, SAMPLED], ids=["greedy", "sampled"])
@pytest.mark.parametrize("chunk", [1, 9, 256])
def test_the_sums_are_the_plain_loss_slot_by_slot(
    objective: Drafter, chunk: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(drafter, "CHUNK", chunk)
    model, samples, totals, lengths = trained(), [*some_drafts(), *written_drafts()], [0.0, 0.0], []
    for sample, canvas, draft, verifier in canvases_of(model, samples):
        chosen = verifier.argmax(-1).tolist()
        guesses = drawn_by_hand(objective, sample, canvas, draft)
        right = [guess == choice for guess, choice in zip(guesses, chosen, strict=True)]
        n = right.index(False) + 1 if False in right else len(right)
        lengths.append(n)
        slots = [plain(draft[i].tolist(), verifier[i].tolist(), chosen[i], 200) for i in range(n)]
        for part in (0, 1):
            totals[part] += sum(slot[part] or 0.0 for slot in slots) / n
    assert sums(objective, model, samples) == pytest.approx(totals, rel=1e-4)
    assert objective.counts(pack_in(2, samples)) == {"lk": len(lengths), "ce": len(lengths)}
    assert {1, 2} <= set(lengths)  # rejected at once, and after some that were right


@pytest.mark.medium
def test_packing_changes_no_sum() -> None:
    """The drafts belong to the sample, not to where it stands."""
    model, samples = trained(), list(written_drafts()[:5])
    objective = Drafter(greedy_share=0.5)
    whole = sums(objective, model, samples, 1)
    assert sums(objective, model, samples[::-1], 3) == pytest.approx(whole, rel=1e-5)
    alone = [sums(objective, model, [sample], 1) for sample in samples]
    assert [sum(part) for part in zip(*alone, strict=True)] == pytest.approx(whole, rel=1e-5)


@pytest.mark.medium
def test_the_drafts_are_a_pure_function_of_seed_and_sample() -> None:
    model, samples = trained(), written_drafts()
    torch.manual_seed(1)
    first = sums(SAMPLED, model, samples)
    torch.manual_seed(2)
    assert sums(SAMPLED, model, samples) == first
    assert sums(Drafter(greedy_share=0.0, seed=8), model, samples) != first


def test_samples_follow_the_drafters_own_distribution() -> None:
    scores = torch.tensor([0.0, 1.0, 2.0, -1.0])
    keys = torch.tensor([signed(noise_key(5, i)) for i in range(20000)])
    tokens = drawn(scores.expand(20000, -1), keys, torch.zeros(20000, dtype=torch.bool))
    torch.testing.assert_close(tokens.bincount() / 20000, scores.softmax(-1), rtol=0.0, atol=0.015)
    assert drawn(scores[None], keys[:1], torch.ones(1, dtype=torch.bool)).tolist() == [2]


def test_one_canvas_in_ten_drafts_its_best_tokens() -> None:
    batch = pack_in(1, [drafted(random.Random(i).choices(CLEAN, k=9), (1, 5), 4, i) for i in range(300)])
    _, is_greedy = Drafter()._noise(batch)
    per_canvas = is_greedy.reshape(-1, 3)
    assert (per_canvas.all(1) == per_canvas.any(1)).all()
    assert per_canvas[:, 0].float().mean().item() == pytest.approx(0.1, abs=0.03)


def test_gradient_reaches_the_adapter_and_nothing_else() -> None:
    base = Transformer(tiny_config())
    base.load_state_dict(tiny_model().state_dict())
    model = Nudged(base.requires_grad_(False), 0.1)
    batch = pack_in(2, some_drafts())
    parts = GREEDY.sums(model, batch)  # type: ignore[arg-type]
    value(parts, GREEDY.counts(batch), GREEDY.weights).backward()
    assert model.delta.grad is not None
    assert model.delta.grad.abs().sum() > 0
    assert all(parameter.grad is None for parameter in base.parameters())


def test_no_gradient_comes_through_the_verifier() -> None:
    """With every row a leaf of its own, only the rows of drafts move the loss."""
    batch = pack_in(2, some_drafts())
    leaf = tiny_model()(batch.tokens_T, batch.positions_T, batch.visibility).requires_grad_()

    class Given:
        logits = tiny_model().logits

        def __call__(self, *_: object) -> Tensor:
            return leaf

    parts = GREEDY.sums(Given(), batch)  # type: ignore[arg-type]
    (parts["lk"] + parts["ce"]).backward()
    assert leaf.grad is not None
    moved = set(leaf.grad.abs().sum(-1).nonzero()[:, 0].tolist())
    assert moved
    assert moved <= set(batch.drafts.rows_S.tolist())
    assert not moved & set(batch.drafts.verifiers_S.tolist())


def test_a_verifier_names_the_position_of_its_slot() -> None:
    batch = pack_in(1, some_drafts())
    rows, verifiers = batch.drafts.rows_S, batch.drafts.verifiers_S
    assert (batch.positions_T[verifiers] + 1 == batch.positions_T[rows]).all()
    assert not set(verifiers.tolist()) & set(batch.visibility.draft_rows)
    assert set(rows.tolist()) <= set(batch.visibility.draft_rows)


def test_what_is_drafted_is_what_a_decoder_reads() -> None:
    """All slots but the first, which is the verifier's own: a canvas with a target there alone counts nothing."""
    samples = some_drafts()
    batch = pack_in(1, samples)
    read = [(canvas.after, slot) for sample in samples for canvas in sample.span.canvases
            for slot in range(1, min(len(canvas.tokens), len(sample.span.commit) - canvas.after))]  # fmt: skip
    assert batch.positions_T[batch.drafts.rows_S].tolist() == [after + slot for after, slot in read]
    assert GREEDY.counts(batch) == {"lk": 6, "ce": 6}


def test_a_batch_without_drafts_counts_nothing_and_loses_nothing() -> None:
    sample = Sample(span=Span(commit=(4, 5, 6), kind="prefill"), ar=(), diffusion=(), n_diffusion=0)
    batch, model = pack_in(1, [sample]), nudged()
    parts = GREEDY.sums(model, batch)  # type: ignore[arg-type]
    assert GREEDY.counts(batch) == {"lk": 0, "ce": 0}
    loss = value(parts, GREEDY.counts(batch), GREEDY.weights)
    loss.backward()  # every rank must take part in the backward pass
    assert loss.item() == 0.0


def test_a_share_outside_its_range_is_refused() -> None:
    with pytest.raises(InvalidInput, match="greedy_share is"):
        Drafter(greedy_share=1.5)


def accepted(model: Nudged, batch: Batch) -> float:
    """Drafts per canvas of four that its verifier accepts, drafted greedily; slot 0 is the verifier's own."""
    drafts = batch.drafts
    with torch.no_grad():
        hidden = model(batch.tokens_T, batch.positions_T, batch.visibility)
        guesses, chosen = (model.logits(hidden[rows]).argmax(-1) for rows in (drafts.rows_S, drafts.verifiers_S))
    is_right = (guesses == chosen).reshape(-1, 3)
    return is_right.long().cumprod(1).sum(1).float().mean().item()


@pytest.mark.medium
def test_training_the_adapter_raises_the_acceptance() -> None:
    batch = pack_in(2, written_drafts())
    before, after = accepted(Nudged(tiny_model(sharpness=0.3)), batch), accepted(trained(), batch)
    assert after > before + 0.5
