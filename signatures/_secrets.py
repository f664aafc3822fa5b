"""Secrets: what this process knows of keys and passwords, and how texts that came from outside are masked of them.

A server may echo the key that it was sent. So its replies and errors are masked where they arrive, and once more where
texts are stored or shown. Masking lives in the lowest package because errors are masked when they are made.
"""

from __future__ import annotations

import base64
import html
import json
import os
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import lru_cache
from typing import Any
from urllib.parse import parse_qsl, quote, quote_plus, unquote

MASK = "[masked]"

_NAMES = re.compile(r"(?i)(^|[-_])((api)?key|token|secret|password|passwd|authorization)$")
_USER_AND_PASSWORD = re.compile(r"[a-zA-Z][\w+.-]*://([^\s/?#\"']+)@")
_QUERY = re.compile(r"[a-zA-Z][\w+.-]*://[^\s?#\"']+\?([^\s#\"']+)")
_LEAST = 6  # characters of a secret
_LONGEST_WORD = 11  # letters of a value that may be an ordinary word
_LONGEST_GIVEN = 7  # the same of a value that is certainly meant as a secret
_LONGEST_NUMBER = 15  # digits of a value that may be an ordinary number

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


def _without(forms: tuple[str, ...], value: Any) -> Any:
    """A value with every form of the secrets in its texts replaced."""
    if isinstance(value, str):
        for form in forms:
            if form in value:
                value = value.replace(form, MASK)
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


@lru_cache(maxsize=4)
def _forms(secrets: frozenset[str]) -> tuple[str, ...]:
    """Every form of the secrets, the longest first, so that none is cut by a shorter one."""
    return tuple(
        sorted({form for secret in secrets for form in _forms_of(secret)}, key=lambda form: (-len(form), form))
    )


def _forms_of(secret: str) -> Iterator[str]:
    yield secret
    # An environment that isn't UTF-8 gives surrogates.
    quoted = [quote(secret, safe, errors="surrogateescape") for safe in ("", "/")]
    for encoded in (*quoted, quote_plus(secret, errors="surrogateescape")):
        yield encoded
        yield re.sub("%..", lambda found: found[0].lower(), encoded)
    for in_json in (json.dumps(secret)[1:-1], json.dumps(secret, ensure_ascii=False)[1:-1]):
        yield in_json
        yield in_json.replace("/", "\\/")
        yield json.dumps(in_json)[1:-1]  # JSON as a text in JSON
    yield repr(secret)[1:-1]
    yield secret.replace('"', '""')  # CSV
    yield html.escape(secret, quote=False)
    yield html.escape(secret)
    yield html.escape(secret).replace("&quot;", "&#34;").replace("&#x27;", "&#39;")
    # In base64 the three bytes of a group share four letters. So a secret behind something else (`user:password` of
    # Basic authentication) looks different for each of the three places it may begin at. The letters that it shares
    # with its neighbours are left out; they don't tell it.
    content = secret.encode("utf-8", "surrogateescape")
    for before, shared in ((0, 0), (1, 2), (2, 3)):
        whole = (before + len(content)) * 8 // 6
        for encode in (base64.b64encode, base64.urlsafe_b64encode):
            yield encode(bytes(before) + content).decode()[shared:whole]
