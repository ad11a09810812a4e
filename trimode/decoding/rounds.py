"""What recent rounds of drafting were worth, as a frozen record. A round lasts from one draft to the next.

Plain steps, and whatever else happens during such a break, belong to no round.
"""

from dataclasses import dataclass, field, replace

from trimode.cost import CostModel

SHORTEST_BREAK, LONGEST_BREAK = 2, 64  # plain steps in a row after a poor round
STEPS_PER_LOSS = 4  # plain steps for each token that the poor round was behind them, doubling while rounds stay poor
MEMORY = 0.8  # weight of the past, per forward
FORGETTING = 1 / 32  # weight of the hope one starts with, per forward: what was given up is tried again some day
HOPE = (2.0, 3.0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Rate:
    """A decayed share of guesses that held, starting from 2 of 3."""

    held: float = HOPE[0]
    judged: float = HOPE[1]

    @property
    def value(self) -> float:
        return self.held / self.judged

    def after(self, held: int, judged: int) -> "Rate":
        """With `held` of `judged` new guesses."""
        if not judged:
            return self
        return Rate(held=MEMORY * self.held + held, judged=MEMORY * self.judged + judged)

    def forgotten(self) -> "Rate":
        """A little closer to where it began."""
        held, judged = (old + FORGETTING * (new - old) for old, new in zip((self.held, self.judged), HOPE, strict=True))
        return Rate(held=held, judged=judged)


@dataclass(frozen=True, slots=True, kw_only=True)
class Record:
    """How guesses fared, by source, and whether speculation pays at the moment."""

    drafted: Rate = field(default_factory=Rate)  # guesses of canvases
    found: Rate = field(default_factory=Rate)  # guesses looked up in the text
    made: int = 0  # tokens in this round
    spent: float = 0.0  # cost of its forwards
    poor: int = 0  # rounds in a row that were not worth it
    plain: int = 0  # plain steps still to take

    def after_forward(self, tokens: int, cost: float) -> "Record":
        if self.plain:  # lookups go on in a break, and one that is not tried is never seen to hold
            return replace(self, plain=self.plain - 1, found=self.found.forgotten())
        return replace(self, made=self.made + tokens, spent=self.spent + cost, found=self.found.forgotten())

    def after_round(self, cost: CostModel, fallback_below: float | None) -> "Record":
        """The round, if one is open, is over: poor if plain steps would have made more for its cost.

        With `fallback_below` it is poor if it made fewer tokens than that. The break after a poor round is as long as
        its loss was large, so that trying again costs a bounded share.
        """
        if not self.spent:
            return self
        loss = (self.spent / cost(1) if fallback_below is None else fallback_below) - self.made
        if loss <= 0:
            return replace(self, made=0, spent=0.0, poor=0)
        plain = max(round(STEPS_PER_LOSS * loss), SHORTEST_BREAK) << self.poor
        return replace(self, made=0, spent=0.0, poor=min(self.poor + 1, 5), plain=min(plain, LONGEST_BREAK))
