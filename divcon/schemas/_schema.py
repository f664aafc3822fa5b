"""JSON Schemas, generated from the classes that validate the files and from their docstrings."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from pydantic import BaseModel
from pydantic.json_schema import GenerateJsonSchema

from divcon.config import Experiment, Pipeline
from divcon.schemas._attributes import class_doc
from divcon.schemas._results import Results

Schema = dict[str, Any]
DIALECT = "https://json-schema.org/draft/2020-12/schema"


class _Generator(GenerateJsonSchema):
    def model_schema(self, schema: Any) -> Schema:
        """A section's schema, described by its docstring."""
        made = super().model_schema(schema)
        doc = class_doc(schema["cls"])
        made["description"] = doc.summary
        for name, meaning in doc.attributes.items():
            if name in made.get("properties", {}):
                made["properties"][name]["description"] = meaning
        return made

    def default_schema(self, schema: Any) -> Schema:
        """A key's schema. A section gets no default, since its own keys have defaults."""
        if isinstance(schema.get("default"), BaseModel):
            return self.generate_inner(schema["schema"])
        return super().default_schema(schema)

    def field_title_should_be_set(self, schema: Any) -> bool:
        """Whether a key gets a title. It doesn't, since the title would repeat the key's name."""
        return False


def _schema_of(model: type[BaseModel], title: str) -> Schema:
    made = model.model_json_schema(schema_generator=_Generator, mode="validation")
    return {"$schema": DIALECT, **made, "title": title}


def pipeline_schema() -> Schema:
    """The schema of the pipeline file."""
    return _schema_of(Pipeline, "A pipeline file of divcon")


def experiment_schema() -> Schema:
    """The schema of the experiment file."""
    return _schema_of(Experiment, "An experiment file of divcon")


def results_schema() -> Schema:
    """The schema of `results.json`."""
    return _schema_of(Results, "The results.json of a run of divcon")


SCHEMAS: dict[str, Callable[[], Schema]] = {
    "pipeline": pipeline_schema,
    "experiment": experiment_schema,
    "results": results_schema,
}


def schema_text(name: str) -> str:
    """A schema as it is printed and shipped.

    Args:
        name: One of `SCHEMAS`.
    """
    return json.dumps(SCHEMAS[name](), indent=2, ensure_ascii=False) + "\n"
