"""How likely a loaded model finds answers after their prompts: the exact value in mode `ar`, bounds of its canvases.

In nats per token of the answer. A bound is named by its block size and its draws, for another block size is another
bound; definitions in docs/objectives.md. What a checkpoint has no rows for is not computed, and said why.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from trimode.api import LLM
from trimode.config import ModelConfig
from trimode.errors import InvalidInput
from trimode.training.documents import Document, Special
from trimode.training.nelbo import Estimate, exact_nll, nelbo

Pair = tuple[Sequence[int], Sequence[int]]  # token ids of a prompt, and of the answer after it
BLOCK_SIZES = (1, 4, 8, 16)
DRAWS = 16


@dataclass(frozen=True, slots=True, kw_only=True)
class Likelihood:
    """Of the same pairs: the exact NLL, and a NELBO for each block size. `refused` says what is not there, and why."""

    n_tokens: tuple[int, ...]  # of every answer
    nll: Estimate | None
    bounds: tuple[Estimate, ...]
    refused: tuple[str, ...] = ()

    def lines(self) -> list[str]:
        """For people, a line for each number with all that it depends on, and for each that is not there."""
        over = f"{sum(self.n_tokens)} tokens of {len(self.n_tokens)} answers"
        exact = [] if self.nll is None else [f"AR NLL {self.nll.per_token:.4f} nats per token{_give(self.nll)}, exact"]
        return [*(f"{line} ({over})" for line in (*exact, *map(_bound, self.bounds))), *self.refused]

    def to_dict(self) -> dict[str, Any]:
        """Ready for JSON: estimates with the nats of every pair."""
        return asdict(self)


def likelihood(
    llm: LLM, pairs: Sequence[Pair], block_sizes: Sequence[int] = BLOCK_SIZES, draws: int = DRAWS, seed: int = 0
) -> Likelihood:
    """Evaluate answers given their prompts.

    Raises InvalidInput for a pair that is empty on a side, too long, or holds an id that no text may hold.
    """
    config = llm.model.config
    documents = [_document(config, index, *pair) for index, pair in enumerate(pairs)]
    no_nll, no_bounds = reason_against_nll(config), reason_against_bounds(config)
    special = Special(mask_token_id=config.mask_token_id or 0, shifted=config.canvas_logits == "shifted")
    bounds = () if no_bounds else tuple(
        nelbo(llm.model, documents, size, draws=1 if size == 1 else draws, seed=seed, special=special)
        for size in block_sizes
    )  # fmt: skip
    return Likelihood(
        n_tokens=tuple(document.n_targets for document in documents),
        nll=None if no_nll else exact_nll(llm.model, documents),
        bounds=bounds, refused=tuple(why for why in (no_nll, no_bounds if block_sizes else None) if why),
    )  # fmt: skip


def windows(tokens: Sequence[int], length: int, overlap: int) -> list[Pair]:
    """A text as pairs of at most `length` tokens: each but the first begins with `overlap` tokens that are not scored.

    Every token but the text's first is scored once. More overlap is a better value for more work. Raises InvalidInput
    unless 1 <= overlap < length.
    """
    if not 1 <= overlap < length:
        raise InvalidInput(f"overlap is {overlap}, allowed is 1 to {length - 1}, one less than a window's length")
    pairs: list[Pair] = []
    scored = 1
    while scored < len(tokens):
        start = max(0, scored - overlap)
        pairs.append((tokens[start:scored], tokens[scored : start + length]))
        scored = start + length
    return pairs


def reason_against_nll(config: ModelConfig) -> str | None:
    """Why a checkpoint has no exact likelihood, or None."""
    if config.commit_visibility == "block":
        return (
            f"no AR NLL: in this {config.model_type} checkpoint committed blocks see both ways, "
            "and no row names a token from what is before it alone"
        )
    return None


def reason_against_bounds(config: ModelConfig) -> str | None:
    """Why a checkpoint has no bound by its canvases, or None."""
    if config.mask_token_id is None:
        return (
            f"no NELBO: this {config.model_type} checkpoint is an ordinary causal one without a mask token "
            "(trimode convert adds one)"
        )
    if config.commit_visibility == "block":
        return (
            f"no NELBO: it is computed behind causal text, which no block of this {config.model_type} checkpoint sees"
        )
    return None


def _document(config: ModelConfig, index: int, prompt: Sequence[int], answer: Sequence[int]) -> Document:
    """One pair with its answer as the target."""
    tokens, where = (*prompt, *answer), f"pair {index} of the likelihood"
    if not prompt or not answer:
        raise InvalidInput(f"{where}: {len(prompt)} and {len(answer)} tokens, prompt and answer need at least 1 each")
    if len(tokens) > config.context_length:
        raise InvalidInput(f"{where}: {len(tokens)} tokens, the context holds {config.context_length}")
    wrong = next((t for t in tokens if not 0 <= t < config.vocab_size or t == config.mask_token_id), None)
    if wrong is not None:
        raise InvalidInput(f"{where}: token {wrong}, allowed is 0 to {config.vocab_size - 1} without the mask")
    return Document(tokens=tokens, answers=((len(prompt), len(tokens)),))


def _bound(bound: Estimate) -> str:
    what = f"NELBO {bound.per_token:.4f} nats per token"
    if bound.block_size == 1:
        return f"{what}{_give(bound)}, block size 1, exact for the canvas rows"
    draws = f"{bound.draws} draw{'' if bound.draws == 1 else 's'}"
    error = "" if bound.standard_error is None else f" +- {bound.standard_error:.4f} (draws)"
    return f"{what}{error}{_give(bound)}, block size {bound.block_size}, {draws}"


def _give(estimate: Estimate) -> str:
    return "" if estimate.document_error is None else f" +- {estimate.document_error:.4f} (answers)"
