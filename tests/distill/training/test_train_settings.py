import json

import pytest
from pydantic import ValidationError

from divcon.distill import TrainingError, TrainSettings
from divcon.distill.training import METHODS


def test_what_decides_a_lora_adapter_is_written_as_ever() -> None:
    """Adapters and their folders are named after it; a change would train all of them again."""
    assert json.dumps(TrainSettings().deciding()) == (
        '{"method": "lora", "rank": 8, "alpha": null, "epochs": 2.0, "batch_size": 16, "learning_rate": 0.001, '
        '"max_length": 1024, "over_length": "drop", "save_every": 10, "seed": 0}'
    )
    assert TrainSettings(method=["lora"]).deciding() == TrainSettings().deciding()
    assert METHODS["lora"].suffix == ""


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ("lroa", "there is no training method 'lroa'; did you mean lora"),
        (["lora", "nothing-like-it"], "there is no training method 'nothing-like-it'; there are lora"),
        (["lora", "lora"], "names a training method twice"),
        ([], "names no training method"),
    ],
)
def test_methods_that_make_no_sense_are_refused_under_their_key(given: object, says: str) -> None:
    with pytest.raises(ValidationError) as caught:
        TrainSettings(method=given)
    (error,) = caught.value.errors()
    assert error["loc"] == ("method",) and says in error["msg"]


def test_an_adapter_is_trained_by_one_of_several_methods(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(METHODS._ours, "other", METHODS["lora"])
    several = TrainSettings(method=["lora", "other"], rank=4)
    assert several.methods == ["lora", "other"]
    with pytest.raises(TrainingError, match="the settings name lora, other"):
        several.only_method  # noqa: B018
    assert several.with_method("other") == TrainSettings(method="other", rank=4)
    assert several.with_method("other").only_method == "other"
