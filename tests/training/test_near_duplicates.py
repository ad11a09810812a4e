"""What is mostly contained in another text goes, the smaller of two, whatever the order they come in."""

import random

from trimode.training.near_duplicates import near_duplicates, shingles


def lines(*numbers: int) -> str:
    return "".join(f"x = {number}\n" for number in numbers)


def slowly(texts: dict[str, str], share: float) -> dict[str, tuple[str, float]]:
    """Every pair compared, in the order of the definition."""
    kept: list[str] = []
    dropped: dict[str, tuple[str, float]] = {}
    for name in sorted(texts, key=lambda name: (-len(shingles(texts[name])), name)):
        own = shingles(texts[name])
        shares = [(len(own & shingles(texts[other])) / len(own), other) for other in kept] if own else []
        best = max((s for s, _ in shares), default=0.0)
        if best and best >= share:
            dropped[name] = (min(other for s, other in shares if s == best), best)
        else:
            kept.append(name)
    return dropped


def test_a_text_within_another_is_dropped_for_it_and_not_the_other_way_round() -> None:
    texts = {"a": lines(*range(10, 20)), "b": lines(*range(30)), "c": lines(*range(100, 120))}
    assert near_duplicates(texts) == {"a": ("b", 1.0)}


def test_white_space_and_blank_lines_make_no_difference() -> None:
    text = lines(*range(10))
    assert near_duplicates({"a": text, "b": text.replace(" = ", "  =\t").replace("\n", "\n\n")}) == {"b": ("a", 1.0)}


def test_a_text_shorter_than_a_shingle_counts_as_one_and_a_blank_one_as_none() -> None:
    assert len(shingles(lines(1, 2))) == 1
    assert near_duplicates({"a": lines(1, 2), "b": lines(1, 2), "c": " \n", "d": ""}) == {"b": ("a", 1.0)}


def test_it_finds_what_comparing_every_pair_finds_in_any_order() -> None:
    rng = random.Random(0)
    for share in (0.2, 0.5, 1.0):
        blocks = [lines(*(rng.randrange(1000) for _ in range(rng.randint(1, 12)))) for _ in range(12)]
        texts = {f"t{i}": "".join(rng.choices(blocks, k=rng.randint(1, 4))) for i in range(40)}
        shuffled = dict(sorted(texts.items(), key=lambda item: rng.random()))
        found = near_duplicates(texts, share)
        assert found == slowly(texts, share) == near_duplicates(shuffled, share)
        assert found
