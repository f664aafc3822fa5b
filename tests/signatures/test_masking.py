"""What counts as a secret, and which of its forms are found."""

import base64
import html
import json
import re
import time
import traceback
from collections.abc import Iterator
from urllib.parse import quote, quote_plus

import markupsafe
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from divcon.signatures import (
    MASK,
    DivconError,
    _secrets,
    errors_masked,
    learn_addresses,
    learn_secret,
    learn_settings,
    learn_variable,
    masked,
    masked_json,
    masked_values,
)


@pytest.fixture(autouse=True)
def _nothing_known(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(_secrets, "_given", set())
    monkeypatch.setattr(_secrets, "_variables", set())
    yield


@pytest.mark.parametrize("name", ["OPENAI_API_KEY", "HF_TOKEN", "AWS_SECRET_ACCESS_KEY", "db_password", "MY_SECRET"])
def test_a_variable_whose_name_says_so_holds_a_secret(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.setenv(name, "abc-123-def")
    assert masked("it is abc-123-def.") == f"it is {MASK}."


def test_another_variable_holds_one_only_where_a_pipeline_names_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WHATEVER", "abc-123-def")
    assert masked("abc-123-def") == "abc-123-def"
    learn_variable("WHATEVER")
    assert masked("abc-123-def") == MASK
    monkeypatch.setenv("WHATEVER", "changed-456")  # a notebook may set it later
    assert masked("abc-123-def changed-456") == f"abc-123-def {MASK}"


@pytest.mark.parametrize("ordinary", ["", "k", "none", "EMPTY", "question", "Answer", "0", "12345678"])
def test_an_ordinary_word_or_number_is_no_secret(monkeypatch: pytest.MonkeyPatch, ordinary: str) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", ordinary)
    text = f"The {ordinary} stays in {ordinary * 2}"
    assert masked(text) == text


@pytest.mark.parametrize("given", ["s3cret", "correcthorse", "sk-1234567890", "pa55 word", "käse-und-brot"])
def test_what_is_given_as_a_secret_is_one(given: str) -> None:
    learn_secret(given)
    assert masked(f"({given})") == f"({MASK})"


def test_addresses_hold_passwords() -> None:
    learn_addresses("at http://ada:p%40ss1word@host:80/v1, or https://h/v1?region=eu-central&api_key=qu3ry-key")
    assert masked("p%40ss1word, p@ss1word, qu3ry-key") == f"{MASK}, {MASK}, {MASK}"
    assert masked("ada at host in eu-central") == "ada at host in eu-central"
    basic = base64.b64encode(b"ada:p@ss1word").decode()
    assert basic[:-2] not in masked(f"Basic {basic}")


def test_a_proxy_of_the_environment_holds_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTPS_PROXY", "http://me:pr0xy-pass@10.0.0.1:3128")
    assert masked("407 from me:pr0xy-pass") == f"407 from {MASK}"


def test_settings_of_clients_hold_keys() -> None:
    settings = {"api_key": "key-0001", "extra_headers": {"Authorization": "Bearer head-0002"}, "max_tokens": 4096123}
    learn_settings({**settings, "base_url": "http://u:url-0003@h", "model": "openai/gpt-5-mini"})
    text = "key-0001 head-0002 url-0003 4096123 openai/gpt-5-mini"
    assert masked(text) == f"{MASK} {MASK} {MASK} 4096123 openai/gpt-5-mini"


CHARACTERS = st.characters(min_codepoint=33, max_codepoint=0x17F, exclude_characters="\x7f\xa0")
SECRETS = st.lists(CHARACTERS, unique=True, min_size=12).map("".join)


@settings(deadline=None)  # patterns are compiled
@given(SECRETS.filter(lambda secret: not secret.isalnum() and secret == secret.strip()), st.text(max_size=5))
def test_every_form_of_a_secret_is_found(secret: str, user: str) -> None:
    _secrets._given.clear()
    learn_secret(secret)
    forms = [
        secret,
        quote(secret, safe=""),
        quote(quote(secret, safe="")),
        quote_plus(secret),
        re.sub("%..", lambda found: found[0].lower(), quote(secret)),
        json.dumps(secret),
        json.dumps(secret, ensure_ascii=False).replace("/", "\\/"),
        json.dumps(json.dumps(secret)),
        repr(repr(secret)),
        secret.replace("&", "\\u0026").replace("<", "\\u003C").replace("+", "\\u002B"),
        html.escape(secret),
        str(markupsafe.escape(secret)),
        html.escape(json.dumps(secret)),
        secret.replace('"', '""'),
    ]
    for form in forms:
        assert MASK in masked(form), form
    both = f"{user}:{secret}".encode()
    for encode in (base64.b64encode, base64.urlsafe_b64encode):
        left = masked(encode(both).decode())
        assert MASK in left
        assert len(left) - len(MASK) <= len(encode(f"{user}:".encode())) + 4


@pytest.mark.parametrize("hostile", ["\\" * 200_000, "%25" * 200_000, "&amp;" * 200_000, '"&/ -quo...' * 50_000])
def test_no_text_makes_masking_slow(hostile: str) -> None:
    learn_secret('"&/ -quotes-first')
    started = time.perf_counter()
    assert len(masked(hostile)) > 100_000
    assert time.perf_counter() - started < 2.0


@pytest.mark.parametrize("cut", [40, 25, 12, 8])
@pytest.mark.parametrize("dots", ["...", "…"])
def test_a_part_that_a_cut_left_is_found(cut: int, dots: str) -> None:
    secret = "sk-proj-" + "Ab1Cd2Ef3Gh4Jk5Lm6Np7Qr8St9Uv0Wx" * 3
    learn_secret(secret)
    coded = base64.b64encode(secret.encode()).decode()
    for whole in (secret, coded):
        assert masked(f"input_value='{whole[:cut]}{dots}', type") == f"input_value='{MASK}{dots}', type"
        assert masked(f"x: {whole[:cut]}") == f"x: {MASK}"
        assert masked(f"value='{whole[:cut]}{dots}{secret[-cut:]}' of it") == f"value='{MASK}{dots}{MASK}' of it"
    assert masked("sk-proj...") == "sk-proj..."


def test_json_stays_json_and_only_texts_change() -> None:
    learn_secret('a","b: 1')
    value = {"x": ['a","b: 1', "a", 'b: 1"'], 'a","b: 1': 1.5, "n": None}
    assert json.loads(masked_json(json.dumps(value))) == {"x": [MASK, "a", 'b: 1"'], MASK: 1.5, "n": None}
    untouched = '{"b":1,  "a": "\\u00e4"}'
    assert masked_json(untouched) is untouched
    assert masked_values(("sk", 1)) == ("sk", 1)


def test_a_longer_secret_is_not_cut_by_a_shorter_one() -> None:
    learn_secret("abc-123")
    learn_secret("abc-123-and-more")
    assert masked("abc-123-and-more") == MASK


def test_an_error_and_its_causes_are_masked_and_stay_what_they_are() -> None:
    learn_secret("sk-1234567890")

    class Theirs(ValueError):
        def __init__(self, message: str) -> None:
            super().__init__(message)
            self.message = message
            self.body = {"error": [message]}

    def fails() -> None:
        try:
            raise KeyError("sk-1234567890")
        except KeyError as error:
            raise Theirs("bad key sk-1234567890") from error

    with pytest.raises(Theirs, match=r"bad key \[masked\]") as caught, errors_masked():
        fails()
    assert caught.value.body == {"error": [f"bad key {MASK}"]}
    assert caught.value.message == f"bad key {MASK}"
    assert "sk-1234567890'" not in "".join(traceback.format_exception_only(caught.value.__cause__))


def test_our_errors_are_masked_when_they_are_made() -> None:
    learn_secret("sk-1234567890")
    error = DivconError("The key sk-1234567890 is wrong.", "Set another than sk-1234567890.")
    assert (error.problem, error.remedy) == (f"The key {MASK} is wrong.", f"Set another than {MASK}.")
    assert "sk-" not in str(error)
