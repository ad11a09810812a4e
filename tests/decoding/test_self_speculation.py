"""Self-speculation is lossless, its forwards follow closed formulas, and it adapts to how its guesses fare."""

from collections import Counter
from collections.abc import Callable
from itertools import groupby
from typing import Any

import pytest

from tests.decoding.references import Eyes
from tests.fakes import EOS, MASK, RELEASED, ScriptedModel, drain, lively_model
from trimode.api import completion
from trimode.config import ModelConfig
from trimode.cost import FLAT, NATIVE_FLOAT32, TORCH_CPU, CostModel
from trimode.decoding import build
from trimode.decoding.placement import LENGTHS as DRAFT_LENGTHS
from trimode.decoding.self_speculation import PLACEMENTS, SelfSpeculation, SpeculationState
from trimode.engine.engine import Engine
from trimode.engine.request import Request
from trimode.models.transformer import Transformer
from trimode.numerics.sampling import Sampling
from trimode.spans import Canvas

pytestmark = pytest.mark.medium

TRUE, FALSE = 7, 8  # what the scripted model says, and a wrong guess
DRAFTS = (1, 2, 3, 4, 8, 32)
LENGTHS = (1, 2, 3, 4, 5, 6, 9, 10, 33, 40)
FIXED: dict[str, Any] = dict(verify_above=0.0, fallback_below=0.0)

every_placement = pytest.mark.parametrize("placement", PLACEMENTS)


def right(position: int) -> int:
    return TRUE


def wrong(position: int) -> int:
    return FALSE


def script(guess: Callable[[int], int] = right, sure: float = 0.95) -> ScriptedModel:
    """Says TRUE for ever."""
    return ScriptedModel(right, guess, lambda p: sure)


def speculator(config: ModelConfig, cost: CostModel = FLAT, **options: Any) -> Any:
    """A decoder that looks nothing up unless told: the scripted texts repeat themselves."""
    return build("self_speculation", config, cost, **dict(lookup_length=0) | options)


def kinds_of(
    model: Any, max_tokens: int, *, prompt: tuple[int, ...] = (5, 6), cost: CostModel = FLAT, max_rows: int = 2048,
    sampling: Sampling | None = None, **options: Any,
) -> tuple[Request, list[str]]:  # fmt: skip
    """One request, and the kind of every forward in order."""
    engine = Engine(model, max_rows=max_rows)
    decoder = speculator(model.config, cost, **options)
    request = engine.submit(prompt, decoder, max_tokens=max_tokens, sampling=sampling)
    kinds = []
    while not engine.is_idle:
        kinds += [event.kind for event in engine.step()]
    return request, kinds


SETTINGS: tuple[dict[str, Any], ...] = (
    *(dict(placement=placement) for placement in PLACEMENTS),
    *(dict(placement=placement, draft_length=length) for placement in PLACEMENTS for length in (1, 2, 5)),
    *(dict(placement=placement, draft_length=6, lookup_length=3, **FIXED) for placement in PLACEMENTS),
    *(dict(placement=placement, draft_threshold=0.4, verify_above=0.2) for placement in PLACEMENTS),
    *(dict(placement=placement, cost=NATIVE_FLOAT32, lookup_length=9) for placement in PLACEMENTS),
    *(dict(cost=cost, draft_length=8, fallback_below=3.0) for cost in (TORCH_CPU, NATIVE_FLOAT32)),
    dict(placement="pruned", max_canvases=5, draft_length=4, **FIXED),
    RELEASED,
    RELEASED | dict(draft_length=5, draft_threshold=0.5, lookup_length=2),
)


@pytest.mark.parametrize("temperature", [0.0, 0.7, 1.0, 1.5])
@pytest.mark.parametrize("seed", [0, 1])
def test_speculation_writes_what_ar_writes_at_every_temperature(seed: int, temperature: float) -> None:
    model = lively_model(seed)
    sampling = Sampling(temperature=temperature, seed=11)
    engine = Engine(model)
    for prompt in ([5], [1, 9, 30, 2, 41] * 2, list(range(4, 60))):
        requests = [
            engine.submit(prompt, decoder, max_tokens=24, sampling=sampling)
            for decoder in (
                build("ar", model.config),
                *(build("self_speculation", model.config, **setting) for setting in SETTINGS),
            )
        ]
        drain(engine)
        assert {(request.answer, request.finish) for request in requests} == {(requests[0].answer, requests[0].finish)}


