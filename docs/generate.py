"""Write what is made from the code: the shipped schemas and model cards, and the reference of keys and commands.

`make generated` runs it, and a test compares.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import typer

from divcon.cli import app
from divcon.distill import CARD, Evaluated, model_card, read_manifest
from divcon.distill.serving.embedded import solver_adapter
from divcon.schemas import SCHEMAS, Schema, schema_text

ROOT = Path(__file__).parent.parent
SOLVED = {
    "references": "Two-stage, reference subquestions",
    "whole": "Two-stage, nothing split",
    "cot": "Chain of thought",
    "direct": "Direct",
}

BEGIN = """\
# Reference

`make generated` writes this page from the code.

- Any key can be set on the command line: `--set screen.samples=4`.
- A key without a default may be left out, unless it is required.
- `divcon schema` prints the keys as JSON Schema; `divcon schema results` prints the form of `results.json`.
- An editor with a YAML language server checks and completes a file that begins with
  `# yaml-language-server: $schema=SCHEMA`, where SCHEMA is the file that `divcon schema` was written to.
"""


def generated() -> Iterator[tuple[Path, str]]:
    """Each generated file, from the root of the repository, and its text."""
    for name in ("pipeline", "experiment"):
        yield Path("divcon", "config", f"{name}.schema.json"), schema_text(name)
    yield Path("docs", "reference.md"), reference()
    for name in ("solver", "wide-solver"):
        yield Path("distill", "serving", "embedded", name.replace("-", "_"), CARD), solver_card(name)


def solver_card(name: str) -> str:
    """The model card of a shipped solver adapter, with its recorded results where there are any."""
    manifest = read_manifest(solver_adapter(name))
    recorded = json.loads((ROOT / "benchmarks" / "results" / "solver.json").read_text(encoding="utf-8"))
    if recorded["adapter"] != manifest.content_hash:
        return model_card(manifest)
    return model_card(manifest, [evaluated(arm, found["both"]) for arm, found in recorded["arms"].items()])


def evaluated(arm: str, found: dict[str, Any]) -> Evaluated:
    """A line of the solver's results. The adapter is the solver in all of them."""
    right = round(found["accuracy"] * found["n"])
    return Evaluated(SOLVED[arm], right, found["n"] - right, 0, found["accuracy"], tuple(found["ci95"]), own=True)


def reference() -> str:
    """The page of keys and commands."""
    pipeline, experiment = SCHEMAS["pipeline"](), SCHEMAS["experiment"]()
    sections = {**pipeline["$defs"], **experiment["$defs"]}
    where: dict[str, list[str]] = {}
    for file in (pipeline, experiment):
        for path, name in nested(file, sections, ""):
            if path not in where.setdefault(name, []):
                where[name].append(path)
    anchors = {name: anchor(paths[0]) for name, paths in where.items()}
    parts = [BEGIN, "## The pipeline file\n", table(pipeline, anchors)]
    parts += ["## The experiment file\n", "It has the same sections, except `task` and `evaluate.arms`.\n"]
    parts += [table({**experiment, "properties": {"experiment": experiment["properties"]["experiment"]}}, anchors)]
    for name, paths in where.items():
        parts += [f"## {paths[0]}\n", sections[name]["description"].replace("\n", "\n\n") + "\n"]
        if paths[1:]:
            parts.append(f"The same keys are under {listed([f'`{path}`' for path in paths[1:]], 'and')}.\n")
        parts.append(table(sections[name], anchors))
    return "\n".join([*parts, *commands()])


def nested(section: Schema, sections: dict[str, Schema], path: str) -> Iterator[tuple[str, str]]:
    """The sections below a section: where each stands, and its name."""
    for key, schema in section["properties"].items():
        for name, inner in references(schema, f"{path}.{key}".lstrip(".")):
            yield inner, name
            yield from nested(sections[name], sections, inner)


def references(schema: Schema, path: str) -> Iterator[tuple[str, str]]:
    """The sections that a key may hold: the name of each, and where it stands."""
    if "$ref" in schema:
        yield schema["$ref"].rpartition("/")[2], path
    for part in schema.get("anyOf", []):
        yield from references(part, path)
    for part in schema.get("patternProperties", {}).values():
        yield from references(part, f"{path}.NAME")
    if "items" in schema:
        yield from references(schema["items"], path)


