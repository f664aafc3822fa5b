"""Replies of servers that hold no answer, or token counts that can't be right."""

import asyncio
import json
from pathlib import Path

import dspy
import pytest
from dspy.lm15 import Message, Response, TextPart, Usage
from support.openai_server import USAGE, OpenAIServer, Whole, whole

from divcon.distill import LMBackend, RunStore, StoredEngine, role_lm
from divcon.distill._database import COLUMNS, checksum
from divcon.distill._reply import as_read, why_unusable
from divcon.distill._trouble import UnusableReplyError
from divcon.programs import Ledger, RolePredict, UsageWarning
from divcon.signatures import Answer

PRICE = {"input": 1.0, "output": 2.0, "cached": 0.5}
CALL = {"id": "c", "type": "function", "function": {"name": "look_up", "arguments": "{}"}}

NO_ANSWER = {
    "content null": whole(None),
    "content empty": whole(""),
    "content blank": whole(" \n"),
    "no choices": Whole({"choices": []}),
    "reasoning alone": whole(None, reasoning_content="Let me think."),
    "a tool call": whole(None, "tool_calls", tool_calls=[CALL]),
    "a tool call beside text": whole("7", "tool_calls", tool_calls=[CALL]),
    "a refusal": whole(None, refusal="I can't help with that."),
    "filtered": whole("The answer is", "content_filter"),
    "aborted": whole("The answer is", "abort"),
    "an error": whole("The answer is", "error"),
    "cut off before it began": whole("", "length"),
}


def stored_lm(server: OpenAIServer, folder: Path, **more: object) -> dspy.LM:
    inner = dspy.LM("openai/m", api_base=server.url, api_key="k", cache=False, num_retries=0, **more)
    engine = StoredEngine(LMBackend(inner), "solver", "openai/m", RunStore(folder), PRICE)
    return role_lm(engine, temperature=None, max_tokens=None)


def ask(lm: dspy.LM) -> str:
    return RolePredict(Answer, "solver", lm=lm)(question="Q?").answer


@pytest.mark.parametrize("client", ["auto", "litellm"])
@pytest.mark.parametrize("what", NO_ANSWER)
def test_a_reply_without_an_answer_is_a_failed_call_that_is_on_the_bill_and_asked_again(
    tmp_path: Path, what: str, client: str
) -> None:
    replies = iter([NO_ANSWER[what], "7"])
    with OpenAIServer(lambda body: next(replies)) as server:
        lm = stored_lm(server, tmp_path, engine=client)
        with pytest.raises(UnusableReplyError):
            ask(lm)
        assert ask(lm) == "7"
        assert ask(lm) == "7"
        assert len(server.requests) == 2
    paid = RunStore(tmp_path).paid()["solver"]
    assert (paid["calls"], paid["input_tokens"], paid["output_tokens"]) == (2, 20, 10)


@pytest.mark.parametrize("client", ["auto", "litellm"])
def test_a_reply_whose_choices_are_null_is_a_failed_call(tmp_path: Path, client: str) -> None:
    replies = iter([Whole({"choices": None}), "7"])
    with OpenAIServer(lambda body: next(replies)) as server:
        lm = stored_lm(server, tmp_path, engine=client)
        with pytest.raises(dspy.LMError):  # LiteLLM takes it for a server's failure and drops the counts
            ask(lm)
        assert ask(lm) == "7"


def test_it_is_a_failed_call_for_those_who_await_it_too(tmp_path: Path) -> None:
    replies = iter([whole(None), "7"])
    with OpenAIServer(lambda body: next(replies)) as server:
        predict = RolePredict(Answer, "solver", lm=stored_lm(server, tmp_path))
        with pytest.raises(UnusableReplyError):
            asyncio.run(predict.acall(question="Q?"))
        assert asyncio.run(predict.acall(question="Q?")).answer == "7"


def test_a_streamed_reply_without_text_is_a_failed_call(tmp_path: Path) -> None:
    replies = iter(["7", "", "8"])
    with OpenAIServer(lambda body: next(replies)) as server:
        lm = stored_lm(server, tmp_path)
        predict = RolePredict(Answer, "solver", lm=lm)
        assert predict(question="P?").answer == "7"  # finds out that the server streams
        with pytest.raises(UnusableReplyError):
            predict(question="Q?")
        assert predict(question="Q?").answer == "8"


def test_an_empty_reply_that_an_older_version_kept_is_asked_again_and_stays_on_the_bill(tmp_path: Path) -> None:
    with OpenAIServer(lambda body: "7") as server:
        lm = stored_lm(server, tmp_path)
        ask(lm)
        store = RunStore(tmp_path)
        with store._writing() as db:
            [row] = db.execute("SELECT * FROM calls").fetchall()
            values = dict(zip(COLUMNS["calls"], row, strict=False))
            empty = {"role": "assistant", "parts": [{"type": "text", "text": ""}]}
            values["response"] = json.dumps({**json.loads(values["response"]), "message": empty})
            changed = [values["response"], checksum("calls", list(values.values()))]
            db.execute("UPDATE calls SET response = ?, checksum = ?", changed)
        assert ask(lm) == ask(lm) == "7"
        assert len(server.requests) == 2
        assert store.paid()["solver"]["calls"] == 2