@pytest.mark.parametrize("draft_length", DRAFTS)
def test_linear_perfect_makes_a_draft_and_a_token_in_two_forwards(draft_length: int) -> None:
    """The first draft rides with the prefill. Two tokens left are not worth a draft."""
    for n in LENGTHS:
        request, _ = kinds_of(script(), n, placement="linear", draft_length=draft_length, **FIXED)
        cycles, rest = divmod(n, draft_length + 1) if draft_length > 1 else (0, n)
        cycles, rest = (cycles + 1, 0) if rest > 2 and draft_length > 1 else (cycles, rest)
        expected = Counter(prefill=1, draft=cycles - 1, verify=cycles, decode=rest)
        if not cycles:
            expected = Counter(prefill=1, decode=rest - 1)
        assert request.answer == (TRUE,) * n
        assert request.counts.forwards == +expected, n


@pytest.mark.parametrize("placement", ["chained", "pruned", "quadratic"])
@pytest.mark.parametrize("draft_length", DRAFTS)
def test_the_others_perfect_make_a_draft_in_every_forward(placement: str, draft_length: int) -> None:
    for n in LENGTHS:
        request, _ = kinds_of(script(), n, placement=placement, draft_length=draft_length, **FIXED)
        verifies, rest = divmod(n - 1, draft_length) if draft_length > 1 else (0, n - 1)
        verifies, rest = (verifies + 1, 0) if rest > 1 and draft_length > 1 else (verifies, rest)
        assert request.answer == (TRUE,) * n
        assert request.counts.forwards == +Counter(prefill=1, verify=verifies, decode=rest), n


@pytest.mark.parametrize("placement", ["linear", "chained"])
@pytest.mark.parametrize("draft_length", DRAFTS)
def test_linear_and_chained_hopeless_make_a_token_per_forward(placement: str, draft_length: int) -> None:
    for n in LENGTHS:
        request, kinds = kinds_of(script(wrong), n, placement=placement, draft_length=draft_length, **FIXED)
        cycles = (n - 1) // 2 if draft_length > 1 else 0
        drafts = ["draft", "verify"] * cycles
        assert kinds == ["prefill", *drafts[1:], *["decode"] * (n - max(2 * cycles, 1))]
        assert request.answer == (TRUE,) * n


@pytest.mark.parametrize("placement", ["pruned", "quadratic"])
@pytest.mark.parametrize("draft_length", DRAFTS)
def test_pruned_and_quadratic_hopeless_verify_in_every_forward(placement: str, draft_length: int) -> None:
    """Of doubtful guesses none at all is likely to hold, so a canvas stands where all are refused."""
    for n in LENGTHS:
        request, kinds = kinds_of(script(wrong, sure=0.5), n, placement=placement, draft_length=draft_length, **FIXED)
        verifies = max(n - 2, 0) if draft_length > 1 else 0
        assert kinds == ["prefill", *["verify"] * verifies, *["decode"] * (n - 1 - verifies)]
        assert request.answer == (TRUE,) * n


@pytest.mark.parametrize("n_right", range(7))
@pytest.mark.parametrize(("placement", "per_round"), [("linear", 2), ("chained", 2), ("quadratic", 1)])
def test_a_round_makes_the_right_guesses_and_a_token_per_forward(placement: str, per_round: int, n_right: int) -> None:
    """Drafts of 8 guess 7; the guess behind the first n_right is wrong."""
    period = n_right + per_round
    first = 2 + 1  # where the first guess stands: behind the prompt and the prefill's token
    model = script(lambda p: FALSE if (p - first) % period == n_right else TRUE)
    _, kinds = kinds_of(model, 1 + 6 * period + 9 + 8, placement=placement, draft_length=8, **FIXED)
    cycle = ["verify", "draft"][:per_round]
    assert kinds[: 1 + 6 * per_round] == ["prefill", *cycle * 6]
    assert len(model.calls) == len(kinds)
    if placement == "linear":  # the prompt and 8 masks; the last token and 7 guesses; the last token and 8 masks
        assert model.calls[:13] == [2 + 8, *[8, 9] * 6]
    if placement == "quadratic":
        assert model.calls[:7] == [2 + 8, *[8 + 8 * 8] * 6]


