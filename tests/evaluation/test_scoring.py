"""A score is the sum of what every row alone says, however texts share forwards; greedy is what `ar` would write."""

import random

import pytest
import torch
from torch import Tensor

from tests.adapters import random_adapter
from tests.fakes import MASK, Watched, lively_model, tiny_model
from tests.models.checkpoints import refuses
from tests.texts import causal_logits
from trimode.decoding import build
from trimode.engine.engine import Engine
from trimode.errors import InvalidInput
from trimode.evaluation import scoring
from trimode.evaluation.scoring import Text, score
from trimode.models.adapters import Adapted
from trimode.training.documents import Document
from trimode.training.nelbo import exact_nll

MODEL = tiny_model(sharpness=0.3)


class MaskLoving(Watched):
    """The mask is a little likelier than any other token, in every row."""

    def logits(self, hidden_SD: Tensor) -> Tensor:
        logits_SV: Tensor = self.model.logits(hidden_SD)
        logits_SV[:, MASK] = logits_SV.amax(-1) + 1
        return logits_SV


def some_texts() -> list[Text]:
    """Two to 30 random tokens, the last few of them scored."""
    rng = random.Random(0)
    texts = []
    for length in (2, 9, 30, 3, 17, 8, 24):
        tokens = tuple(rng.randrange(4, 61) for _ in range(length))
        texts.append(Text(tokens=tokens, n_scored=rng.randrange(1, length)))
    return texts


def by_hand(text: Text) -> float:
    """One forward per scored token, its row a softmax of its own."""
    first, total = len(text.tokens) - text.n_scored, 0.0
    for i in range(first, len(text.tokens)):
        total += causal_logits(MODEL, text.tokens[:i])[-1].double().log_softmax(-1)[text.tokens[i]].item()
    return total


@pytest.mark.parametrize("at_once", [1, 3, 64])
def test_a_score_is_the_sum_over_its_tokens_each_in_a_forward_of_its_own(at_once: int) -> None:
    found = list(score(MODEL, some_texts(), at_once))
    assert [value for value, _ in found] == pytest.approx([by_hand(text) for text in some_texts()], abs=1e-4)


def test_the_scores_of_texts_sum_to_their_exact_likelihood() -> None:
    documents = [Document.text(text.tokens, len(text.tokens) - text.n_scored) for text in some_texts()]
    exact = exact_nll(MODEL, documents)
    assert -sum(value for value, _ in score(MODEL, some_texts())) / exact.n_tokens == pytest.approx(exact.per_token)


def test_a_text_longer_than_a_forward_scores_as_in_one(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = list(score(MODEL, some_texts()))
    for rows in (1, 7, 12):
        monkeypatch.setattr(scoring, "ROWS", rows)
        monkeypatch.setattr(scoring, "CHUNK", rows)
        parts = list(score(MODEL, some_texts()))
        assert [value for value, _ in parts] == pytest.approx([value for value, _ in whole], abs=1e-4)
        assert [greedy for _, greedy in parts] == [greedy for _, greedy in whole]


def test_what_ar_writes_is_greedy_and_any_other_token_in_it_is_not() -> None:
    model = lively_model()
    engine = Engine(model)
    request = engine.submit([5, 6, 7], build("ar", model.config), max_tokens=12)
    while not engine.is_idle:
        engine.step()
    tokens, n = tuple(request.tokens), len(request.answer)
    texts = [Text(tokens=tokens, n_scored=n)]
    for i in range(3, len(tokens)):
        changed = (tokens[i] - 4 + 1) % 57 + 4
        texts.append(Text(tokens=(*tokens[:i], changed, *tokens[i + 1 :]), n_scored=n))
    assert [greedy for _, greedy in score(model, texts)] == [True] + [False] * n


def test_the_mask_has_its_share_of_the_probability_and_is_never_the_greedy_choice() -> None:
    model, top = MaskLoving(MODEL, lambda *_: None), causal_logits(MODEL, (5, 6))[-1]
    best = int(top.index_fill(0, torch.tensor(MASK), -torch.inf).argmax())
    ((value, greedy),) = score(model, [Text(tokens=(5, 6, best), n_scored=1)])  # type: ignore[arg-type]
    shares = top.index_fill(0, torch.tensor(MASK), float(top.max()) + 1).log_softmax(-1)
    assert greedy
    assert value == pytest.approx(shares[best].item(), abs=1e-4)


def test_an_adapter_changes_the_score_as_it_changes_the_model() -> None:
    adapter = random_adapter(MODEL.config)
    plain, changed = (list(score(MODEL, some_texts(), 3, each)) for each in (None, adapter))
    documents = [Document.text(text.tokens, len(text.tokens) - text.n_scored) for text in some_texts()]
    exact = exact_nll(Adapted(MODEL, adapter), documents)
    assert -sum(value for value, _ in changed) / exact.n_tokens == pytest.approx(exact.per_token, abs=1e-5)
    assert plain != changed


def test_where_committed_blocks_see_both_ways_there_is_no_likelihood() -> None:
    model = lively_model(commit_visibility="block")
    with refuses(InvalidInput, "see both ways", model.config.model_type):
        list(score(model, some_texts()))


@pytest.mark.parametrize(("n_tokens", "n_scored"), [(5, 0), (5, 5), (1, 1)])
def test_nothing_to_score_or_nothing_before_it_is_refused(n_tokens: int, n_scored: int) -> None:
    with refuses(InvalidInput, str(n_scored)):
        Text(tokens=(7,) * n_tokens, n_scored=n_scored)