def table(section: Schema, anchors: dict[str, str]) -> str:
    """The keys of a section."""
    lines = ["| key | type | default | meaning |", "|---|---|---|---|"]
    for key, schema in section["properties"].items():
        default = "required" if key in section.get("required", ()) else default_of(schema)
        lines.append(f"| `{key}` | {type_of(schema, anchors)} | {default} | {cell(schema['description'])} |")
    return "\n".join(lines) + "\n"


def default_of(schema: Schema) -> str:
    if schema.get("default") is not None:
        return f"`{json.dumps(schema['default']).strip(chr(34))}`"
    return "empty" if schema.get("type") in ("object", "array") and "default" not in schema else ""


def type_of(schema: Schema, anchors: dict[str, str]) -> str:
    """What a key takes, in words."""
    if "anyOf" in schema:
        parts = [part for part in schema["anyOf"] if part.get("type") != "null"]
        if "enum" in parts[0]:
            lists = ["a list of these"] if any(part.get("type") == "array" for part in parts) else []
            more = ["another name"] if parts[1:] else []
            return listed([*(f"`{name}`" for name in parts[0]["enum"]), *more, *lists], "or")
        return listed([type_of(part, anchors) for part in parts], "or")
    if "$ref" in schema:
        name = schema["$ref"].rpartition("/")[2]
        return f"[section](#{anchors[name]})"
    if "enum" in schema:
        return listed([f"`{value}`" for value in schema["enum"]], "or")
    if "patternProperties" in schema:
        [inner] = schema["patternProperties"].values()
        return f"by name: {type_of(inner, anchors)}"
    if schema["type"] == "array":
        inner = schema["items"] if "items" in schema else schema["prefixItems"][0]
        return f"list of {type_of(inner, anchors)}"
    names = {"string": "text", "boolean": "`true` or `false`", "object": "mapping"}
    word = "path" if schema.get("format") == "path" else names.get(schema["type"], schema["type"])
    return word + bounds(schema)


def bounds(schema: Schema) -> str:
    """The least and the greatest value of a number, in words."""
    said = {
        "above": schema.get("exclusiveMinimum"),
        "at least": schema.get("minimum"),
        "at most": schema.get("maximum"),
    }
    words = ", ".join(f"{word} {value}" for word, value in said.items() if value is not None)
    return f" ({words})" if words else ""


def commands() -> Iterator[str]:
    """Each command with its arguments and options, as `--help` has them."""
    yield "## Commands\n"
    group: Any = typer.main.get_command(app)
    for name, command in (("", group), *every_command(group)):
        yield f"### divcon {name}".rstrip() + "\n"
        yield f"{command.help}\n"
        if command.params:
            lines = ["| argument or option | default | meaning |", "|---|---|---|"]
            for parameter in command.params:
                lines.append(f"| `{shown(parameter)}` | {default_shown(parameter)} | {cell(parameter.help)} |")
            yield "\n".join(lines) + "\n"


def every_command(group: Any, before: str = "") -> Iterator[tuple[str, Any]]:
    """The commands of a group, and those of the groups in it, with their whole names."""
    for name, command in group.commands.items():
        yield f"{before}{name}", command
        if hasattr(command, "commands"):
            yield from every_command(command, f"{before}{name} ")


def shown(parameter: Any) -> str:
    if parameter.param_type_name == "argument":
        return str(parameter.metavar or parameter.name.upper())
    return " ".join(filter(None, [*parameter.opts, parameter.metavar]))


def default_shown(parameter: Any) -> str:
    if parameter.required:
        return "required"
    return f"`{parameter.default}`" if parameter.default else ""


def listed(words: Sequence[str], last: str) -> str:
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} {last} {words[-1]}"


def cell(text: str) -> str:
    return text.replace("|", "\\|")


def anchor(heading: str) -> str:
    """What GitHub makes of a heading."""
    return re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-")


if __name__ == "__main__":
    for file, text in generated():
        (ROOT / file).write_text(text, encoding="utf-8")
