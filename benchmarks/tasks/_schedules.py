"""Schedules of two to four steps, written from a seed: hours of a day and days of a week.

A schedule is a story about one running moment: when it starts, what moves it on, what is asked in the end.
"""

from __future__ import annotations

import random
from dataclasses import dataclass, field

from divcon.benchmarks.tasks._names import NAMES
from divcon.programs import Item

DAYS = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")
_LATEST = 23  # o'clock
_PLACES = ["museum", "harbour", "library", "market", "castle", "garden", "theatre", "studio", "clinic", "workshop"]
_RIDES = ["train ride", "bus ride", "drive", "flight", "boat trip", "walk", "bicycle tour", "ferry crossing"]
_PARTS = ["talks", "lessons", "meetings", "tours", "tests", "shifts", "rehearsals", "visits"]
_STAGES = ["stages", "rounds", "parts", "phases", "turns", "steps"]
_COURSES = ["course", "trip", "exhibition", "tournament", "repair", "survey", "camp", "fair", "festival", "training"]
_LATER = [
    ("exam", "the exam"), ("delivery", "the delivery"), ("party", "the party"), ("interview", "the interview"),
    ("concert", "the concert"), ("inspection", "the inspection"), ("dinner", "the dinner"), ("match", "the match"),
]  # fmt: skip
_CLOSING = ["last bus", "last train", "night ferry", "evening show", "late flight", "final tram"]


