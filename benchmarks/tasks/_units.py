"""Unit conversions of two to four steps, written from a seed: an amount in one unit, changed in another."""

from __future__ import annotations

import random
from dataclasses import dataclass, field

from divcon.benchmarks.tasks._names import NAMES, fitting
from divcon.programs import Item


@dataclass(frozen=True)
class _Measure:
    """A pair of units and what is measured in them.

    Attributes:
        big: The larger unit, plural.
        small: The smaller one, plural; `factor` of them are one larger.
        things: What has such an amount.
        holders: What such amounts come in.
        less: How some of it goes.
        more: How some is added.
    """

    big: str
    small: str
    factor: int
    things: tuple[str, ...]
    holders: tuple[str, ...]
    less: tuple[str, ...]
    more: tuple[str, ...]


_MEASURES = (
    _Measure("metres", "centimetres", 100, ("rope", "ribbon", "cable", "fence"), ("rolls", "coils"),
             ("is cut off", "is worn away"), ("is sewn on", "is tied to it")),
    _Measure("feet", "inches", 12, ("board", "pipe", "shelf", "beam"), ("planks", "poles"),
             ("is sawn off", "is trimmed away"), ("is glued on", "is joined to it")),
    _Measure("kilograms", "grams", 1000, ("flour", "rice", "sand", "sugar"), ("sacks", "packets"),
             ("is used up", "is spilled"), ("is poured in", "is bought")),
    _Measure("litres", "millilitres", 1000, ("juice", "paint", "oil", "milk"), ("cans", "bottles"),
             ("is drunk or lost", "leaks out"), ("is filled in", "is added")),
    _Measure("hours", "minutes", 60, ("film", "lesson", "record", "show"), ("sessions", "tapes"),
             ("is left out", "is skipped"), ("is added at the end", "is put in")),
    _Measure("minutes", "seconds", 60, ("song", "race", "speech", "signal"), ("rounds", "takes"),
             ("is cut", "is saved"), ("is added", "is lost to a pause")),
    _Measure("weeks", "days", 7, ("holiday", "voyage", "diet", "course"), ("blocks", "terms"),
             ("is called off", "is lost"), ("is put on top", "is added")),
    _Measure("dollars", "cents", 100, ("budget", "prize", "saving", "fee"), ("jars", "envelopes"),
             ("is spent", "is given away"), ("is put in", "is earned")),
    _Measure("dozens", "pieces", 12, ("eggs", "rolls", "screws", "roses"), ("cartons", "trays"),
             ("is sold", "is broken"), ("is found", "is delivered")),
    _Measure("years", "months", 12, ("lease", "loan", "project", "voyage"), ("periods", "terms"),
             ("is cut short", "is waived"), ("is added", "is granted on top")),
)  # fmt: skip
_LARGEST = 9999


@dataclass
class _Amount:
    rng: random.Random
    person: str
    measure: _Measure
    thing: str
    amount: int = 0  # in the unit that is spoken of now
    changed: bool = False
    sentences: list[str] = field(default_factory=list)
    steps: list[tuple[str, str]] = field(default_factory=list)  # subquestion, working
    facts: list[str] = field(default_factory=list)

    def say(self, *wordings: str) -> None:
        self.sentences.append(self.rng.choice(wordings))

    def step(self, ask: str, working: str, result: int) -> None:
        self.steps.append((ask, f"{working} = {result}"))
        self.amount = result


def _start(a: _Amount, room: int) -> None:
    m, rng = a.measure, a.rng
    if room >= 2 and rng.random() < 0.45:
        count, each, holder = rng.randint(2, 4), rng.randint(2, 3), rng.choice(m.holders)
        a.say(
            f"{a.person} has {count} {holder} for the {a.thing}, each with {each} {m.big}.",
            f"For the {a.thing} {a.person} gets {count} {holder} of {each} {m.big} each.",
        )
        a.facts.append(f"How many {holder} does {a.person} have?")
        a.step(f"How many {m.big} are {count} {holder} of {each}?", f"{count} * {each}", count * each)
        a.step(f"How many {m.small} is that?", f"{a.amount} * {m.factor}", a.amount * m.factor)
    else:
        big = rng.randint(2, 9)
        a.say(
            f"{a.person} measures {big} {m.big} of {a.thing}.",
            f"For the {a.thing} {a.person} counts on {big} {m.big}.",
            f"{a.person}'s {a.thing} comes to {big} {m.big}.",
        )
        a.facts.append(f"How many {m.big} are there at first?")
        a.step(f"How many {m.small} are {big} {m.big}?", f"{big} * {m.factor}", big * m.factor)


