"""Who runs in the next forward. Knows rows and turns; not what the rows are for."""

from collections.abc import Sequence


def admit(rows: Sequence[int], max_rows: int) -> list[int]:
    """Indices of the plans that run now, in order of waiting; the first always runs, the others while rows are left.

    Whoever runs goes to the end of the queue, so everybody waits a bounded number of forwards.
    """
    admitted: list[int] = []
    left = max_rows
    for index, n in enumerate(rows):
        if n <= left or not admitted:
            admitted.append(index)
            left -= n
    return admitted