@every_placement
def test_no_placement_needs_more_forwards_than_ar(placement: str) -> None:
    for seed in range(3):
        for cost in (FLAT, TORCH_CPU, NATIVE_FLOAT32):
            for max_tokens in (1, 2, 3, 9, 40):
                request, kinds = kinds_of(
                    lively_model(seed), max_tokens, placement=placement, lookup_length=4, cost=cost
                )
                assert len(kinds) <= len(request.answer)


@every_placement
def test_the_last_tokens_are_not_drafted_past(placement: str) -> None:
    """No row, mask or guess, stands where no token may."""
    for n in range(1, 20):
        model = script()
        decoder = speculator(model.config, placement=placement, draft_length=8, **FIXED)
        engine = Engine(model)
        request = engine.submit([5, 6], decoder, max_tokens=n)
        while not engine.is_idle:
            span = decoder.plan(request.state, request.tokens, request.cache.length, 2048)
            past = request.cache.length
            assert past + len(span.commit) < request.end  # the last token is the verifier's, and never fed
            assert all(past + c.after + len(c.tokens) < request.end for c in span.canvases)
            engine.step()
        assert request.answer == (TRUE,) * n


def test_a_drafts_first_mask_is_not_read_because_the_row_before_knows_better() -> None:
    decoder = speculator(lively_model().config, draft_length=5)
    span = decoder.plan(decoder.start([4, 5], 40), [4, 5], 0, 2048)
    canvas = Canvas(after=2, tokens=(MASK,) * 5, read=(1, 2, 3, 4), draft=True)
    assert (span.commit, span.read, span.canvases, span.kind) == ((4, 5), (1,), (canvas,), "prefill")


def after_draft(decoder: SelfSpeculation, *confidence: float) -> SpeculationState:
    """A state with guesses of these confidences for the text 4, 5."""
    return SpeculationState(length=2, end=99, started=True, draft=(9,) * len(confidence), confidence=confidence)


@pytest.mark.parametrize(
    ("placement", "options", "after"),
    [
        ("linear", {}, []),
        ("chained", {}, [4]),
        ("pruned", dict(max_canvases=1), [2]),
        ("pruned", dict(max_canvases=2), [2, 3]),
        ("pruned", dict(max_canvases=3), [2, 3, 4]),
        ("quadratic", {}, [2, 3, 4, 1, 0]),
    ],
)
def test_canvases_stand_after_the_likeliest_lengths(placement: str, options: dict[str, int], after: list[int]) -> None:
    """Of four guesses 0, 1, 2, 3 and 4 lead with probability .02, .05, .46, .28, .19."""
    decoder = speculator(lively_model().config, placement=placement, draft_length=4, **FIXED, **options)
    span = decoder.plan(after_draft(decoder, 0.98, 0.95, 0.5, 0.4), [4, 5], 1, 2048)
    assert span.commit == (5, 9, 9, 9, 9)
    assert [canvas.after - 1 for canvas in span.canvases] == after


def test_where_rows_are_dear_canvases_are_not_placed_for_unlikely_lengths() -> None:
    config = lively_model().config
    for cost, n_canvases in ((FLAT, 2), (NATIVE_FLOAT32, 0)):
        decoder = speculator(config, cost, placement="pruned", draft_length=8, verify_above=0.0)
        span = decoder.plan(after_draft(decoder, 0.7, 0.7, 0.7, 0.7), [4, 5], 1, 2048)
        assert len(span.canvases) == n_canvases


def test_guesses_are_verified_while_their_joint_probability_is_high_enough() -> None:
    for verify_above, n in ((0.0, 4), (0.3, 3), (0.5, 2), (0.95, 1), (1.0, 0)):
        decoder = speculator(lively_model().config, verify_above=verify_above)
        span = decoder.plan(after_draft(decoder, 0.99, 0.8, 0.5, 0.2), [4, 5], 1, 2048)
        assert len(span.commit) == 1 + n
        assert span.kind == ("verify" if n else "decode")