def _change(a: _Amount) -> bool:
    m, rng = a.measure, a.rng
    unit = 10 if m.factor >= 100 else 1
    sizes = [unit * k for k in range(2, 10)] + ([100 * k for k in range(1, 6)] if m.factor == 1000 else [])
    if rng.random() < 0.5:
        change = fitting(rng, a.amount, [-size for size in sizes if size < a.amount - 1] or [-1])
        if change is None:
            return False
        how = rng.choice(m.less)
        a.say(f"An amount of {-change} {m.small} {how}.", f"Then {-change} {m.small} of it {_plural(how)}.")
        a.step(f"How many {m.small} are left without {-change}?", f"{a.amount} - {-change}", a.amount + change)
    else:
        change = fitting(rng, a.amount, sizes)
        if change is None:
            return False
        how = rng.choice(m.more)
        a.say(f"An amount of {change} {m.small} {how}.", f"Then {change} {m.small} more {_plural(how)}.")
        a.step(f"How many {m.small} are there with {change} more?", f"{a.amount} + {change}", a.amount + change)
    a.changed = True
    return True


def _plural(how: str) -> str:
    return "leak out" if how == "leaks out" else how.replace("is ", "are ", 1)


def _share(a: _Amount) -> str | None:
    m, rng = a.measure, a.rng
    parts = [n for n in (2, 3, 4, 5, 6, 10) if a.amount % n == 0 and all(c in "0" for c in str(a.amount // n)[2:])]
    if not parts:
        return None
    count = rng.choice(parts)
    who = rng.choice(["parts", "groups", "helpers", "days of work", "rooms"])
    a.say(f"All of it is divided evenly over {count} {who}.", f"{a.person} spreads it evenly over {count} {who}.")
    a.facts.append(f"Over how many {who} is it divided?")
    a.step(f"How many {m.small} are one of {count} equal shares?", f"{a.amount} / {count}", a.amount // count)
    return f"How many {m.small} is that for one of the {who}?"


def _back(a: _Amount) -> str | None:
    m = a.measure
    if not a.changed or a.amount % m.factor or a.amount // m.factor > 40:
        return None
    a.step(f"How many {m.big} are they?", f"{a.amount} / {m.factor}", a.amount // m.factor)
    return f"How many {m.big} does {a.person} have in the end?"


def _plain(a: _Amount) -> str | None:
    m = a.measure
    return a.rng.choice(
        [f"How many {m.small} of {a.thing} are there now?", f"How many {m.small} is that in the end for {a.person}?"]
    )


def unit_conversion(rng: random.Random, identity: str) -> Item:
    """One conversion of 2, 3 or 4 steps.

    Args:
        rng: The source of every choice.
        identity: The item's id.
    """
    wanted = rng.choices([2, 3, 4], weights=[35, 40, 25])[0]
    while True:
        measure = rng.choice(_MEASURES)
        amount = _Amount(rng, rng.choice(NAMES), measure, rng.choice(measure.things))
        end = rng.choice([_plain, _plain, _share, _back])
        _start(amount, wanted - (end is not _plain))
        fits = True
        while fits and len(amount.steps) < wanted - (end is not _plain):
            fits = _change(amount)
        question = end(amount) if fits else None
        asks = {ask for ask, _ in amount.steps}
        if question and len(asks) == len(amount.steps) == wanted and 0 < amount.amount <= _LARGEST:
            break
    return Item(
        id=identity,
        question=" ".join([*amount.sentences, question]),
        answer=str(amount.amount),
        subquestions=tuple(ask for ask, _ in amount.steps),
        sub_answers=tuple(working for _, working in amount.steps),
        facts=tuple(amount.facts),
        family="unit-conversion",
    )
