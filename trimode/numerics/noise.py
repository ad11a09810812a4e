"""How a block of text becomes a canvas with masks: integers and probabilities, no model and no tensors.

Every formula, what it is unbiased for and what not, stands in docs/objectives.md. Randomness is an argument.
"""

import math
import random
from collections.abc import Iterator
from dataclasses import dataclass

from trimode.errors import InvalidInput
from trimode.options import check_options, option

EPSILON = 1e-3  # of scheme "sequence": the smallest share of masks
INFILL = (8, 128)  # tokens of an infill canvas, hole and suffix together

Mask = tuple[tuple[int, ...], float]  # the masked slots of one view, in order, and the weight of each


@dataclass(frozen=True, slots=True, kw_only=True)
class Noise:
    """Which canvases training sees, and what their masked targets weigh."""

    block_sizes: tuple[int, ...] = (32,)  # one is drawn per document
    scheme: str = option(
        "block", "draw a number of masks per block (exactly unbiased), or a share of masks per document, as published",
        choices=("block", "sequence"),
    )  # fmt: skip
    all_masked_share: float = option(0.15, "blocks all masked, at weight 1: an emphasis", low=0.0, high=1.0)
    half_life: float | None = option(
        None, "mask late slots rather: their odds double every so many block sizes", low=0.0, high=1.0, is_open=True
    )
    views: int = option(1, "2: every block twice, the second time with the other targets masked", low=1, high=2)
    infill_share: float = option(0.0, "blocks that become a hole and its suffix in one canvas", low=0.0, high=1.0)
    suffix_first_share: float = option(
        0.0, "texts laid out suffix, prefix, middle; above 0, half of the documents with a hole too", low=0.0, high=1.0
    )
    drafts: bool = False  # canvases as a drafter sees them: all masked, at weight 1

    def __post_init__(self) -> None:
        check_options(self)
        if not self.block_sizes or any(type(size) is not int or size < 1 for size in self.block_sizes):
            raise InvalidInput(f"block_sizes is {self.block_sizes!r}, allowed are whole numbers, each at least 1")
        chosen = {
            "scheme sequence": self.scheme == "sequence", "views 2": self.views == 2,
            "half_life": self.half_life is not None, "infill_share": self.infill_share > 0, "drafts": self.drafts,
        }  # fmt: skip
        for one, other in STRANGERS:
            if chosen[one] and chosen[other]:
                raise InvalidInput(f"{one} and {other} exclude each other: leave one of them out")
        if self.drafts and max(self.block_sizes) < 2:
            raise InvalidInput(f"block_sizes is {self.block_sizes!r}, allowed with drafts is a block of at least 2")


# A share of masks has no complement of bounded weight, late masks have early ones as theirs, and drafts have no level.
STRANGERS = (
    ("scheme sequence", "views 2"), ("scheme sequence", "half_life"), ("views 2", "half_life"),
    ("drafts", "scheme sequence"), ("drafts", "views 2"), ("drafts", "half_life"), ("drafts", "infill_share"),
)  # fmt: skip


def level(noise: Noise, rng: random.Random) -> float | None:
    """The share of masks of one document, (1 - EPSILON) * t + EPSILON with t ~ U[0, 1); None for scheme "block"."""
    return None if noise.scheme == "block" else (1 - EPSILON) * rng.random() + EPSILON


def masks(n: int, noise: Noise, rng: random.Random, share: float | None = None) -> tuple[Mask, ...]:
    """How n targets are masked, once per view; a view that would mask nothing is left out. `share`: the `level`."""
    if noise.drafts or rng.random() < noise.all_masked_share:
        return ((tuple(range(n)), 1.0),)
    if share is not None:
        slots = tuple(i for i in range(n) if rng.random() < share)
        return ((slots, 1 / share),) if slots else ()
    k = rng.randint(1, n)
    slots = tuple(sorted(rng.sample(range(n), k))) if noise.half_life is None else late(n, k, noise.half_life, rng)
    if noise.views == 1 or k == n:
        return ((slots, n / k),)
    taken = set(slots)
    others = tuple(i for i in range(n) if i not in taken)
    return (slots, n / (2 * k)), (others, n / (2 * (n - k)))


def late(n: int, k: int, half_life: float, rng: random.Random) -> tuple[int, ...]:
    """k of n slots without replacement, slot i with odds exp(beta * (1 - k/n) * i), beta = ln 2 / (half_life * n).

    arXiv 2512.14067, position-dependent masking, by Gumbel top-k: the k largest of log-odds plus Gumbel noise.
    """
    slope = math.log(2) / (half_life * n) * (1 - k / n)
    keys = [slope * i - math.log(rng.expovariate(1.0)) for i in range(n)]
    return tuple(sorted(sorted(range(n), key=keys.__getitem__)[n - k :]))


def blocks(start: int, stop: int, size: int, rng: random.Random, aligned: float) -> Iterator[tuple[int, int]]:
    """Cut [start, stop) into blocks of `size`, the first of which is whole in a share `aligned` of cases, else of any.

    Inference starts blocks wherever the committed text ends, so no phase may be special but that of an answer's start.
    """
    edge, width = start, first_width(size, rng, aligned)
    while edge < stop:
        end = min(edge + width, stop)
        yield edge, end
        edge, width = end, size


def first_width(size: int, rng: random.Random, aligned: float) -> int:
    """How far the first block reaches before the first edge."""
    return size if rng.random() < aligned else rng.randint(1, size)


def infill(edge: int, last: int, spare: int, rng: random.Random) -> tuple[int, int]:
    """(stop, end) of an infill canvas: a hole [edge, stop), then at most `spare` tokens of suffix up to end <= last."""
    width = rng.randint(INFILL[0], min(INFILL[1], last - edge))
    suffix = rng.randint(1, min(width - 1, spare))
    return edge + width - suffix, edge + width
