"""How likely a loaded model finds answers after their prompts: the exact value in mode `ar`, bounds of its canvases.

In nats per token of the answer. A bound is named by its block size and its draws, for another block size is another
bound; definitions in docs/objectives.md. What a checkpoint has no rows for is not computed, and said why.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from trimode.api import LLM
from trimode.config import ModelConfig
from trimode.errors import InvalidInput
from trimode.models.adapters import Adapted
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


def likelihood(
    llm: LLM, pairs: Sequence[Pair], block_sizes: Sequence[int] = BLOCK_SIZES, draws: int = DRAWS, seed: int = 0,
    *, adapter: str | None = None,
) -> Likelihood:  # fmt: skip
    """Evaluate answers given their prompts, with a loaded adapter on in every row if one is named.

    Raises InvalidInput for a pair that is empty on a side, too long, or holds an id that no text may hold.
    """
    config, chosen = llm.model.config, llm.adapter(adapter)
    model = llm.model if chosen is None else Adapted(llm.model, chosen)
    documents = [_document(config, index, *pair) for index, pair in enumerate(pairs)]
    no_nll, no_bounds = reason_against_nll(config), reason_against_bounds(config)
    special = Special(mask_token_id=config.mask_token_id or 0, shifted=config.canvas_logits == "shifted")
    bounds = () if no_bounds else tuple(
        nelbo(model, documents, size, draws=1 if size == 1 else draws, seed=seed, special=special)
        for size in block_sizes
    )  # fmt: skip
    return Likelihood(
        n_tokens=tuple(document.n_targets for document in documents),
        nll=None if no_nll else exact_nll(model, documents),
        bounds=bounds, refused=tuple(why for why in (no_nll, no_bounds if block_sizes else None) if why),
    )  # fmt: skip


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
