"""Where the row before a slot names it, training scores the rows that decoding reads."""

from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F

from tests.decoding.references import Eyes
from tests.fakes import EOS, MASK, drain, tiny_config, tiny_model
from tests.texts import CLEAN, SPECIAL, pack_in, some_documents
from trimode.decoding import build
from trimode.engine.engine import Engine
from trimode.engine.request import Request
from trimode.errors import InvalidInput
from trimode.models.checkpoint import empty
from trimode.models.transformer import Transformer, initialise
from trimode.numerics.noise import Noise
from trimode.spans import layout
from trimode.training.documents import Document, Special
from trimode.training.nelbo import exact_nll, nelbo
from trimode.training.objectives import Joint, value
from trimode.training.samples import Sample, make_sample

pytestmark = pytest.mark.medium

SHIFTED = Special(mask_token_id=MASK, eos_token_id=EOS, shifted=True)
NOISES = {
    "block": Noise(block_sizes=(4,)), "sequence": Noise(block_sizes=(3, 5), scheme="sequence"),
    "views": Noise(block_sizes=(4,), views=2), "infill": Noise(block_sizes=(4,), infill_share=0.7),
    "drafts": Noise(block_sizes=(4,), drafts=True),
}  # fmt: skip


def test_slot_0_is_named_by_the_last_commit_before_it_and_the_others_by_the_row_before() -> None:
    """Prompt 10 11, answer 12 13 14, one block of four: the text takes rows 0 to 4, the canvas 5 to 8."""
    document = Document(tokens=(10, 11, 12, 13, 14), answers=((2, 5),))
    noise = Noise(block_sizes=(4,), all_masked_share=1.0)
    sample = next(s for s in (make_sample(document, noise, SHIFTED, str(i)) for i in range(9))
                  if len(s.span.canvases) == 1)  # fmt: skip
    assert sample.span.canvases[0].tokens == (MASK,) * 4
    assert [(t.row, t.label) for t in sample.diffusion] == [(1, 12), (5, 13), (6, 14)]
    assert [(t.row, t.label) for t in sample.ar] == [(1, 12), (2, 13), (3, 14)]
    assert sample.n_diffusion == 3


def test_nothing_names_the_first_token_of_a_text() -> None:
    document = Document(tokens=(10, 11, 12), answers=((0, 3),))
    sample = make_sample(document, Noise(block_sizes=(1,), all_masked_share=1.0), SHIFTED, "")
    assert [(t.row, t.label) for t in sample.diffusion] == [(0, 11), (1, 12)]
    assert sample.n_diffusion == 2


@pytest.mark.parametrize("name", NOISES)
def test_the_noise_is_that_of_canvases_that_name_themselves(name: str) -> None:
    def drawn(special: Special) -> list[Sample]:
        return [make_sample(d, NOISES[name], special, f"0:{i}") for i, d in enumerate(some_documents())]

    for own, shifted in zip(drawn(SPECIAL), drawn(SHIFTED), strict=True):
        assert layout(own.span) == layout(shifted.span)
        firsts = {start for start, stop in zip(layout(own.span).starts, layout(own.span).stops, strict=True) if stop}
        rows = [layout(own.span).offsets[t.row] - 1 if t.row in firsts else t.row - 1 for t in own.diffusion]
        moved = [replace(t, row=row) for t, row in zip(own.diffusion, rows, strict=True) if row >= 0]
        assert list(shifted.diffusion) == moved


def test_the_scored_rows_of_a_masked_block_are_those_a_decoder_reads() -> None:
    config, prompt = tiny_config(canvas_logits="shifted", block_size=4), (10, 11, 12)
    document = Document(tokens=(*prompt, 13, 14, 15, 16), answers=((3, 7),))
    noise = Noise(block_sizes=(4,), all_masked_share=1.0)
    sample = next(s for s in (make_sample(document, noise, SHIFTED, str(i)) for i in range(9))
                  if len(s.span.canvases) == 1)  # fmt: skip
    behind = len(document.tokens) - len(prompt)  # rows of the text that a decoder has not got yet
    scored = [t.row if t.row < len(prompt) else t.row - behind for t in sample.diffusion]
    decoder = build("diffusion", config)
    assert layout(decoder.plan(decoder.start(prompt, 40), prompt, 0, 99)).reads == scored


