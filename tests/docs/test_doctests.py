"""The examples in docstrings hold."""

import doctest
import importlib
import pkgutil

import pytest

import divcon

WITH_EXAMPLES = [
    found.name
    for found in pkgutil.walk_packages(divcon.__path__, "divcon.")
    if ">>> " in (found.module_finder.find_spec(found.name, None).loader.get_source(found.name) or "")
]


def test_there_are_examples() -> None:
    assert len(WITH_EXAMPLES) > 5


@pytest.mark.parametrize("module", WITH_EXAMPLES)
def test_the_examples_of_a_module_hold(module: str) -> None:
    found = doctest.testmod(importlib.import_module(module), optionflags=doctest.ELLIPSIS)
    assert found.attempted
    assert not found.failed
