"""Secrets: what this process knows of keys and passwords, and how texts that came from outside are masked of them.

A server may echo the key that it was sent. So its replies and errors are masked where they arrive, and once more where
texts are stored or shown. Masking lives in the lowest package because errors are masked when they are made.
"""

from __future__ import annotations

import base64
import json
import os
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from html.entities import html5
from typing import Any
from urllib.parse import parse_qsl, unquote

MASK = "[masked]"

_NAMES = re.compile(r"(?i)(^|[-_])((api)?key|token|secret|password|passwd|authorization)$")
_USER_AND_PASSWORD = re.compile(r"[a-zA-Z][\w+.-]*://([^\s/?#\"']+)@")
_QUERY = re.compile(r"[a-zA-Z][\w+.-]*://[^\s?#\"']+\?([^\s#\"']+)")
_LEAST = 6  # characters of a secret
_LONGEST_WORD = 11  # letters of a value that may be an ordinary word
_LONGEST_GIVEN = 7  # the same of a value that is certainly meant as a secret
_LONGEST_NUMBER = 15  # digits of a value that may be an ordinary number

_LEAST_PART = 8  # characters of a cut secret that are masked
_CUT = re.compile(r"(\.{3}|…)")  # how a message shows that it was cut

_given: set[str] = set()
_variables: set[str] = set()


def names_a_secret(name: str) -> bool:
    """Whether a variable, a setting or an HTTP header of this name holds a secret.

    Examples:
        >>> [names_a_secret(name) for name in ("OPENAI_API_KEY", "x-api-key", "HF_TOKEN", "max_tokens")]
        [True, True, True, False]
    """
    return _NAMES.search(name) is not None


def learn_secret(value: str | None) -> None:
    """Mask a value from now on, unless it is so short that it stands in ordinary texts."""
    value = (value or "").strip()
    if not _is_ordinary(value, _LONGEST_GIVEN):
        _given.add(value)


def learn_variable(name: str | None) -> None:
    """Mask what a variable of the environment holds, whatever its name."""
    if name:
        _variables.add(name)


def learn_addresses(text: str) -> None:
    """Mask the passwords in a text's addresses: of `http://user:password@host`, and of `http://host?api_key=secret`."""
    _given.update(_in_addresses(text))


def learn_settings(settings: Mapping[str, Any]) -> None:
    """Mask the secrets in the settings of an LM or a client: its key, its headers, the password of its address."""
    for name, value in settings.items():
        if isinstance(value, Mapping):
            learn_settings(value)
        elif isinstance(value, str):
            learn_addresses(value)
            if names_a_secret(name):
                learn_secret(value.rpartition(" ")[2])  # without the scheme of a header, such as `Bearer`


def masked(text: str) -> str:
    """The text without the secrets that this process knows, in any form that a server or a library writes them in.

    Examples:
        >>> learn_secret("sk-1234&5678")
        >>> masked("the key sk-1234&5678 is wrong, see /login?key=sk-1234%265678")
        'the key [masked] is wrong, see /login?key=[masked]'
    """
    return _without(_forms(_known()), text)


def masked_values(value: Any) -> Any:
    """A JSON-ready value with every text in it masked, the names of its keys too."""
    return _without(_forms(_known()), value)


def masked_json(text: str) -> str:
    """JSON text with every text in it masked. Without a secret in it, it stays as it is, byte by byte."""
    return text if masked(text) == text else json.dumps(masked_values(json.loads(text)))


def mask_error(error: BaseException) -> None:
    """Mask the texts of an error and of its causes. It is done in place: who catches an error goes by its class."""
    forms = _forms(_known())
    seen: set[int] = set()
    waiting: list[BaseException | None] = [error]
    while waiting:
        one = waiting.pop()
        if one is None or id(one) in seen:
            continue
        seen.add(id(one))
        if (args := _without(forms, one.args)) != one.args:
            one.args = args
        for name, value in list(vars(one).items()):
            if (kept := _without(forms, value)) is not value and kept != value:
                vars(one)[name] = kept
        waiting += [one.__cause__, one.__context__, *getattr(one, "exceptions", ())]


@contextmanager
def errors_masked() -> Iterator[None]:
    """Mask the errors that leave the block; see `mask_error`."""
    try:
        yield
    except BaseException as error:
        mask_error(error)
        raise


def _without(forms: tuple[_Form, ...], value: Any) -> Any:
    """A value with the secrets in its texts replaced."""
    if isinstance(value, str):
        for form in forms:
            value = form.hidden(value)
        return value
    if type(value) is dict:
        return {_without(forms, name): _without(forms, one) for name, one in value.items()}
    if type(value) in (list, tuple):
        return type(value)(_without(forms, one) for one in value)
    return value


def _is_ordinary(value: str, longest_word: int) -> bool:
    """Whether a value may stand in a text by chance: a few characters, a word, or a number."""
    if len(value) < _LEAST:
        return True
    one_case = value.islower() or value.isupper() or value.istitle()
    word = value.isalpha() and one_case and len(value) <= longest_word
    return word or (value.isdigit() and len(value) <= _LONGEST_NUMBER)


def _known() -> frozenset[str]:
    return _of_environment(tuple(os.environ.items()), frozenset(_variables)) | _given


