"""Task `email`: the fields of a letter, in any order, become a formal e-mail of a named template."""

from collections.abc import Callable

from trimode.evaluation.tasks import values
from trimode.evaluation.tasks.base import Draws, Example, Task, ask, same_text

_INSTRUCTIONS = (
    "Write a formal e-mail with the template '{}'.",
    "Compose an e-mail. Template: {}.",
    "Use the {} template to write an e-mail:",
)

Letter = tuple[list[tuple[str, str]], str, str]  # fields of the prompt, subject, text


def make(rng: Draws) -> Example:
    template = rng.choice(list(_TEMPLATES))
    fields, subject, text = _TEMPLATES[template](rng)
    recipient, sender = values.full_name(rng), values.full_name(rng)
    fields = [("To", recipient), ("From", sender), *fields]
    if rng.wide or rng.random() < 0.3:
        rng.shuffle(fields)
    body = "\n".join(f"{key}: {value}" for key, value in fields)
    answer = f"Subject: {subject}\n\nDear {recipient},\n\n{text}\n\nKind regards,\n{sender}"
    return ask("email", rng.choice(_INSTRUCTIONS).format(template), body, answer)


TASK = Task(name="email", make=make, check=same_text)


def _reminder(rng: Draws) -> Letter:
    number, due = str(values.integer(rng)), values.long_date(rng)
    amount = f"{values.decimal(rng):.2f} {rng.choice(('EUR', 'USD', 'GBP', 'CHF'))}"
    text = (
        f"this is a reminder that invoice {number} over {amount} was due on {due}.\n"
        "Please transfer the amount within seven days."
    )
    return [("Invoice", number), ("Amount", amount), ("Due", due)], f"Reminder: invoice {number}", text


def _meeting(rng: Draws) -> Letter:
    topic, place = f"{values.noun(rng)} {values.noun(rng)}", values.city(rng)
    date, time = values.long_date(rng), f"{rng.randint(8, 18)}:{rng.choice(('00', '15', '30', '45'))}"
    text = (
        f"I would like to invite you to a meeting about {topic} on {date} at {time} in {place}.\n"
        "Please let me know if you can attend."
    )
    fields = [("Topic", topic), ("Date", date), ("Time", time), ("Place", place)]
    return fields, f"Meeting about {topic}", text


def _order(rng: Draws) -> Letter:
    number, delivery = str(values.integer(rng)), values.long_date(rng)
    items = [
        f"{rng.randint(1, 99)} x {values.product(rng)}"
        for _ in range(rng.choice((4, 5)) if rng.wide else rng.choice((1, 2, 2, 3)))
    ]
    lines = "\n".join(f"- {item}" for item in items)
    text = f"thank you for your order {number}:\n{lines}\nIt will arrive on {delivery}."
    fields = [("Order", number), ("Items", ", ".join(items)), ("Delivery", delivery)]
    return fields, f"Your order {number}", text


def _welcome(rng: Draws) -> Letter:
    company, start = values.invented_word(rng).capitalize(), values.long_date(rng)
    team, login = values.noun(rng), values.email(rng)
    text = (
        f"welcome to {company}! You will join the {team} team on {start}.\n"
        f"Your login is {login}. We look forward to working with you."
    )
    fields = [("Company", company), ("Team", team), ("Start", start), ("Login", login)]
    return fields, f"Welcome to {company}", text


_TEMPLATES: dict[str, Callable[[Draws], Letter]] = {
    "invoice reminder": _reminder,
    "meeting invitation": _meeting,
    "order confirmation": _order,
    "welcome": _welcome,
}
