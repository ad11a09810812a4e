"""What was published about each question, as a direction that a difference of ours can agree with.

NLD: arXiv 2607.05722. EDLM: arXiv 2512.14067. TiDAR: arXiv 2511.08923.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from trimode.evaluation.intervals import Interval

Kind = Literal["accuracy", "tokens per forward", "acceptance length", "NLL", "NELBO 16"]
MARGIN = 2.0  # points of accuracy within which two settings count as equal
UNSURE = "too small to tell"


@dataclass(frozen=True, slots=True, kw_only=True)
class Claim:
    """`first` minus `second` in a measure is, as published, above 0 (1), below 0 (-1), about 0 (0), or unknown (None).

    About 0 is within `MARGIN`, of accuracies alone.
    """

    first: str
    second: str
    kind: Kind
    mode: str
    sign: Literal[1, -1, 0] | None
    published: str


def verdict(differences: Sequence[Interval], sign: int | None) -> str:
    """A few words for the 95 % intervals of all seeds: every one of them must say it, else nothing is said."""
    said = {_said(one, sign) for one in differences}
    if len(said) > 1:
        return UNSURE if UNSURE in said else "seeds differ"
    return said.pop() if said else "not run yet"


def _said(one: Interval, sign: int | None) -> str:
    """What one seed says."""
    if sign == 0:
        if one.low >= -MARGIN and one.high <= MARGIN:
            return "agree"
        return "disagree" if one.low > MARGIN or one.high < -MARGIN else UNSURE
    found = 1 if one.low > 0 else -1 if one.high < 0 else 0
    if found == 0:
        return UNSURE
    if sign is None:
        return "higher" if found > 0 else "lower"
    return "agree" if found == sign else "disagree"


NOTHING = "nothing published"
CLAIMS = (
    Claim(first="baseline", second="w-0", kind="accuracy", mode="ar", sign=0,
          published="NLD, 8B base: 72.50 and 72.64, AR only and joint"),
    Claim(first="baseline", second="w-0", kind="acceptance length", mode="linear", sign=None, published=NOTHING),
    Claim(first="baseline", second="w-0.1", kind="accuracy", mode="diffusion", sign=1,
          published="NLD, 8B: w 0.3 69.77, w 0.1 68.20"),
    Claim(first="baseline", second="w-0.1", kind="accuracy", mode="ar", sign=1,
          published="NLD, 8B: w 0.3 70.62, w 0.1 68.71"),
    Claim(first="baseline", second="w-1", kind="accuracy", mode="diffusion", sign=1,
          published="NLD, 8B: w 0.3 69.77, w 1 66.93"),
    Claim(first="baseline", second="w-1", kind="accuracy", mode="ar", sign=1,
          published="NLD, 8B: w 0.3 70.62, w 1 67.22"),
    Claim(first="baseline", second="w-1", kind="acceptance length", mode="linear", sign=None, published=NOTHING),
    Claim(first="baseline", second="masked-0", kind="acceptance length", mode="linear", sign=None,
          published="no mixture published; TiDAR (all masked, for drafts) points up"),
    Claim(first="baseline", second="masked-0", kind="accuracy", mode="diffusion", sign=None, published=NOTHING),
    Claim(first="masked-100", second="masked-0", kind="tokens per forward", mode="quadratic", sign=1,
          published="TiDAR, drafts of 8: all masked 5.49 per forward, random 5.22"),
    Claim(first="masked-100", second="masked-0", kind="accuracy", mode="diffusion", sign=None, published=NOTHING),
    Claim(first="half-life", second="baseline", kind="accuracy", mode="diffusion", sign=1,
          published="EDLM, 4B: half-life 0.1 58.79, off 57.12 at 2.8 per forward"),
    Claim(first="half-life", second="baseline", kind="acceptance length", mode="linear", sign=None, published=NOTHING),
    Claim(first="baseline", second="block-8", kind="accuracy", mode="diffusion", sign=1,
          published="EDLM, 1.5B: block 16 about 38.4, block 8 about 36"),
    Claim(first="baseline", second="block-32", kind="accuracy", mode="diffusion", sign=0,
          published="EDLM, 1.5B: block 16 about 38.4, block 32 about 38.2"),
    Claim(first="baseline", second="block-8", kind="tokens per forward", mode="diffusion", sign=1,
          published="NLD, perfect order: block 16 5.68, block 8 4.17"),
    Claim(first="block-32", second="baseline", kind="tokens per forward", mode="diffusion", sign=1,
          published="NLD, perfect order: block 32 7.60, block 16 5.68"),
    Claim(first="baseline", second="shifted", kind="accuracy", mode="diffusion", sign=1,
          published="EDLM, 1.5B: no shift 38.41, shift 37.69"),
    Claim(first="baseline", second="shifted", kind="accuracy", mode="ar", sign=None, published=NOTHING),
    Claim(first="baseline", second="shifted", kind="acceptance length", mode="linear", sign=None, published=NOTHING),
    Claim(first="drafter", second="baseline", kind="tokens per forward", mode="linear", sign=1,
          published="NLD, linear: 3B 4.36 with, 3.81 without"),
    Claim(first="drafter", second="baseline", kind="acceptance length", mode="pruned", sign=None, published=NOTHING),
)  # fmt: skip
