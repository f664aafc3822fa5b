import json
from pathlib import Path

import pytest

from divcon.benchmarks.tasks import Fold, LoadedTask, Task, TaskError, load_task
from divcon.distill import OverlapError


def questions(folder: Path, *words: object) -> Path:
    file = folder / "mine.jsonl"
    file.write_text("".join(json.dumps({"question": f"Is it {word}?", "answer": "x"}) + "\n" for word in words))
    return file


def test_every_question_is_in_one_fold_and_trained_on_in_the_others(tmp_path: Path) -> None:
    file = questions(tmp_path, *range(23))

    def folds(train: int | str = 99, test: int | str = 99, seed: int = 0) -> list[LoadedTask]:
        task = Task(name="file", train=train, test=test, path=file, overlap="same", train_seed=seed)
        return [load_task(task, Fold(number, 5)) for number in range(1, 6)]

    whole = folds()
    assert sorted(item.id for part in whole for item in part.test) == sorted(f"line-{n}" for n in range(1, 24))
    assert [len(part.test) for part in whole] == [5, 5, 5, 4, 4]
    for part in whole:
        trained, tested = {item.id for item in part.train}, {item.id for item in part.test}
        assert not trained & tested
        assert len(trained) == 23 - len(tested)
    # The parts don't depend on the training seed, and smaller draws begin larger ones.
    other = folds(train=6, seed=1)
    assert [part.test for part in other] == [part.test for part in whole]
    assert [part.train for part in other] != [part.train[:6] for part in whole]
    assert [part.train for part in other] == [part.train[:6] for part in folds(seed=1)]
    # Fewer test questions make smaller folds, and nothing else is trained on.
    few = folds(test=10)
    tested = {item.id for part in few for item in part.test}
    assert len(tested) == 10
    assert all({item.id for item in part.train} < tested for part in few)
    # Shares are of all questions.
    assert folds(train="all", test="100%") == folds(train=23, test="all") == whole
    assert folds(train="30%", test="50%") == folds(train=6, test=11)
    with pytest.raises(TaskError, match=r"3 questions, too few for 5 folds(.|\n)*experiment\.folds"):
        folds(test=3)


def test_what_overlaps_with_a_fold_is_dropped_from_its_training_questions(tmp_path: Path) -> None:
    task = {"name": "file", "train": 9, "test": 9, "path": questions(tmp_path, "so", "so", "cold", "late")}
    with pytest.raises(OverlapError, match="overlap with the test set"):
        [load_task(Task(**task), Fold(number, 4)) for number in range(1, 5)]
    parts = [load_task(Task(**task, overlap="drop"), Fold(number, 4)) for number in range(1, 5)]
    assert sorted(part.dropped_overlap for part in parts) == [0, 0, 1, 1]
    assert sorted(item.id for part in parts for item in part.test) == [f"line-{n}" for n in range(1, 5)]
