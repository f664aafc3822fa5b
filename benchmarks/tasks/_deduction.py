"""Logical deductions of two to four steps, written from a seed: an elimination, then what follows from it.

The question says who is ruled out of three, the passage what follows from each way it could have been. One chain of
conclusions applies; the others are there to be told apart, so that a guess is right one time in three.
"""

from __future__ import annotations

import random

from divcon.benchmarks.tasks._names import NAMES
from divcon.programs import Item

_DEEDS = (  # what one of the three did, and the same negated
    ("has the key", "doesn't have it"), ("won the race", "didn't win it"), ("wrote the letter", "didn't write it"),
    ("baked the cake", "didn't bake it"), ("found the coin", "didn't find it"), ("broke the vase", "didn't break it"),
    ("has the map", "doesn't have it"), ("rang the bell", "didn't ring it"), ("sang the song", "didn't sing it"),
    ("fed the horse", "didn't feed it"),
)  # fmt: skip
# what follows: name, statement, values, question
_CONCLUSIONS = (
    ("flag", "the flag is {v}", "red blue green yellow white black brown grey purple",
     "Which colour is the flag{then}?"),
    ("prize", "the prize is in the {v}", "kitchen cellar attic garden hall study library garage stable tower",
     "In which room is the prize{then}?"),
    ("sign", "the sign shows a {v}", "fox bear swan wolf hare crow deer seal lynx",
     "Which animal does the sign show{then}?"),
    ("gift", "the gift is a {v}", "plum pear cherry lemon grape melon peach quince fig",
     "Which fruit is the gift{then}?"),
    ("medal", "the medal is of {v}", "iron copper silver gold tin zinc lead nickel bronze steel",
     "Of which metal is the medal{then}?"),
    ("stamp", "the stamp is a {v}", "circle square triangle star cross ring heart moon spiral",
     "Which shape is the stamp{then}?"),
)  # fmt: skip


def deduction(rng: random.Random, identity: str) -> Item:
    """One deduction of 2, 3 or 4 steps with its passage.

    Args:
        rng: The source of every choice.
        identity: The item's id.
    """
    links = rng.choices([1, 2, 3], weights=[35, 40, 25])[0]
    people = rng.sample(NAMES, 3)
    did, not_did = rng.choice(_DEEDS)
    who, *others = rng.sample(people, 3)
    one_of = (
        f"One of {people[0]}, {people[1]} and {people[2]} {did}.",
        f"Either {people[0]}, {people[1]} or {people[2]} {did}.",
    )
    ruled_out = (f"It is neither {others[0]} nor {others[1]}.", f"{others[0]} {not_did}. {others[1]} {not_did} either.")
    told = [rng.choice(one_of), rng.choice(ruled_out)]
    subquestions, answers = [f"Who {did}, if not {others[0]} and not {others[1]}?"], [who]
    before = {person: f"it is {person}" for person in people}  # the cases, and how a rule speaks of each
    case = who
    rules: list[str] = []
    asked = ""
    for name, statement, values, question in rng.sample(_CONCLUSIONS, links):
        drawn = rng.sample(values.split(), 3)
        after = dict(zip(before, drawn, strict=True))
        rules += [f"If {before[old]}, {statement.format(v=new)}." for old, new in after.items()]
        case = after[case]
        before = {new: statement.format(v=new) for new in drawn}
        subquestions.append(question.format(then=" then"))
        answers.append(case)
        asked = question.format(then="")
        last = name
    rng.shuffle(rules)
    return Item(
        id=identity,
        question=" ".join([*told, asked]),
        context=" ".join(rules),
        answer=case,
        subquestions=tuple(subquestions),
        sub_answers=tuple(answers),
        facts=(f"Is {others[0]} one of the three?", f"What could the {last} be?"),
        family="deduction",
    )
