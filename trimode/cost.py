"""What a forward costs by its width, as a frozen value: decoders weigh drafts with it and never look at a clock."""

from bisect import bisect_right
from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class CostModel:
    """Cost of a forward of `widths[i]` rows, in any unit, straight lines between and beyond.

    A forward narrower than the first width costs as much as that. `draft_row` is what a row that cannot change an
    answer costs, in rows (cheaper where drafts have cheaper products).
    """

    widths: tuple[float, ...]
    costs: tuple[float, ...]
    draft_row: float = 1.0

    def __post_init__(self) -> None:
        is_rising = all(a < b for a, b in zip(self.widths, self.widths[1:], strict=False))
        is_positive = all(cost > 0 for cost in (*self.costs, self.draft_row))
        if len(self.widths) < 2 or len(self.widths) != len(self.costs) or not is_rising or not is_positive:
            raise ValueError(
                "a cost model has at least two rising widths, a positive cost for each and for a draft_row"
            )

    def __call__(self, rows: int, draft_rows: int = 0) -> float:
        """Cost of a forward of `rows` rows and `draft_rows` more that belong to drafts."""
        width = max(rows + self.draft_row * draft_rows, self.widths[0])
        after = min(max(bisect_right(self.widths, width), 1), len(self.widths) - 1)
        (w0, w1), (c0, c1) = self.widths[after - 1 : after + 1], self.costs[after - 1 : after + 1]
        return c0 + (width - w0) * (c1 - c0) / (w1 - w0)

    def shared(self, n: int) -> "CostModel":
        """What a forward in which n requests have as many rows each costs one of them."""
        if n == 1:
            return self
        widths, costs = (tuple(x / n for x in xs) for xs in (self.widths, self.costs))
        return CostModel(widths=widths, costs=costs, draft_row=self.draft_row)


# Shipped defaults, rounded from steps of the bundled model on two cores; FLAT is assumed, no GPU has been measured.
# engine/calibration.py measures a model at hand.
FLAT = CostModel(widths=(1, 32, 256), costs=(1.0, 1.05, 1.4))  # memory-bound, as on a GPU
TORCH_CPU = CostModel(widths=(1, 8, 16, 32, 64), costs=(1.0, 1.2, 1.4, 1.8, 2.8))
NATIVE_FLOAT32 = CostModel(widths=(1, 2, 4, 8, 16, 32, 64), costs=(1.0, 1.1, 1.5, 2.4, 4.5, 8.4, 17.0), draft_row=0.9)
NATIVE_BFLOAT16 = CostModel(widths=(1, 2, 4, 8, 16, 32, 64), costs=(1.0, 1.1, 1.35, 1.9, 3.3, 6.3, 12.5), draft_row=1.2)
