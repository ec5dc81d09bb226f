"""The spec as a TOML file and as `--set key.path=value` on the command line."""

from __future__ import annotations

import tomllib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import tomli_w

from shardsgd.errors import FieldProblem, InputError, SpecError
from shardsgd.spec import JobSpec, looks_like_path


def read_spec(path: Path, overrides: Sequence[str] = ()) -> JobSpec:
    """Reads a TOML job file and applies `key.path=value` overrides, later ones winning.

    A relative `data.source` in the file is meant relative to the file; in an override, to the current directory.

    Raises:
        InputError: the file cannot be read or is not TOML.
        SpecError: fields are wrong.
    """
    try:
        fields = tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise InputError(f"{path}: no such job file") from None
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: cannot be read as a job file: {error}") from None
    except tomllib.TOMLDecodeError as error:
        raise InputError(f"{path}: not valid TOML: {error}") from None
    _anchor_source(fields, path.parent)
    for override in overrides:
        _apply(fields, override)
    return JobSpec(spec_source=str(path), **fields)


def parse_spec(text: str) -> JobSpec:
    """The spec that `spec_toml` wrote."""
    return JobSpec(**tomllib.loads(text))


def spec_toml(spec: JobSpec) -> str:
    """The spec as TOML text; fields that are not set are left out."""
    return tomli_w.dumps(spec.model_dump(mode="json", exclude_none=True))


def _anchor_source(fields: dict[str, Any], folder: Path) -> None:
    data = fields.get("data")
    if not isinstance(data, dict):
        return
    source = data.get("source")
    if isinstance(source, str) and looks_like_path(source):
        data["source"] = str(folder / Path(source).expanduser())


def _apply(fields: dict[str, Any], override: str) -> None:
    key, equals, text = override.partition("=")
    path = [part.strip() for part in key.split(".")]
    if not equals or not all(path):
        raise InputError(f"--set {override}: expected key.path=value, such as --set optimizer.learning_rate=0.05")
    table = fields
    for depth, part in enumerate(path[:-1], start=1):
        table = table.setdefault(part, {})
        if not isinstance(table, dict):
            raise SpecError("--set", (FieldProblem(key, text, f"{'.'.join(path[:depth])} is a value, not a table"),))
    table[path[-1]] = _toml_value(text.strip())


def _toml_value(text: str) -> Any:
    """The text as a TOML value; what is not one is a text, so that `--set data.source=digits` needs no quotes."""
    try:
        parsed = tomllib.loads(f"value = {text}")
    except tomllib.TOMLDecodeError:
        return text
    # A line break in `text` could smuggle in further keys; then the whole of it is a text.
    return parsed["value"] if len(parsed) == 1 else text