@pytest.mark.medium
def test_the_loss_is_that_of_plain_forwards_read_one_row_earlier() -> None:
    model = tiny_model(sharpness=0.1)
    samples = [make_sample(d, NOISES["block"], SHIFTED, f"1:{i}", i) for i, d in enumerate(some_documents())]
    total = 0.0
    for sample in samples:
        row = len(sample.span.commit)
        by_row = {t.row: t for t in sample.diffusion}
        for canvas in sample.span.canvases:
            before = sample.span.commit[: canvas.after]
            log_p = Eyes(model).logits(before, canvas.tokens).log_softmax(-1)
            for slot, token in enumerate(canvas.tokens):
                named_by = row + slot - 1 if slot else canvas.after - 1
                target = by_row.get(named_by)
                if token == MASK and target is not None and canvas.after + slot - 1 >= 0:
                    total -= target.weight * log_p[canvas.after + slot - 1, target.label].item()
            row += len(canvas.tokens)
    batch = pack_in(2, samples)
    found = Joint().sums(model, batch)["diffusion"]
    assert found.item() == pytest.approx(total, rel=1e-5)
    assert batch.diffusion.count == sum(sample.n_diffusion for sample in samples)


@pytest.mark.medium
def test_in_blocks_of_one_the_bound_is_the_causal_likelihood() -> None:
    model = tiny_model(sharpness=0.1)
    found = nelbo(model, some_documents(), 1, draws=1, seed=0, special=SHIFTED)
    exact = exact_nll(model, some_documents())
    assert found.n_tokens == exact.n_tokens
    assert found.per_token == pytest.approx(exact.per_token, rel=1e-6)


def test_a_drafted_slot_is_verified_by_the_commit_before_its_position() -> None:
    samples = [make_sample(d, NOISES["drafts"], SHIFTED, f"0:{i}", i) for i, d in enumerate(some_documents())]
    own = [make_sample(d, NOISES["drafts"], SPECIAL, f"0:{i}", i) for i, d in enumerate(some_documents())]
    drafts, plain = pack_in(1, samples).drafts, pack_in(1, own).drafts
    assert len(drafts.rows_S) > 10
    assert drafts.rows_S.tolist() == [row - 1 for row in plain.rows_S.tolist()]
    assert drafts.verifiers_S.tolist() == plain.verifiers_S.tolist()
    assert drafts.canvases_S.tolist() == plain.canvases_S.tolist()


def test_an_unanchored_block_is_refused() -> None:
    with pytest.raises(InvalidInput, match=r"anchor is 'none', but no canvas row"):
        build("diffusion", tiny_config(canvas_logits="shifted"), anchor="none")


def counting_up(start: int, n: int) -> tuple[int, ...]:
    return tuple(CLEAN[(start + i) % 12] for i in range(n))


def taught(steps: int) -> Transformer:
    """Has learned to count, its canvases shifted."""
    model = empty(tiny_config(canvas_logits="shifted", tied=True), torch.float32, torch.device("cpu"))
    initialise(model, 0)
    optim, noise = torch.optim.AdamW(model.parameters(), 0.01), Noise(block_sizes=(8,), all_masked_share=0.5)
    objective = Joint(weights={"ar": 1.0, "diffusion": 1.0})
    for step in range(steps):
        documents = [Document.text(counting_up(7 * step + 5 * i, 24)) for i in range(8)]
        batch = pack_in(1, [make_sample(d, noise, SHIFTED, f"{step}:{i}", i) for i, d in enumerate(documents)])
        value(objective.sums(model, batch), objective.counts(batch), objective.weights).backward()
        optim.step()
        optim.zero_grad()
    return model.eval().requires_grad_(False)


@pytest.mark.medium
def test_a_model_trained_with_shifted_canvases_decodes_as_it_was_trained() -> None:
    model = taught(120)
    answers: dict[str, Request] = {}
    for mode in ("ar", "diffusion", "self_speculation"):
        engine = Engine(model)
        answers[mode] = engine.submit(counting_up(3, 5), build(mode, model.config), max_tokens=24)
        drain(engine)
        assert answers[mode].answer == counting_up(8, 24), mode
        assert mode == "ar" or answers[mode].counts.forwards.total() <= 8, mode
    plain = Engine(model)  # the same rows, read as if they named their own slots
    wrong = plain.submit(counting_up(3, 5), build("diffusion", tiny_config(canvas_logits="own")), max_tokens=24)
    drain(plain)
    assert wrong.answer != counting_up(8, 24)
    labels = torch.tensor(counting_up(9, 7))
    rows = Eyes(model).logits(counting_up(3, 5), [MASK] * 8)[5:12]
    assert F.cross_entropy(rows, labels).item() < 0.5
