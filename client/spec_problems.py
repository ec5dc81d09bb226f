"""Turns what is wrong with a spec into one list of fields, values and what is accepted."""

from __future__ import annotations

import difflib
import json
import types
import typing
from collections.abc import Collection, Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

import annotated_types as bounds
from pydantic import BaseModel, ValidationError
from pydantic.fields import FieldInfo

from shardsgd.errors import FieldProblem

if TYPE_CHECKING:
    from shardsgd.spec import JobSpec

_TYPE_WORDS = {int: "an integer", float: "a number", str: "a text", bool: "true or false"}
_BOUND_WORDS = (
    (bounds.Ge, "ge", "at least"),
    (bounds.Gt, "gt", "more than"),
    (bounds.Le, "le", "at most"),
    (bounds.Lt, "lt", "less than"),
)

# A parameter without which a kind of schedule means nothing.
_SCHEDULE_NEEDS = {"constant": (), "polynomial": ("power",), "step": ("factor", "every"), "exponential": ("rate",)}


def field_problems(model: type[BaseModel], given: Mapping[str, Any], error: ValidationError) -> list[FieldProblem]:
    """One problem for each wrong field of `given`, found by pydantic or by the rules that span fields."""
    problems: dict[str, FieldProblem] = {}
    for detail in error.errors(include_url=False, include_context=False, include_input=True):
        path = tuple(part for part in detail["loc"])
        if detail["type"] == "extra_forbidden":
            accepted = _unknown_key(model, path)
        elif detail["type"] == "missing":
            accepted = f"required: {describe(_field(model, path))}"
        else:
            accepted = f"must be {describe(_field(model, path))}"
        value = "" if detail["type"] == "missing" else show(detail["input"])
        problems.setdefault(_dotted(path), FieldProblem(_dotted(path), value, accepted))
    return [*problems.values(), *_cross_problems_beside(model, given, set(problems))]


def cross_problems(spec: JobSpec, unknown: Collection[str] = ()) -> list[FieldProblem]:
    """Problems of fields that are each right but impossible together.

    Args:
        spec: whose.
        unknown: tables that were wrong, so that what the spec has in their place is not what was meant.
    """
    schedule, workers = spec.schedule, spec.workers
    crossed = [
        FieldProblem(f"workers.{name}", str(value), f"must be {words} workers.count = {workers.count}")
        for name, value, words, wrong in (
            ("min", workers.min, "at most", workers.min > workers.count),
            ("max", workers.max, "at least", workers.max is not None and workers.max < workers.count),
        )
        if wrong
    ]
    needs = [(name, f'schedule.kind = "{schedule.kind}"') for name in _SCHEDULE_NEEDS[schedule.kind]]
    if schedule.scale_invariant:
        needs.append(("tuned_for", "schedule.scale_invariant"))
        if "batch" not in unknown:
            crossed += _scale_invariant_problems(spec)
    return crossed + [
        FieldProblem(f"schedule.{name}", "", f"required with {what}: {describe(type(schedule).model_fields[name])}")
        for name, what in needs
        if getattr(schedule, name) is None
    ]


def _scale_invariant_problems(spec: JobSpec) -> Iterator[FieldProblem]:
    tuned_for, batch = spec.schedule.tuned_for, spec.batch
    if tuned_for is not None and tuned_for > batch.size:
        yield FieldProblem("schedule.tuned_for", str(tuned_for), f"must be at most batch.size = {batch.size}")
    if batch.shards < 2:
        what = "must be at least 2 with schedule.scale_invariant: the gain is estimated from how far shards differ"
        yield FieldProblem("batch.shards", str(batch.shards), what)


def describe(field: FieldInfo | None) -> str:
    """What a field accepts, in words, read from its annotation: "an integer, at least 1, at most 1024"."""
    if field is None:
        return "a table"
    return _words(field.annotation, field.metadata)


def show(value: object) -> str:
    """A value as the user would write it in TOML, cut to a length that fits a terminal line."""
    try:
        text = json.dumps(value, ensure_ascii=False)
    except (TypeError, ValueError):
        text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."


def _words(annotation: Any, metadata: Iterable[Any]) -> str:
    origin = typing.get_origin(annotation)
    if origin is typing.Annotated:
        inner, *extra = typing.get_args(annotation)
        return _words(inner, [*metadata, *(constraint for field in extra for constraint in _constraints(field))])
    if origin is typing.Literal:
        return "one of " + ", ".join(f'"{choice}"' for choice in typing.get_args(annotation))
    if origin in (typing.Union, types.UnionType):
        options = [option for option in typing.get_args(annotation) if option is not type(None)]
        return " or ".join(_words(option, metadata) for option in options)
    if origin is tuple:
        return f"a list, each entry {_words(typing.get_args(annotation)[0], ())}"
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return "a table"
    parts = [_TYPE_WORDS[annotation]]
    for constraint in metadata:
        parts += [
            f"{words} {getattr(constraint, name)}" for kind, name, words in _BOUND_WORDS if isinstance(constraint, kind)
        ]
        if isinstance(constraint, bounds.MinLen):
            parts.append("not empty")
        if getattr(constraint, "pattern", None):
            parts.append("of letters, digits and . _ - (at most 64, the first a letter or digit)")
    return ", ".join(parts)


def _constraints(field: Any) -> list[Any]:
    return list(field.metadata) if isinstance(field, FieldInfo) else [field]


def _field(model: type[BaseModel], path: tuple[int | str, ...]) -> FieldInfo | None:
    """The definition of the field at `path`; entries of a list belong to the list's field."""
    field: FieldInfo | None = None
    current: Any = model
    for part in path:
        if not (isinstance(current, type) and issubclass(current, BaseModel)):
            return field
        field = current.model_fields[str(part)]
        current = field.annotation
    return field


def _unknown_key(model: type[BaseModel], path: tuple[int | str, ...]) -> str:
    table = _field(model, path[:-1])
    fields = (table.annotation if table else model).model_fields  # type: ignore[union-attr]  # unknown keys stand in tables only
    close = difflib.get_close_matches(str(path[-1]), fields, n=1)
    hint = f"did you mean {_dotted((*path[:-1], close[0]))}? " if close else ""
    return f"unknown key; {hint}known here: {', '.join(fields)}"


def _cross_problems_beside(model: type[BaseModel], given: Mapping[str, Any], wrong: set[str]) -> list[FieldProblem]:
    """Cross-field problems of the sections that are right by themselves, so that one run reports everything."""
    sections = {path.split(".")[0] for path in wrong}
    kept = {name: value for name, value in given.items() if name not in sections}
    tables: dict[str, Any] = {
        name: field.annotation.model_validate(kept[name])
        for name, field in model.model_fields.items()
        if name in kept and isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel)
    }
    probe = model.model_construct(**tables)
    return cross_problems(probe, sections)  # type: ignore[arg-type]  # a JobSpec but for its static type


def _dotted(path: tuple[int | str, ...]) -> str:
    text = ""
    for part in path:
        text += f"[{part}]" if isinstance(part, int) else f".{part}" if text else part
    return text