def test_what_was_not_verified_stands_as_long_as_the_verifier_agrees() -> None:
    """At most two of the 7 guesses are verified at a time, and each bonus agrees with the next: no second draft."""
    sure = 0.8
    _, kinds = kinds_of(script(sure=sure), 9, placement="linear", draft_length=8, verify_above=0.6, fallback_below=0.0)
    assert kinds == ["prefill", "verify", "verify", "verify"]
    _, kinds = kinds_of(script(wrong, sure=sure), 9, placement="linear", draft_length=8, verify_above=0.6,
                        fallback_below=0.0)  # fmt: skip
    assert kinds[:3] == ["prefill", "verify", "draft"]


def widths_of_drafts(model: ScriptedModel, max_tokens: int, **options: Any) -> list[int]:
    decoder = speculator(model.config, **options)
    engine = Engine(model)
    request = engine.submit([5, 6], decoder, max_tokens=max_tokens)
    widths = []
    while not engine.is_idle:
        span = decoder.plan(request.state, request.tokens, request.cache.length, 2048)
        widths += [len(canvas.tokens) for canvas in span.canvases]
        engine.step()
    return widths


@pytest.mark.parametrize("placement", ["linear", "chained"])
def test_drafts_shrink_while_guesses_fail_and_grow_while_they_hold(placement: str) -> None:
    model = script(lambda p: FALSE if p < 80 else TRUE)
    widths = widths_of_drafts(model, 200, placement=placement, block_size=32, **FIXED)
    low = widths.index(min(widths))
    assert widths[: low + 1] == sorted(widths[: low + 1], reverse=True)
    assert widths[low] == min(DRAFT_LENGTHS)
    assert max(widths[low:]) == 32
    assert max(widths_of_drafts(script(), 200, placement=placement, block_size=13)) == 13
    assert set(widths_of_drafts(model, 200, placement=placement, draft_length=9, **FIXED)[:-2]) == {9}


@pytest.mark.parametrize("fallback_below", [None, 3.0])
@every_placement
def test_plain_steps_double_while_rounds_stay_poor(placement: str, fallback_below: float | None) -> None:
    """A round of the hopeless makes a token per forward: one, then two. By cost that is a small loss, else 2 and 1."""
    model = script(wrong)
    request, kinds = kinds_of(
        model, 230, placement=placement, draft_length=8, verify_above=0.0, fallback_below=fallback_below
    )
    runs = [(kind, len(list(run))) for kind, run in groupby(kinds)]
    steps = [n for kind, n in runs if kind == "decode"]
    expected = [2, 4, 8, 16, 32, 64] if fallback_below is None else [8, 8, 16, 32, 64]
    if placement in ("pruned", "quadratic"):  # whose canvas made a draft nobody prepares another from: in the break
        steps = [n + 1 for n in steps]
    assert steps[: len(expected)] == expected
    assert all(n <= 2 for kind, n in runs if kind != "decode")
    assert request.answer == (TRUE,) * 230


def test_a_good_round_ends_the_doubling() -> None:
    """Poor, 2 plain; poor, 4 plain; good (the guesses for positions 13 to 19); poor: from 2."""
    model = script(lambda p: TRUE if 13 <= p < 21 else FALSE)
    _, kinds = kinds_of(model, 60, placement="linear", draft_length=8, verify_above=0.0)
    cycle, plain = ["draft", "verify"], ["decode"]
    expected = ["prefill", "verify", *plain * 2, *cycle, *plain * 4, *cycle, *cycle, *plain * 2, *cycle, *plain * 4]
    assert kinds[: len(expected)] == expected


def test_fallback_zero_never_takes_a_plain_step() -> None:
    for placement in PLACEMENTS:
        _, kinds = kinds_of(script(wrong), 101, placement=placement, draft_length=8, **FIXED)
        assert "decode" not in kinds[:-2]


NEVER_AGAIN = tuple(range(10, 30))  # a prompt in which nothing stands twice


