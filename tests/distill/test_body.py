import json

import pytest

from divcon.distill._body import ENDED_BY, StreamMender, mended
from divcon.programs import UsageWarning


def body(**usage: object) -> bytes:
    return json.dumps({"id": "x", "choices": [{"index": 0}], "usage": usage}).encode()


@pytest.mark.parametrize(
    ("usage", "left"),
    [
        ({"prompt_tokens": -3, "completion_tokens": 5}, {"completion_tokens": 5}),
        ({"prompt_tokens": "ten", "completion_tokens": 5}, {"completion_tokens": 5}),
        ({"prompt_tokens": 10.5, "completion_tokens": True}, {}),
        ({"prompt_tokens": float("nan")}, {}),
        ({"prompt_tokens": 1, "prompt_tokens_details": {"cached_tokens": "x"}},
         {"prompt_tokens": 1, "prompt_tokens_details": {}}),
        ({"prompt_tokens": 1, "completion_tokens_details": [1]},
         {"prompt_tokens": 1, "completion_tokens_details": None}),
    ],
)  # fmt: skip
def test_counts_that_are_none_are_left_out_and_warned_of(usage: dict[str, object], left: dict[str, object]) -> None:
    with pytest.warns(UsageWarning):
        assert json.loads(mended(body(**usage)))["usage"] == left


@pytest.mark.parametrize(
    "text",
    [body(prompt_tokens=1), b"no json", b'{"usage": 3', b"[]", b'{"usage": null}', b"[" * 100_000 + b'"usage": 1'],
)
def test_any_other_body_is_left_as_it_is(text: bytes) -> None:
    assert mended(text) is text


def test_usage_that_is_no_object_is_left_out() -> None:
    with pytest.warns(UsageWarning):
        assert json.loads(mended(b'{"choices": [], "usage": "none"}'))["usage"] is None


def test_the_end_of_a_stream_is_noted_where_the_clients_keep_it_and_other_bytes_are_the_same() -> None:
    end = b'data: {"choices": [{"finish_reason": "abort"}], "usage": null}\n\n'
    usage = b'data: {"choices": [], "usage": {"prompt_tokens": -1}}\n\n'
    plain = (
        b'data: {"choices": [{"delta": {"content": "x"}, "finish_reason": null}]}\r\n\r\n: still here\n\ndata: [DONE]\n'
    )
    mender, got = StreamMender(), b""
    with pytest.warns(UsageWarning):
        for byte in plain + end + usage:
            got += mender.feed(bytes([byte]))
    got += mender.end()
    assert got.startswith(plain)
    events = [json.loads(line[6:]) for line in got[len(plain) :].split(b"\n") if line]
    assert [event[ENDED_BY] for event in events] == ["abort", "abort"]
    assert events[1]["usage"] == {}
