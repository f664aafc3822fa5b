"""Word problems of two to four steps, written from a seed: the arithmetic family of the offline task.

A problem is a story about one running amount: how it starts, what happens to it, what is asked in the end. Each part
has several wordings, and sentences that play no role are mixed in, so that a model has to plan.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass, field

from divcon.benchmarks.tasks._names import NAMES
from divcon.programs import Item

_THINGS = [
    "marbles",
    "apples",
    "pencils",
    "stickers",
    "cards",
    "coins",
    "shells",
    "buttons",
    "beads",
    "books",
    "stamps",
    "cookies",
    "muffins",
    "oranges",
    "pears",
    "lemons",
    "candles",
    "ribbons",
    "crayons",
    "blocks",
    "kites",
    "tickets",
    "photos",
    "plums",
    "seeds",
    "bulbs",
    "tiles",
    "cups",
    "spoons",
    "bottles",
]
_HOLDERS = ["bags", "boxes", "packs", "jars", "crates", "trays", "baskets", "sacks"]
_PLACES = ["market", "school", "park", "library", "museum", "station", "harbour", "beach"]
# The family tests planning, not arithmetic: amounts stay below a hundred, and sums and differences of two-digit
# numbers need no carry, which a model of 135 million parameters gets wrong too often to tell a good plan from a bad.
_LARGEST = 96


def _to_add(rng: random.Random, amount: int, low: int, high: int) -> int | None:
    """A number to add to `amount` without a carry, or None."""
    fits = [c for c in range(low, high + 1) if amount + c <= _LARGEST and (amount % 10 + c % 10 < 10)]
    return rng.choice(fits) if fits else None


def _to_take(rng: random.Random, amount: int, low: int, high: int) -> int | None:
    """A number to take from `amount`, leaving at least two, without borrowing; or None."""
    fits = [c for c in range(low, min(high, amount - 2) + 1) if amount <= 12 or c % 10 <= amount % 10]
    return rng.choice(fits) if fits else None


@dataclass
class _Story:
    rng: random.Random
    person: str
    other: str
    thing: str
    amount: int = 0
    sentences: list[str] = field(default_factory=list)
    steps: list[tuple[str, str, int]] = field(default_factory=list)  # subquestion, working, result
    facts: list[str] = field(default_factory=list)

    def step(self, subquestion: str, working: str, result: int) -> None:
        self.steps.append((subquestion, f"{working} = {result}", result))
        self.amount = result

    def say(self, *wordings: str) -> None:
        self.sentences.append(self.rng.choice(wordings))


def _start_packs(s: _Story) -> None:
    a, b = s.rng.randint(2, 9), s.rng.randint(2, 9)
    holder = s.rng.choice(_HOLDERS)
    s.say(
        f"{s.person} buys {a} {holder} of {s.thing} with {b} {s.thing} in each.",
        f"{s.person} has {a} {holder}, and each holds {b} {s.thing}.",
        f"There are {b} {s.thing} in each of the {a} {holder} that {s.person} carries.",
    )
    s.facts += [f"How many {holder} does {s.person} have?", f"How many {s.thing} does one of the {holder} hold?"]
    s.step(f"How many {s.thing} are in {a} {holder} of {b}?", f"{a} * {b}", a * b)


def _start_daily(s: _Story) -> None:
    a, b = s.rng.randint(2, 9), s.rng.randint(2, 9)
    unit = s.rng.choice(["day", "week"])
    s.say(
        f"{s.person} collects {a} {s.thing} every {unit} for {b} {unit}s.",
        f"Every {unit} {s.person} gets {a} {s.thing}, and this goes on for {b} {unit}s.",
        f"For {b} {unit}s, {s.person} makes {a} {s.thing} a {unit}.",
    )
    s.facts += [f"How many {unit}s does it go on?", f"How many {s.thing} does {s.person} get in one {unit}?"]
    s.step(f"How many {s.thing} are {a} a {unit} for {b} {unit}s?", f"{a} * {b}", a * b)


def _start_two_kinds(s: _Story) -> None:
    a = s.rng.randint(6, 40)
    b = _to_add(s.rng, a, 6, 40) or 10
    one, two = s.rng.sample(["red", "blue", "green", "large", "small", "old", "new", "plain"], 2)
    s.say(
        f"{s.person} has {a} {one} {s.thing} and {b} {two} ones.",
        f"{s.person} owns {a} {one} {s.thing}. There are also {b} {two} ones at home.",
        f"In the morning {s.person} counts {a} {one} {s.thing} and {b} {two} {s.thing}.",
    )
    s.facts += [f"How many {one} {s.thing} are there?", f"How many {two} {s.thing} are there?"]
    s.step(f"How many {s.thing} are {a} {one} and {b} {two} ones together?", f"{a} + {b}", a + b)


def _start_more_than(s: _Story) -> None:
    a = s.rng.randint(8, 40)
    b = _to_add(s.rng, a, 3, 30) or 10
    s.say(
        f"{s.other} has {a} {s.thing}, and {s.person} has {b} more than {s.other}.",
        f"{s.person} has {b} more {s.thing} than {s.other}, who has {a}.",
        f"{s.other} owns {a} {s.thing}. {s.person} owns {b} more.",
    )
    s.facts += [f"How many {s.thing} does {s.other} have?"]
    s.step(f"How many {s.thing} does {s.person} have with {b} more than {a}?", f"{a} + {b}", a + b)


def _start_fewer_than(s: _Story) -> None:
    a = s.rng.randint(30, 80)
    b = _to_take(s.rng, a, 3, 25) or 10
    s.say(
        f"{s.other} has {a} {s.thing}, and {s.person} has {b} fewer than {s.other}.",
        f"{s.person} has {b} fewer {s.thing} than {s.other}, who has {a}.",
    )
    s.facts += [f"How many {s.thing} does {s.other} have?"]
    s.step(f"How many {s.thing} does {s.person} have with {b} fewer than {a}?", f"{a} - {b}", a - b)


def _start_times(s: _Story) -> None:
    a, b = s.rng.randint(3, 12), s.rng.randint(2, 5)
    s.say(
        f"{s.other} has {a} {s.thing}, and {s.person} has {b} times as many.",
        f"{s.person} has {b} times as many {s.thing} as {s.other}, who has {a}.",
    )
    s.facts += [f"How many {s.thing} does {s.other} have?"]
    s.step(f"How many {s.thing} does {s.person} have with {b} times {a}?", f"{a} * {b}", a * b)


def _middle_give(s: _Story) -> bool:
    c = _to_take(s.rng, s.amount, 2, 40)
    if c is None:
        return False
    to = s.rng.choice(["a friend", "a neighbour", "a cousin", s.other])
    s.say(
        f"{s.person} gives {c} of them to {to}.",
        f"Then {c} of them go to {to}.",
        f"On the way home {s.person} loses {c} of them.",
    )
    s.step(f"How many {s.thing} are left without {c}?", f"{s.amount} - {c}", s.amount - c)
    return True


def _middle_gain(s: _Story) -> bool:
    c = _to_add(s.rng, s.amount, 3, 30)
    if c is None:
        return False
    s.say(
        f"Later {s.person} finds {c} more.",
        f"At the {s.rng.choice(_PLACES)} {s.person} gets another {c}.",
        f"A friend brings {c} more {s.thing}.",
    )
    s.step(f"How many {s.thing} are there with {c} more?", f"{s.amount} + {c}", s.amount + c)
    return True


def _middle_double(s: _Story) -> bool:
    if s.amount * 2 > _LARGEST:
        return False
    s.say(f"Then the number of {s.thing} doubles.", f"After a month {s.person} has twice as many.")
    s.step(f"How many {s.thing} are twice as many?", f"{s.amount} * 2", s.amount * 2)
    return True


def _middle_halve(s: _Story) -> bool:
    if s.amount % 2 or s.amount < 6:
        return False
    s.say(f"{s.person} sells half of them.", f"Half of the {s.thing} get wet and are thrown away.")
    s.step(f"How many {s.thing} is half of them?", f"{s.amount} / 2", s.amount // 2)
    return True


def _end_now(s: _Story) -> str | None:
    return s.rng.choice(
        [
            f"How many {s.thing} does {s.person} have now?",
            f"How many {s.thing} does {s.person} have in the end?",
            f"What is the number of {s.thing} that {s.person} has now?",
        ]
    )


def _end_share(s: _Story) -> str | None:
    shares = [k for k in range(2, 10) if s.amount % k == 0 and s.amount // k >= 2]
    if not shares:
        return None
    k = s.rng.choice(shares)
    who = s.rng.choice(["children", "friends", "shelves", "guests", "bowls"])
    s.say(f"The {s.thing} are shared equally among {k} {who}.", f"Now {s.person} splits them evenly over {k} {who}.")
    s.step(f"How many {s.thing} are a share for each of {k}?", f"{s.amount} / {k}", s.amount // k)
    return f"How many {s.thing} are there for each of the {who}?"


def _end_need(s: _Story) -> str | None:
    missing = _to_add(s.rng, s.amount, 3, 60)
    if missing is None:
        return None
    target = s.amount + missing
    s.say(f"{s.person} needs {target} {s.thing} in all.", f"The plan is to have {target} {s.thing}.")
    s.facts.append(f"How many {s.thing} are needed in all?")
    s.step(f"How many {s.thing} are missing up to {target}?", f"{target} - {s.amount}", target - s.amount)
    return f"How many more {s.thing} does {s.person} need?"


def _end_price(s: _Story) -> str | None:
    price = s.rng.randint(2, 5)
    if s.amount > 24:
        return None
    s.say(f"Each of them sells for {price} dollars.", f"A buyer pays {price} dollars for every one of them.")
    s.facts.append(f"How many dollars does one of the {s.thing} bring?")
    s.step(f"How many dollars do they bring at {price} each?", f"{s.amount} * {price}", s.amount * price)
    return f"How many dollars does {s.person} get for the {s.thing}?"


_STARTS: tuple[Callable[[_Story], None], ...] = (
    _start_packs, _start_daily, _start_two_kinds, _start_more_than, _start_fewer_than, _start_times,
)  # fmt: skip
_MIDDLES = (_middle_give, _middle_gain, _middle_double, _middle_halve)
_ENDS = (_end_now, _end_share, _end_need, _end_price)


def word_problem(rng: random.Random, identity: str) -> Item:
    """One problem of 2, 3 or 4 steps.

    Args:
        rng: The source of every choice.
        identity: The item's id.
    """
    wanted = rng.choices([2, 3, 4], weights=[35, 40, 25])[0]
    while True:
        person, other = rng.sample(NAMES, 2)
        story = _Story(rng, person, other, rng.choice(_THINGS))
        rng.choice(_STARTS)(story)
        end = rng.choice(_ENDS)
        last = None
        middles = wanted - 1 - (end is not _end_now)
        for _ in range(middles):
            choices = [middle for middle in _MIDDLES if middle is not last]
            last = rng.choice(choices)
            if not last(story):
                break
        asked = end(story)
        asks = {step[0] for step in story.steps}
        if asked is not None and len(asks) == len(story.steps) == wanted and 0 < story.amount <= _LARGEST + 3:
            break
    if rng.random() < 0.6:
        aside = rng.choice(
            [
                f"{person} is {rng.randint(7, 15)} years old.",
                f"The walk to the {rng.choice(_PLACES)} takes {rng.randint(10, 50)} minutes.",
                f"{other} is {rng.randint(20, 70)} years old and likes to cook.",
                f"It is {rng.choice(['Monday', 'Tuesday', 'Friday', 'Sunday'])}, and the sun is out.",
                f"{person} lives on floor {rng.randint(2, 9)}.",
            ]
        )
        story.sentences.insert(rng.randint(0, len(story.sentences)), aside)
    text = " ".join([*story.sentences, asked])
    return Item(
        id=identity,
        question=text,
        answer=str(story.amount),
        subquestions=tuple(step[0] for step in story.steps),
        sub_answers=tuple(step[1] for step in story.steps),
        facts=tuple(story.facts),
        family="word-problems",
    )