@pytest.mark.parametrize("guess", [right, wrong, lambda p: TRUE if p % 3 else FALSE])
@pytest.mark.parametrize("fallback_below", [0.0, None])
@every_placement
def test_lookups_that_miss_cost_no_forward(
    placement: str, fallback_below: float | None, guess: Callable[[int], int]
) -> None:
    """The text counts 10 11 10 11 12 10 11 12 13 ...: an ending always stood before, and never went on like this."""
    text = [token for n in range(2, 20) for token in range(10, 10 + n)]
    told = {6 + i: token for i, token in enumerate(text)}
    model = ScriptedModel(lambda p: told.get(p, 9), lambda p: told.get(p, 9) if guess(p) == TRUE else FALSE)
    options = dict(placement=placement, draft_length=5, verify_above=0.0, fallback_below=fallback_below)
    plain, kinds = kinds_of(model, 100, prompt=(4, 5, 6, 7, 8, 9), **options)
    misses, with_lookup = kinds_of(model, 100, prompt=(4, 5, 6, 7, 8, 9), lookup_length=4, **options)
    assert misses.answer == plain.answer
    assert len(with_lookup) <= len(kinds)


def test_lookups_that_hit_take_the_place_of_drafts() -> None:
    """A text of period 10, guesses hopeless: after a period and two tokens every lookup holds."""
    model = ScriptedModel(lambda p: 10 + p % 10, wrong)
    for placement in PLACEMENTS:
        request, kinds = kinds_of(model, 80, prompt=(10, 11, 12), placement=placement, lookup_length=6)
        without, _ = kinds_of(model, 80, prompt=(10, 11, 12), placement=placement)
        assert request.answer == without.answer
        assert len(kinds) < 45
        assert without.counts.forwards.total() == 80


@every_placement
def test_a_text_that_falls_into_a_loop_is_looked_up_within_breaks(placement: str) -> None:
    """Hopeless drafts and 120 tokens in which lookups miss, then a loop: at most thrice what lookups alone need."""
    text = [token for n in range(2, 17) for token in range(10, 10 + n)][:120]
    model = ScriptedModel(lambda p: text[p - 6] if 6 <= p < 126 else 10 + p % 10, wrong)
    prompt = (4, 5, 6, 7, 8, 9)
    request, kinds = kinds_of(model, 240, prompt=prompt, placement=placement, lookup_length=8, cost=NATIVE_FLOAT32)
    assert request.answer == tuple([*text, *(10 + p % 10 for p in range(126, 246))])
    _, before = kinds_of(model, 120, prompt=prompt, placement=placement, lookup_length=8, cost=NATIVE_FLOAT32)
    assert len(kinds) - len(before) < 3 * 120 / 9


def test_a_draft_comes_before_a_lookup() -> None:
    decoder = speculator(lively_model().config, lookup_length=3, **FIXED)
    text = [4, 5, 6, 4, 5]
    state = SpeculationState(length=5, end=99, started=True)
    assert decoder.plan(state, text, 4, 99).commit == (5, 6, 4, 5)
    drafted = SpeculationState(length=5, end=99, started=True, draft=(9,), confidence=(0.9,))
    assert decoder.plan(drafted, text, 4, 99).commit == (5, 9)


@pytest.mark.parametrize("anchor", ["committed", "canvas"])
@pytest.mark.parametrize("n_sure", range(8))
def test_unsure_guesses_are_looked_at_again_one_more_each_time(n_sure: int, anchor: str) -> None:
    """Drafts of 9 guess 8: the sure ones at the first look, then one per look; the last look leaves nothing open."""
    model = ScriptedModel(right, right, lambda p: 0.9 if p < 3 + n_sure else 0.5)
    _, kinds = kinds_of(model, 11, placement="linear", draft_length=9, draft_threshold=0.8, anchor=anchor, **FIXED)
    n_looks = 1 + 8 - max(n_sure, 1)
    first = (
        ["prefill"] if anchor == "committed" else ["prefill", "draft"]
    )  # a draft rides with the prefill, or does not
    assert kinds == [*first, *["draft"] * (n_looks - 1), "verify", *["decode"]]