@lru_cache(maxsize=4)
def _of_environment(variables: tuple[tuple[str, str], ...], named: frozenset[str]) -> frozenset[str]:
    """The secrets in the environment: in variables whose names say so, in those that are named, and in addresses."""
    found = set()
    for name, value in variables:
        found |= set(_in_addresses(value)) if "://" in value else set()
        if name in named or names_a_secret(name):
            longest_word = _LONGEST_GIVEN if name in named else _LONGEST_WORD
            found |= {value.strip()} if not _is_ordinary(value.strip(), longest_word) else set()
    return frozenset(found)


def _in_addresses(text: str) -> Iterator[str]:
    """The secrets in the addresses of a text. A user without a password counts only where it looks like a token."""
    for user_and_password in _USER_AND_PASSWORD.findall(text):
        password = user_and_password.partition(":")[2]
        for secret, longest_word in ((user_and_password, _LONGEST_WORD), (password, _LONGEST_GIVEN)):
            yield from (one for one in (secret, unquote(secret)) if not _is_ordinary(one, longest_word))
    for query in _QUERY.findall(text):
        for name, value in parse_qsl(query):
            if names_a_secret(name) and not _is_ordinary(value, _LONGEST_GIVEN):
                yield value


@dataclass(frozen=True)
class _Form:
    """A form of a secret.

    Attributes:
        pattern: Finds it.
        letters: It in plain letters, to find a part of it where a message was cut.
    """

    pattern: re.Pattern[str]
    letters: str

    def hidden(self, text: str) -> str:
        """The text without the secret, and without the beginning or the end of it that a cut has left."""
        text = self.pattern.sub(MASK, text)
        beginning, end = self.letters[:_LEAST_PART], self.letters[-_LEAST_PART:]
        if beginning not in text and end not in text:
            return text
        pieces = _CUT.split(text)  # every second one is a cut
        for at in range(0, len(pieces), 2):
            if beginning in pieces[at]:
                pieces[at] = self._beginning_hidden(pieces[at])
            if end in pieces[at] and at > 0:
                pieces[at] = self._end_hidden(pieces[at])
        return "".join(pieces)

    def _beginning_hidden(self, piece: str) -> str:
        lengths = range(len(self.letters) - 1, _LEAST_PART - 1, -1)
        length = next((length for length in lengths if piece.endswith(self.letters[:length])), 0)
        return piece[:-length] + MASK if length else piece

    def _end_hidden(self, piece: str) -> str:
        lengths = range(len(self.letters) - 1, _LEAST_PART - 1, -1)
        length = next((length for length in lengths if piece.startswith(self.letters[-length:])), 0)
        return MASK + piece[length:] if length else piece


@lru_cache(maxsize=4)
def _forms(secrets: frozenset[str]) -> tuple[_Form, ...]:
    """The forms of all secrets. Those of the longest come first, so that none is cut by a shorter one."""
    ordered = sorted(secrets, key=lambda secret: (-len(secret), secret))
    return tuple(form for secret in ordered for form in _forms_of(secret))


def _forms_of(secret: str) -> Iterator[_Form]:
    yield _Form(_pattern(secret), secret)
    for letters in _in_base64(secret):
        either = letters.replace("+", "[+-]").replace("/", "[/_]")  # the second are those of URLs
        yield _Form(re.compile(either), letters)


def _pattern(secret: str) -> re.Pattern[str]:
    """Finds a secret as it is, and in URLs, JSON, HTML, CSV and Python's texts, also in one of them inside another."""
    return re.compile("".join(re.escape(one) if re.match("[A-Za-z0-9]", one) else _escaped(one) for one in secret))


def _escaped(one: str) -> str:
    """A regular expression for a character in any form. Its repetitions are bounded: a server may send what is slow."""
    if one == "\\":
        return r"(?:\\{1,16}|(?i:%(?:25){0,3}5c|&#0{0,6}92;|&#x0{0,6}5c;))"
    in_url = "".join(f"%(?:25){{0,3}}{byte:02x}" for byte in one.encode("utf-8", "surrogateescape"))
    names = [name for name, character in html5.items() if character == one and name.endswith(";")]
    in_html = f"&(?:amp;){{0,3}}(?:{'|'.join([*names, f'#0{{0,6}}{ord(one)};', f'#x0{{0,6}}{ord(one):x};'])})"
    units = one.encode("utf-16-be", "surrogatepass").hex()
    in_json = "".join(rf"\\{{1,16}}u{units[at : at + 4]}" for at in range(0, len(units), 4))
    if ord(one) < 0x100:
        in_json += rf"|\\{{1,16}}x{ord(one):02x}"  # Python's
    twice = "{1,2}" if one == '"' else ""  # as CSV has it
    literal = "[ +]" if one == " " else re.escape(one)
    return rf"(?:\\{{0,16}}(?:{literal}|(?i:{in_url}|{in_html})){twice}|(?i:{in_json}))"


def _in_base64(secret: str) -> Iterator[str]:
    """A secret in base64, alone or behind something else, such as `user:password` of Basic authentication.

    The three bytes of a group share four letters. So a secret looks different for each of the three places that it may
    begin at. The letters that it shares with its neighbours are left out; they don't tell it.
    """
    content = secret.encode("utf-8", "surrogateescape")
    for before, shared in ((0, 0), (1, 2), (2, 3)):
        whole = (before + len(content)) * 8 // 6
        yield base64.b64encode(bytes(before) + content).decode()[shared:whole]
