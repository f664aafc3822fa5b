import random

import numpy
import pytest

from divcon.distill.training._isolation import random_numbers_left_alone

pytestmark = pytest.mark.model


def draw() -> tuple[float, float, float]:
    import torch

    return random.random(), float(numpy.random.rand()), float(torch.rand(()))


def test_random_numbers_go_on_after_a_training_as_if_there_had_been_none() -> None:
    from transformers import set_seed

    set_seed(3)
    draw()
    wanted = [draw(), draw()]
    set_seed(3)
    draw()
    with random_numbers_left_alone():
        set_seed(0)
        draw()
    assert [draw(), draw()] == wanted
