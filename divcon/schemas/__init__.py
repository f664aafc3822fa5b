"""JSON Schemas of the files that divcon reads and writes, and the reference of their keys."""

from divcon.schemas._attributes import class_doc
from divcon.schemas._results import Results
from divcon.schemas._schema import SCHEMAS, Schema, schema_text

__all__ = ["SCHEMAS", "Results", "Schema", "class_doc", "schema_text"]