def released(model: Transformer, sampling: Sampling, block: int, threshold: float, n: int) -> list[tuple[str, int]]:
    """The published loop (spec 3.6) until it has made n tokens: kind and tokens made of every forward it counts."""
    eyes = Eyes(model, sampling)
    text = [5, 6, 7]
    text.append(eyes.next_token(text))
    forwards = [("prefill", 1)]
    while len(text) < 3 + n:
        canvas = [text[-1]] + [MASK] * (block - 1)
        while MASK in canvas:
            picks = {j: eyes.slot(text[:-1], canvas, j) for j in range(block) if canvas[j] == MASK}
            best = max(picks, key=lambda j: picks[j][1])
            for j, (token, probability) in picks.items():
                if probability >= threshold or j == best:
                    canvas[j] = token
            forwards.append(("draft", 0))
        m = 0
        while True:
            text.append(eyes.next_token(text))
            m += 1
            if m == block or text[-1] != canvas[m]:
                break
        forwards.append(("verify", m))
    return forwards


@pytest.mark.parametrize("temperature", [0.0, 1.0])
@pytest.mark.parametrize("threshold", [0.0, 0.4])
@pytest.mark.parametrize("seed", range(3))
def test_as_released_it_is_the_published_loop_in_tokens_and_forwards(
    seed: int, threshold: float, temperature: float
) -> None:
    """nfe is 1 for the prefill, 1 per draft pass and 1 per verify pass. The published loop ends past max_tokens."""
    model, sampling = lively_model(seed, eos_token_ids=()), Sampling(temperature=temperature, seed=3)
    for block in (2, 4, 8):
        expected = released(model, sampling, block, threshold, 30)
        engine = Engine(model)
        decoder = speculator(model.config, draft_length=block, draft_threshold=threshold, **RELEASED)
        request = engine.submit([5, 6, 7], decoder, max_tokens=30 + 2 * block, sampling=sampling)
        ours = []
        while len(request.answer) < 30:
            ours += [(event.kind, len(event.tokens)) for event in engine.step()]
        assert ours == expected
        assert request.counts.forwards.total() == len(expected)


@every_placement
def test_few_rows_shorten_drafts_and_drop_canvases_and_change_no_token(placement: str) -> None:
    model = lively_model(1)
    for options in (dict(FIXED), dict(lookup_length=4), dict(draft_threshold=0.5)):
        whole, _ = kinds_of(model, 30, placement=placement, draft_length=8, **options)
        for max_rows in (1, 2, 3, 5, 9, 14):
            rows: list[int] = []
            engine = Engine(model, max_rows=max_rows)
            decoder = speculator(model.config, placement=placement, draft_length=8, **options)
            request = engine.submit([5, 6], decoder, max_tokens=30)
            while not engine.is_idle:
                rows.append(decoder.plan(request.state, request.tokens, request.cache.length, max_rows).n_rows)
                engine.step()
            assert request.answer == whole.answer
            assert max(rows) <= max_rows


def test_with_one_row_every_forward_is_a_plain_step() -> None:
    _, kinds = kinds_of(script(), 9, prompt=(5,), max_rows=1)
    assert kinds == ["prefill", *["decode"] * 8]


def test_a_look_shows_a_mask_however_few_the_rows() -> None:
    decoder = speculator(lively_model().config, draft_threshold=0.5)
    state = SpeculationState(length=2, end=99, started=True, draft=(9, 9, MASK, MASK), confidence=(0.9, 0.9, 0.0, 0.0))
    for budget_rows, shown in ((1, 4), (4, 4), (5, 5), (99, 5)):
        (canvas,) = decoder.plan(state, [4, 5], 1, budget_rows).canvases
        assert canvas.tokens == (5, *state.draft)[:shown]
        assert canvas.read == tuple(range(3, shown))


def test_an_eos_among_accepted_guesses_ends_the_text() -> None:
    model = ScriptedModel(lambda p: EOS if p == 6 else TRUE, lambda p: EOS if p == 6 else TRUE)
    for placement in PLACEMENTS:
        request, kinds = kinds_of(model, 40, placement=placement, draft_length=16, **FIXED)
        assert request.answer == (TRUE, TRUE, TRUE, TRUE, EOS)
        assert kinds == ["prefill", "verify"]


def test_acceptance_length_counts_what_verify_forwards_made() -> None:
    perfect, _ = kinds_of(script(), 1 + 4 * 8, placement="chained", draft_length=8, **FIXED)
    hopeless, _ = kinds_of(script(wrong), 11, placement="chained", draft_length=8, **FIXED)
    assert completion(perfect).acceptance_length == 8
    assert completion(perfect).tokens_per_forward == 33 / 5
    assert completion(hopeless).acceptance_length == 1