def test_a_model_of_our_own_may_say_nothing() -> None:
    said = Response(id=None, model="m", message=Message.assistant([TextPart("")]), finish_reason="stop", usage=Usage())
    assert why_unusable(said) == "the reply is empty"
    assert why_unusable(said, empty=True) is None


def test_the_servers_own_reason_is_quoted(tmp_path: Path) -> None:
    said = whole("The answer is", "abort")
    with OpenAIServer(lambda body: said) as server, pytest.raises(UnusableReplyError, match="ended by 'abort'"):
        ask(stored_lm(server, tmp_path))


@pytest.mark.parametrize("reason", ["length", "max_tokens", "model_length"])
def test_a_reply_that_ran_out_of_tokens_is_one_by_whatever_name(reason: str) -> None:
    sent = {"choices": [{"finish_reason": reason}]}
    text = Message.assistant([TextPart("The answer is 7")])
    said = Response(id=None, model="m", message=text, finish_reason="stop", usage=Usage(), provider_data=sent)
    assert why_unusable(said) is None
    assert as_read(said).finish_reason == "length"


UNKNOWN = {
    "null": Whole({"usage": None}),
    "absent": Whole({}, ("usage",)),
    "empty": Whole({"usage": {}}),
    "input alone": Whole({"usage": {"prompt_tokens": 10}}),
    "zeros": Whole({"usage": {"prompt_tokens": 0, "completion_tokens": 0, "total_tokens": 0}}),
    "negative": Whole({"usage": {"prompt_tokens": -10, "completion_tokens": 5}}),
    "text": Whole({"usage": {"prompt_tokens": "ten", "completion_tokens": 5}}),
    "a fraction": Whole({"usage": {"prompt_tokens": 10.5, "completion_tokens": 5}}),
    "no object": Whole({"usage": "none"}),
    "more cached than read": Whole({"usage": {**USAGE, "prompt_tokens_details": {"cached_tokens": 4000}}}),
}


@pytest.mark.filterwarnings("ignore::divcon.programs.UsageWarning")
@pytest.mark.parametrize("client", ["auto", "litellm"])
@pytest.mark.parametrize("what", UNKNOWN)
def test_the_cost_of_a_call_is_unknown_where_its_tokens_are(tmp_path: Path, what: str, client: str) -> None:
    replies = iter([UNKNOWN[what], "8"])
    with OpenAIServer(lambda body: next(replies)) as server, Ledger() as ledger:
        predict = RolePredict(Answer, "solver", lm=stored_lm(server, tmp_path, engine=client))
        assert [predict(question=question).answer for question in ("Q?", "R?")] == ["7", "8"]
    for used in (RunStore(tmp_path).paid()["solver"], ledger.as_dict()["solver"]):
        assert (used["calls"], used["unknown_calls"], used["unpriced_calls"]) == (2, 1, 1)
        assert used["cost"] == pytest.approx((10 * 1 + 5 * 2) / 1e6)


def test_a_call_that_nothing_is_known_of_doesnt_count_as_one_from_a_cache(tmp_path: Path) -> None:
    with OpenAIServer(lambda body: Whole({"usage": None})) as server, Ledger() as ledger:
        ask(stored_lm(server, tmp_path))
    used = ledger.as_dict()["solver"]
    assert (used["cached_calls"], used["cost"], used["unpriced_calls"]) == (0, None, 1)


@pytest.mark.parametrize("reasoned", [{"reasoning_tokens": 100}, {"reasoning_tokens": 3}])
def test_reasoning_beside_the_output_is_output(tmp_path: Path, reasoned: dict[str, int]) -> None:
    thought = reasoned["reasoning_tokens"]
    usage = {**USAGE, "total_tokens": 15 + thought, "completion_tokens_details": reasoned}
    with OpenAIServer(lambda body: Whole({"usage": usage})) as server:
        ask(stored_lm(server, tmp_path))
    assert RunStore(tmp_path).paid()["solver"]["output_tokens"] == 5 + thought


def test_counts_that_cant_be_right_are_warned_of() -> None:
    usage = Usage(input_tokens=10, output_tokens=5, cache_read_tokens=40)
    said = Response(id=None, model="m", message=Message.assistant([TextPart("7")]), finish_reason="stop", usage=usage)
    with pytest.warns(UsageWarning, match="cached_tokens 40"):
        assert as_read(said).usage.input_tokens is None
