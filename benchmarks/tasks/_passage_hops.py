"""Questions of two to four hops over a short passage, written from a seed: the reading family of the offline task.

Everything in the passages is invented. Each hop of the question has a sentence in the passage, and about as many
sentences state the same kinds of fact about somebody else.
"""

from __future__ import annotations

import random
from collections.abc import Callable

from divcon.programs import Item

_ONSETS = ["B", "D", "F", "G", "K", "L", "M", "N", "P", "R", "S", "T", "V", "Z", "Br", "Dr", "Kl", "Tr"]
_VOWELS = ["a", "e", "i", "o", "u"]
_MIDDLES = ["l", "m", "n", "r", "s", "t", "v", "d", "k", "b"]
_FIRST = [
    "Alma",
    "Bruno",
    "Celia",
    "Dario",
    "Edda",
    "Felix",
    "Gerda",
    "Henri",
    "Ilka",
    "Jorin",
    "Katla",
    "Loris",
    "Mirek",
    "Nadia",
    "Orin",
    "Petra",
    "Ravi",
    "Selma",
    "Tarek",
    "Ulla",
    "Vito",
    "Wanda",
    "Yusuf",
    "Zita",
]
_PRODUCTS = ["lamp", "clock", "radio", "bicycle", "camera", "kettle", "piano", "engine", "drone", "printer"]
_JOBS = ["painter", "baker", "lawyer", "pilot", "doctor", "farmer", "singer", "judge", "sailor", "chemist"]


def _word(rng: random.Random, ending: str) -> str:
    return rng.choice(_ONSETS) + rng.choice(_VOWELS) + rng.choice(_MIDDLES) + ending


def _company(rng: random.Random) -> str:
    return _word(rng, rng.choice(["ex", "ico", "ano", "ora"]))


def _city(rng: random.Random) -> str:
    return _word(rng, rng.choice(["burg", "ton", "aven", "port"]))


def _country(rng: random.Random) -> str:
    return _word(rng, rng.choice(["ia", "land", "istan"]))


def _person(rng: random.Random) -> str:
    return f"{rng.choice(_FIRST)} {_word(rng, rng.choice(['en', 'er', 'os']))}"


def _product(rng: random.Random) -> str:
    return f"{_word(rng, rng.choice(['o', 'is', 'ax']))} {rng.choice(_PRODUCTS)}"


def _job(rng: random.Random) -> str:
    return rng.choice(_JOBS)


# kind of the subject -> what can be asked of it:
#   (kind of the answer, maker, wordings of the fact, subquestion, how the answer is named inside a longer question)
_Hop = tuple[str, Callable[[random.Random], str], tuple[str, ...], str, str]
_HOPS: dict[str, tuple[_Hop, ...]] = {
    "product": (
        ("company", _company, ("The {s} is made by {o}.", "{o} makes the {s}."),
         "Which company makes the {s}?", "the company that makes the {s}"),
        ("person", _person, ("The {s} was invented by {o}.", "{o} invented the {s}."),
         "Who invented the {s}?", "the inventor of the {s}"),
    ),
    "company": (
        ("person", _person, ("{s} was founded by {o}.", "{o} is the founder of {s}."),
         "Who founded {s}?", "the founder of {s}"),
        ("city", _city, ("{s} has its office in {o}.", "The office of {s} stands in {o}."),
         "In which city is the office of {s}?", "the city where {s} has its office"),
    ),
    "person": (
        ("city", _city, ("{s} was born in {o}.", "The birthplace of {s} is {o}."),
         "In which city was {s} born?", "the city where {s} was born"),
        ("person", _person, ("{s} is married to {o}.", "{s} and {o} are married."),
         "Who is married to {s}?", "the spouse of {s}"),
        ("job", _job, ("{s} works as a {o}.", "By trade {s} is a {o}."),
         "What is the trade of {s}?", "the trade of {s}"),
    ),
    "city": (
        ("country", _country, ("{s} lies in {o}.", "{s} is a city of {o}."),
         "In which country does {s} lie?", "the country where {s} lies"),
        ("person", _person, ("The mayor of {s} is {o}.", "{o} is mayor of {s}."),
         "Who is the mayor of {s}?", "the mayor of {s}"),
    ),
    "country": (
        ("city", _city, ("The capital of {s} is {o}.", "{o} is the capital of {s}."),
         "What is the capital of {s}?", "the capital of {s}"),
    ),
}  # fmt: skip
_MAKERS: dict[str, Callable[[random.Random], str]] = {
    "product": _product,
    "company": _company,
    "person": _person,
    "city": _city,
    "country": _country,
}
_BACK = {
    "company": "that company",
    "person": "that person",
    "city": "that city",
    "country": "that country",
}


def passage_hops(rng: random.Random, identity: str) -> Item:
    """One question of 2, 3 or 4 hops with its passage.

    Args:
        rng: The source of every choice.
        identity: The item's id.
    """
    wanted = rng.choices([2, 3, 4], weights=[35, 40, 25])[0]
    while True:
        kind = rng.choice(["product", "company", "person", "city"])
        chain = _chain(rng, kind, wanted)
        if chain is not None:
            break
    used: set[str] = set()

    def fresh(make: Callable[[random.Random], str]) -> str:
        while (name := make(rng)) in used:
            pass
        if make is not _job:  # two people may share a trade, no two may share a name
            used.add(name)
        return name

    start = fresh(_MAKERS[kind])
    facts, decoys, subquestions, answers = [], [], [], []
    subject, named, back = start, start, start
    asked = ""
    for hop in chain:
        answer_kind, make, wordings, ask, name = hop
        answer = fresh(make)
        facts.append(rng.choice(wordings).format(s=subject, o=answer))
        decoy_subject = fresh(_MAKERS[kind])
        decoys.append(rng.choice(wordings).format(s=decoy_subject, o=fresh(make)))
        subquestions.append(ask.format(s=back))
        asked = ask.format(s=named)
        answers.append(answer)
        subject, named, back = answer, name.format(s=named), _BACK.get(answer_kind, answer)
        kind = answer_kind
    rng.shuffle(decoys)
    sentences = facts + decoys[: rng.randint(2, 4)]
    rng.shuffle(sentences)
    return Item(
        id=identity,
        question=asked.replace("the the ", "the "),
        context=" ".join(sentence[0].upper() + sentence[1:] for sentence in sentences),
        answer=answers[-1],
        subquestions=tuple(subquestions),
        sub_answers=tuple(answers),
        facts=(f"What is known about {start}?", f"Is {start} mentioned in the passage?"),
        family="passage-hops",
    )


def _chain(rng: random.Random, kind: str, length: int) -> list[_Hop] | None:
    chain: list[_Hop] = []
    for position in range(length):
        options = [hop for hop in _HOPS.get(kind, ()) if hop not in chain]
        if position < length - 1:
            options = [hop for hop in options if hop[0] in _HOPS]
        if not options:
            return None
        chain.append(rng.choice(options))
        kind = chain[-1][0]
    return chain