@dataclass
class _Schedule:
    rng: random.Random
    person: str
    moment: int = 0
    sentences: list[str] = field(default_factory=list)
    steps: list[tuple[str, str]] = field(default_factory=list)  # subquestion, working
    facts: list[str] = field(default_factory=list)

    def say(self, *wordings: str) -> None:
        self.sentences.append(self.rng.choice(wordings))

    def several(self, unit: str, what: list[str], most: int) -> tuple[int, str, str]:
        """A step: how long a few equal parts take; the total, and the parts as they are named."""
        count = self.rng.randint(2, 4)
        each = self.rng.randint(2, max(2, most // count))
        parts = self.rng.choice(what)
        self.say(
            f"Then there are {count} {parts} of {each} {unit} each.",
            f"After that come {count} {parts}, and each takes {each} {unit}.",
        )
        self.facts.append(f"How many {parts} are there?")
        ask = f"How many {unit} do {count} {parts} of {each} {unit} take?"
        self.steps.append((ask, f"{count} * {each} = {count * each}"))
        return count * each, parts, f"{count} {parts}"


def _clock(s: _Schedule, wanted: int) -> tuple[str, str] | None:
    rng = s.rng
    start, hours = rng.randint(5, 12), rng.randint(2, 6)
    place, ride = rng.choice(_PLACES), rng.choice(_RIDES)
    if rng.random() < 0.3:
        if hours >= start:
            return None  # that would be the day before
        s.say(
            f"{s.person} has to be at the {place} at {start}:00 and sets out {hours} hours before.",
            f"{s.person} is expected at the {place} at {start}:00. {s.person} gets up {hours} hours earlier.",
        )
        s.steps.append((f"At what hour is it {hours} hours before {start}:00?", f"{start} - {hours} = {start - hours}"))
        s.moment = start - hours
    else:
        s.say(
            f"{s.person} sets out for the {place} at {start}:00, and the {ride} takes {hours} hours.",
            f"The {ride} to the {place} begins at {start}:00 and lasts {hours} hours for {s.person}.",
            f"The {place} opens at {start}:00. {s.person} comes {hours} hours later.",
        )
        s.steps.append((f"At what hour is it {hours} hours after {start}:00?", f"{start} + {hours} = {start + hours}"))
        s.moment = start + hours
    s.facts.append(f"At what hour does {s.person} set out?")
    asks_rest = rng.random() < 0.4
    while len(s.steps) < wanted - asks_rest:
        if wanted - asks_rest - len(s.steps) >= 2 and rng.random() < 0.6:
            hours, parts, _ = s.several("hours", _PARTS, 6)
            s.steps.append((f"At what hour are the {parts} over?", f"{s.moment} + {hours} = {s.moment + hours}"))
        else:
            hours = rng.randint(1, 5)
            unit = "hours" if hours > 1 else "hour"
            what, over = rng.choice(
                [("waits for", "the wait"), ("rests for", "the rest"), ("works for", "the work"), ("reads for", "it")]
            )
            s.say(f"Then {s.person} {what} {hours} {unit}.", f"After that {s.person} {what} {hours} more {unit}.")
            ask = f"At what hour is {over} over, {hours} {unit} later?"
            s.steps.append((ask, f"{s.moment} + {hours} = {s.moment + hours}"))
        s.moment += hours
    if s.moment > _LATEST - 2:
        return None
    if not asks_rest:
        question = rng.choice(
            [
                f"At what hour is that, for {s.person}?",
                f"What hour does {s.person}'s clock show then?",
                f"At what hour is {s.person} done?",
            ]
        )
        return question, str(s.moment)
    late, what = rng.randint(s.moment + 1, _LATEST), rng.choice(_CLOSING)
    s.say(f"The {what} is at {late}:00.", f"{s.person} wants to catch the {what} at {late}:00.")
    s.facts.append(f"At what hour is the {what}?")
    s.steps.append((f"How many hours are left until {late}:00?", f"{late} - {s.moment} = {late - s.moment}"))
    return f"How many hours does {s.person} have before the {what}?", str(late - s.moment)


def _week(s: _Schedule, wanted: int) -> tuple[str, str] | None:
    rng = s.rng
    start, days = rng.randrange(7), rng.randint(2, 6)
    course = rng.choice(_COURSES)
    s.moment = start

    def move(ask: str, days: int) -> None:
        after = (s.moment + days) % 7
        sign = "+" if days >= 0 else "-"
        s.steps.append((ask, f"{DAYS[s.moment]} {sign} {abs(days)} days = {DAYS[after]}"))
        s.moment = after

    if rng.random() < 0.3:
        s.say(
            f"{s.person}'s {course} ends on a {DAYS[start]}. It began {days} days before.",
            f"On {DAYS[start]} {s.person}'s {course} is over, {days} days after its first day.",
        )
        move(f"Which day is {days} days before {DAYS[start]}?", -days)
        s.say(f"{s.person} counts on from that first day.", f"The rest is planned from the day the {course} began.")
    else:
        s.say(
            f"{s.person}'s {course} begins on {DAYS[start]} and the first report is due {days} days later.",
            f"On {DAYS[start]} {s.person} starts a {course}. A first review follows {days} days after that.",
            f"{s.person} orders tickets for a {course} on {DAYS[start]}, and they come {days} days later.",
        )
        move(f"Which day is {days} days after {DAYS[start]}?", days)
    s.facts.append(f"On which day does {s.person}'s {course} begin?")
    last = ""
    while len(s.steps) < wanted:
        if wanted - len(s.steps) >= 2 and rng.random() < 0.5:
            days, parts, _ = s.several("days", _STAGES, 9)
            move(f"Which day is it after the {parts}?", days)
            last = f"the last of the {parts} is over"
        else:
            days = rng.randint(2, 6)
            event, named = rng.choice([one for one in _LATER if one[1] != last])
            s.say(f"The {event} is {days} days after that.", f"Then it takes {days} days until {named}.")
            move(f"Which day is {named}, {days} days later?", days)
            last = named
    asked = f"On which day is {last}?" if last.startswith("the ") and "over" not in last else None
    return asked or rng.choice(["On which day is that?", f"Which day is it for {s.person} then?"]), DAYS[s.moment]


def schedule(rng: random.Random, identity: str) -> Item:
    """One schedule of 2, 3 or 4 steps.

    Args:
        rng: The source of every choice.
        identity: The item's id.
    """
    wanted = rng.choices([2, 3, 4], weights=[35, 40, 25])[0]
    while True:
        story = _Schedule(rng, rng.choice(NAMES))
        found = rng.choice((_clock, _week))(story, wanted)
        if found and len({ask for ask, _ in story.steps}) == len(story.steps) == wanted:
            break
    question, answer = found
    hours = f"{int(answer) % 12 or 12}" if answer.isdigit() else ""
    half = ("am" if int(answer) < 12 else "pm") if hours else ""
    asks_clock = bool(hours) and not question.startswith("How many")
    return Item(
        id=identity,
        question=" ".join([*story.sentences, question]),
        answer=answer,
        aliases=(f"{answer}:00", f"{hours} {half}", f"{hours}:00 {half}", f"{hours}{half}") if asks_clock else (),
        subquestions=tuple(ask for ask, _ in story.steps),
        sub_answers=tuple(working for _, working in story.steps),
        facts=tuple(story.facts),
        family="schedules",
    )
