"""Random values for prompts: names, dates, numbers, identifiers. All are drawn from the given generator."""

import calendar
import keyword

from trimode.evaluation.tasks import names, words
from trimode.evaluation.tasks.base import Draws

Scalar = int | float | bool | str

_ONSETS = (*"bcdfghklmnprstvwz", "br", "ch", "dr", "gr", "kl", "pl", "sh", "st", "tr")
_VOWELS = (*"aeiou", "ai", "ea", "ou")
_CODAS = ("", "", "", "n", "r", "l", "s", "m", "k", "x")
_INVENTED = 0.3  # the share of names no list holds, which can only be copied; of wide draws all
MONTHS = tuple(calendar.month_name)[1:]


def invented_word(rng: Draws) -> str:
    """A pronounceable word of two or three syllables."""
    syllables = (rng.choice(_ONSETS) + rng.choice(_VOWELS) for _ in range(rng.randint(2, 3)))
    word = "".join(syllables) + rng.choice(_CODAS)
    return word + "a" if keyword.iskeyword(word) else word


def known_or_invented(rng: Draws, known: tuple[str, ...]) -> str:
    """A word of the list, or now and then an invented one in the same case."""
    if not rng.wide and rng.random() >= _INVENTED:
        return rng.choice(known)
    word = invented_word(rng)
    return word.capitalize() if known[0][0].isupper() else word


def first_name(rng: Draws) -> str:
    return known_or_invented(rng, names.FIRST_NAMES)


def full_name(rng: Draws) -> str:
    return f"{first_name(rng)} {known_or_invented(rng, names.SURNAMES)}"


def city(rng: Draws) -> str:
    return known_or_invented(rng, words.CITIES)


def product(rng: Draws) -> str:
    return known_or_invented(rng, words.PRODUCTS)


def noun(rng: Draws) -> str:
    return known_or_invented(rng, words.NOUNS)


def integer(rng: Draws) -> int:
    """An integer of one to five digits, every length equally likely; of a wide draw, of six."""
    n_digits = 6 if rng.wide else rng.randint(1, 5)
    return rng.randrange(10 ** (n_digits - 1), 10**n_digits)


def decimal(rng: Draws) -> float:
    """A number of up to four digits before the point and one or two after it."""
    return round(rng.uniform(0, 10 ** rng.randint(1, 4)), rng.randint(1, 2))


def iso_date(rng: Draws) -> str:
    return f"{rng.randint(1980, 2030)}-{rng.randint(1, 12):02d}-{rng.randint(1, 28):02d}"


def long_date(rng: Draws) -> str:
    return f"{rng.randint(1, 28)} {rng.choice(MONTHS)} {rng.randint(2015, 2030)}"


def email(rng: Draws) -> str:
    domain = f"{noun(rng)}.{rng.choice(('com', 'org', 'net', 'de', 'io'))}"
    return f"{first_name(rng).lower()}@{domain}"


def identifier(rng: Draws) -> str:
    """A lower case Python name."""
    return rng.choice((noun, noun, invented_word))(rng)


def distinct(rng: Draws, n: int, taken: frozenset[str] = frozenset()) -> list[str]:
    """`n` different identifiers, none of them taken."""
    found: list[str] = []
    while len(found) < n:
        name = identifier(rng)
        if name not in taken and name not in found:
            found.append(name)
    return found


def text_value(rng: Draws, kind: str) -> str:
    """A string of a kind named in words.TEXT_FIELDS."""
    makers = {
        "person": full_name,
        "city": city,
        "product": product,
        "date": iso_date,
        "email": email,
        "word": noun,
    }
    return makers[kind](rng)


def typed_field(rng: Draws) -> tuple[str, str]:
    """A field name and the kind of its values: `int`, `float`, `bool`, or a kind of text."""
    group = rng.choices(("text", "int", "float", "bool", "free"), (8, 4, 3, 2, 2))[0]
    if group == "text":
        return rng.choice(list(words.TEXT_FIELDS.items()))
    if group == "free":  # the model cannot know the name, so the value alone tells the type
        return identifier(rng), rng.choice(("word", "int", "float"))
    known = {"int": words.INT_FIELDS, "float": words.FLOAT_FIELDS, "bool": words.BOOL_FIELDS}
    return rng.choice(known[group]), group


def typed_value(rng: Draws, kind: str) -> Scalar:
    """A value of the kind."""
    if kind == "int":
        return integer(rng)
    if kind == "float":
        return decimal(rng)
    if kind == "bool":
        return rng.random() < 0.5
    return text_value(rng, kind)


def typed_fields(rng: Draws, n: int) -> list[tuple[str, str]]:
    """`n` fields of different names."""
    found: dict[str, str] = {}
    while len(found) < n:
        name, kind = typed_field(rng)
        found.setdefault(name, kind)
    return list(found.items())


def spelled(value: Scalar) -> str:
    """The value as a prompt writes it: lower case booleans, plain strings."""
    return str(value).lower() if isinstance(value, bool) else str(value)
