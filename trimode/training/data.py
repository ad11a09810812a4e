"""Documents -> packed batches. The noise of a sample is a pure function of (seed, sample index)."""

from collections.abc import Callable, Iterator

from trimode.numerics.noise import Noise
from trimode.training.batch import Batch, pack
from trimode.training.documents import Document, Special
from trimode.training.samples import Sample, make_sample


def batches(
    document: Callable[[int], Document], noise: Noise | None, mask_token_id: int, *,
    seed: int, streams: int, rows: int,
) -> Iterator[Batch]:  # fmt: skip
    """Endless batches of `streams` x `rows`: sample i is a pure function of (seed, i), packed in order, first fit.

    A sample that fits no open stream closes the batch; a document too long for an empty stream is cut.
    """
    if noise is not None and rows < max(noise.block_sizes) + 2:
        raise ValueError(f"streams of {rows} rows cannot hold a text and a block of {max(noise.block_sizes)}")
    packs: list[list[Sample]] = [[] for _ in range(streams)]
    room, index, last_used = [rows] * streams, 0, 0
    while True:
        sample = _fitting(document(index), noise, mask_token_id, f"{seed}:{index}", rows)
        index += 1
        if not sample.ar:
            if index - last_used > 1000:
                raise ValueError(f"documents {last_used} to {index - 1} have no targets within {rows} rows")
            continue
        last_used = index
        place = next((i for i in range(streams) if sample.span.n_rows <= room[i]), None)
        if place is None:
            yield pack(packs, rows, mask_token_id)
            packs, room, place = [[] for _ in range(streams)], [rows] * streams, 0
        packs[place].append(sample)
        room[place] -= sample.span.n_rows


def _fitting(document: Document, noise: Noise | None, mask_token_id: int, key: str, rows: int) -> Sample:
    special = Special(mask_token_id=mask_token_id)
    sample = make_sample(document, noise, special, key)
    while sample.span.n_rows > rows:
        document = document.window(0, len(document.tokens) * 9 // 10)
        sample = make_sample(document, noise, special, key)
    return sample
