"""Task `text`: one deterministic transform of a short sentence."""

from collections.abc import Callable

from trimode.evaluation.tasks import values
from trimode.evaluation.tasks.base import Draws, Example, Task, ask, same_text

_SENTENCES = (
    "{person} bought {n} {product} and {m} {other} in {city}",
    "on {date} the {product} moved from {city} to {other}",
    "{person} and {friend} met near the {noun} at {n} and left at {m}",
    "the {noun} of {person} costs {n} but the {other} costs {m}",
    "please send {n} {product} to {person} in {city} before {date}",
    "room {n} has a {product} and a {other}",
    "{noun} {other} {product} {city}",
    "{friend} sold the {product} to {person} for {n}",
)

Transform = tuple[str, str]  # what the instruction asks, and the answer


def make(rng: Draws) -> Example:
    sentence = _sentence(rng)
    transform = rng.choice(_TRANSFORMS)
    wish, answer = transform(rng, sentence.split(" "))
    instruction = rng.choice(("{}:", "Task: {}.", "Transform the text. {}."))
    return ask("text", instruction.format(wish), sentence, answer)


TASK = Task(name="text", make=make, check=same_text)


def fact(rng: Draws) -> tuple[str, str]:
    """A word, and the word in small letters, with a capital, in capitals, and its first letter."""
    word = rng.choice((values.first_name, values.product, values.noun, values.city, _month, _written))(rng)
    word = word if rng.random() < 0.8 else word.swapcase()[0] + word[1:]
    return word, f"{word}: {word.lower()}, {word.capitalize()}, {word.upper()}, {word[0]}"


def _month(rng: Draws) -> str:
    return rng.choice(values.MONTHS)


def _written(rng: Draws) -> str:
    """A word of a sentence's frame."""
    return rng.choice([word for word in " ".join(_SENTENCES).split() if word.isalpha()])


def _sentence(rng: Draws) -> str:
    parts: dict[str, str | int] = {
        "person": values.first_name(rng),
        "friend": values.first_name(rng),
        "product": values.product(rng),
        "other": values.noun(rng),
        "noun": values.noun(rng),
        "city": values.city(rng),
        "date": values.long_date(rng),
        "n": rng.randint(1, 999),
        "m": rng.randint(1, 99),
    }
    return rng.choice(_SENTENCES).format(**parts)


def _upper(rng: Draws, words: list[str]) -> Transform:
    return "Write in uppercase", " ".join(words).upper()


def _lower(rng: Draws, words: list[str]) -> Transform:
    return "Write in lowercase", " ".join(words).lower()


def _title(rng: Draws, words: list[str]) -> Transform:
    return "Write in title case", " ".join(word.capitalize() for word in words)


def _reverse(rng: Draws, words: list[str]) -> Transform:
    return "Reverse the order of the words", " ".join(reversed(words))


def _join(rng: Draws, words: list[str]) -> Transform:
    separator = rng.choice("-_/+|")
    return f"Join the words with '{separator}'", separator.join(words)


def _replace(rng: Draws, words: list[str]) -> Transform:
    old, new = rng.choice(words), rng.choice((values.noun, values.first_name, values.city))(rng)
    return f"Replace '{old}' with '{new}'", " ".join(new if word == old else word for word in words)


def _numbers(rng: Draws, words: list[str]) -> Transform:
    return "Extract all numbers", ", ".join(word for word in words if word.isdigit()) or "none"


def _count(rng: Draws, words: list[str]) -> Transform:
    """The words numbered one by one, because a count without its steps is a guess for a small model."""
    return "Number the words and count them", "\n".join(
        [*(f"{number} {word}" for number, word in enumerate(words, 1)), f"{len(words)} words"]
    )


def _initials(rng: Draws, words: list[str]) -> Transform:
    return "Give the first letter of each word", " ".join(word[0] for word in words)


_TRANSFORMS: tuple[Callable[[Draws, list[str]], Transform], ...] = (
    _upper,
    _lower,
    _title,
    _reverse,
    _join,
    _replace,
    _numbers,
    _count,
    _initials,
)
