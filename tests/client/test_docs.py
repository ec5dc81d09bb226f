"""Pages that repeat what the code says are held to it."""

from pathlib import Path

import pytest
from pydantic import BaseModel

from shardsgd.cli import app
from shardsgd.spec import JobSpec
from shardsgd.spec_files import read_spec
from shardsgd.spec_problems import describe, show

ROOT = Path(__file__).parents[2]


def field_rows():
    """The table of docs/spec.md, from the definition."""
    yield "| field | default | accepted | meaning |"
    yield "|---|---|---|---|"
    for name, field in JobSpec.model_fields.items():
        table = field.annotation
        if isinstance(table, type) and issubclass(table, BaseModel):
            fields = {f"{name}.{key}": inner for key, inner in table.model_fields.items()}
        else:
            fields = {name: field}
        for path, inner in fields.items():
            default = "required" if inner.is_required() else "" if inner.default is None else f"`{show(inner.default)}`"
            yield f"| `{path}` | {default} | {describe(inner)} | {inner.description} |"


def test_the_page_on_the_spec_lists_every_field_as_it_is_defined():
    page = (ROOT / "docs/spec.md").read_text()
    table = "\n".join(field_rows())
    assert table in page, f"docs/spec.md is behind client/spec.py; its table should be:\n{table}"


@pytest.mark.parametrize("path", sorted((ROOT / "examples").glob("*.toml")), ids=lambda path: path.stem)
def test_the_examples_are_valid(path):
    assert read_spec(path).resolved()


def test_the_readme_shows_only_commands_and_options_that_exist():
    readme = (ROOT / "README.md").read_text()
    assert "make run" in readme
    assert "make test" in readme
    commands = {command.name for command in app.registered_commands}
    used = {line.split()[1] for line in readme.splitlines() if line.startswith("shardsgd ")}
    assert used
    assert used <= commands
