"""Which texts are mostly contained in another one, exactly and whatever the order. Knows no file.

Texts are compared by their shingles: every run of SIZE lines, blank ones left out and white space evened.
"""

from collections import Counter, defaultdict
from collections.abc import Mapping

SIZE = 5  # lines
SHARE = 0.5

Shingle = tuple[str, ...]


def shingles(text: str, size: int = SIZE) -> frozenset[Shingle]:
    """Runs of `size` lines; of a shorter text the one there is, of a blank one none."""
    lines = [line for line in (" ".join(raw.split()) for raw in text.splitlines()) if line]
    return frozenset(tuple(lines[i : i + size]) for i in range(max(len(lines) - size + 1, min(len(lines), 1))))


def near_duplicates(texts: Mapping[str, str], share: float = SHARE) -> dict[str, tuple[str, float]]:
    """Every name to be dropped, with the kept one that holds most of its shingles, and the share it holds.

    From the text with most shingles down (ties by name), one is dropped of whose shingles a single kept text has at
    least `share`. So the smaller of two goes, and nothing goes for the sake of what is dropped itself.
    """
    parts = {name: shingles(text) for name, text in texts.items()}
    keepers: dict[Shingle, list[str]] = defaultdict(list)
    dropped = {}
    for name in sorted(parts, key=lambda name: (-len(parts[name]), name)):
        common = Counter(keeper for shingle in parts[name] for keeper in keepers[shingle])
        like, n = min(common.items(), key=lambda item: (-item[1], item[0]), default=("", 0))
        if n and n >= share * len(parts[name]):
            dropped[name] = (like, n / len(parts[name]))
            continue
        for shingle in parts[name]:
            keepers[shingle].append(name)
    return dropped
