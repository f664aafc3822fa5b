"""The schemas say what the code takes."""

import importlib.util
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft202012Validator
from ruamel.yaml import YAML

from divcon.schemas import SCHEMAS, class_doc

FILES = [
    *sorted(Path(__file__).parents[3].glob("examples/**/*.yaml")),
    *sorted(Path(__file__).parents[3].glob("benchmarks/**/*.yaml")),
]


def errors(kind: str, tree: Any) -> list[str]:
    return [error.message for error in Draft202012Validator(SCHEMAS[kind]()).iter_errors(tree)]


def minimal(**sections: Any) -> dict[str, Any]:
    models = {"teacher": {"model": "openai/t"}, "solver": {"model": "openai/s"}}
    return {"task": {"name": "offline", "train": 2, "test": 2}, "roles": models, **sections}


def test_generated_files_are_those_of_the_code(root: Path) -> None:
    spec = importlib.util.spec_from_file_location("generate", root / "docs" / "generate.py")
    assert spec and spec.loader
    generate = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(generate)
    for file, text in generate.generated():
        assert (root / file).read_text(encoding="utf-8") == text, f"{file}: run 'make generated'"


def test_the_links_of_the_reference_lead_to_its_headings(root: Path) -> None:
    page = (root / "docs" / "reference.md").read_text(encoding="utf-8")
    headings = re.findall(r"^#+ (.*)$", page, re.MULTILINE)
    anchors = {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}
    linked = set(re.findall(r"\]\(#([^)]*)\)", page))
    assert linked and linked <= anchors
    assert {f"divcon {name}" for name in ("run", "collect", "schema", "mcp")} <= set(headings)


@pytest.mark.parametrize("kind", SCHEMAS)
def test_schemas_are_schemas(kind: str) -> None:
    Draft202012Validator.check_schema(SCHEMAS[kind]())


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_the_files_that_ship_are_valid(file: Path) -> None:
    tree = YAML(typ="safe").load(file.read_text(encoding="utf-8"))
    assert errors("experiment" if "experiment" in tree else "pipeline", tree) == []


@pytest.mark.parametrize(
    ("sections", "said"),
    [
        ({"screening": {}}, "'screening' was unexpected"),
        ({"train": {"epochs": 0}}, "0 is less than or equal to the minimum of 0"),
        ({"compile": {"optimizer": "KNNFewShot"}}, "'KNNFewShot' is not one of"),
        ({"roles": {"solver": {"model": "openai/s"}}}, "'teacher' is a required property"),
        ({"collect": {"samples": "many"}}, "'many' is not of type 'integer'"),
    ],
)
def test_what_the_code_refuses_by_form_the_schema_refuses(sections: dict[str, Any], said: str) -> None:
    assert errors("pipeline", minimal()) == []
    [found] = errors("pipeline", minimal(**sections))
    assert said in found


@pytest.mark.parametrize(
    ("sections", "listed"),
    [
        ({"screen": {"rule": "another"}}, {"none", "oracle"}),
        ({"screen": {"rule": ["oracle", "another"]}}, {"none", "oracle"}),
        ({"train": {"method": "another"}}, {"lora"}),
        ({"task": {"name": "another", "train": 2, "test": 2}}, {"offline", "gsm8k", "jsonl"}),
        ({"evaluate": {"arms": ["direct", "another"]}}, {"direct", "sd-r", "se-t-direct"}),
        ({"run": {"executor": "another"}}, {"threads", "ray"}),
    ],
)
def test_names_of_tables_are_listed_and_those_of_packages_taken(sections: dict[str, Any], listed: set[str]) -> None:
    schema = SCHEMAS["pipeline"]()
    assert errors("pipeline", minimal(**sections)) == []
    [(section, given)] = sections.items()
    where = schema["$defs"][schema["properties"][section]["$ref"].rpartition("/")[2]]
    key = next(key for key, value in given.items() if value == "another" or "another" in str(value))
    assert any(listed <= set(names) for names in enums(where["properties"][key]))


def enums(schema: dict[str, Any]) -> Iterator[list[str]]:
    """The enums of a key: its own, those of its alternatives, and of a list's items."""
    if "enum" in schema:
        yield schema["enum"]
    for part in (*schema.get("anyOf", []), *([schema["items"]] if "items" in schema else [])):
        yield from enums(part)


@pytest.mark.parametrize("kind", SCHEMAS)
def test_every_key_says_what_it_means(kind: str) -> None:
    schema = SCHEMAS[kind]()
    for section in (schema, *schema["$defs"].values()):
        assert section["description"]
        for key, value in section.get("properties", {}).items():
            assert value.get("description"), f"{section['title']}.{key}"


def test_a_docstring_is_read_with_what_stands_on_further_lines_and_what_bases_say() -> None:
    class Above:
        """Above.

        Attributes:
            first: Of the base.
            second: Of the base.
        """

    class Below(Above):
        """Below: so
        it goes.

        And more.

        Attributes:
            second: Of this one,
                on two lines: with a colon.

        Examples:
            third: not an attribute
        """

    doc = class_doc(Below)
    assert doc.summary == "Below: so it goes.\nAnd more."
    assert doc.attributes == {"first": "Of the base.", "second": "Of this one, on two lines: with a colon."}
