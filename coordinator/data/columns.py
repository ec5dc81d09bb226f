"""Which columns are features and which is the label: one rule for every format that has named columns."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from shardsgd.coordinator.data.dataset import Table
from shardsgd.coordinator.data.wording import listing, suggestion
from shardsgd.errors import DataError
from shardsgd.spec import Data
from shardsgd.spec_problems import show

DEFAULT_LABEL = str(Data.model_fields["label"].default)


def choose_columns(names: Sequence[str], data: Data, source: str) -> tuple[str, ...]:
    """The columns to learn from: those of `data.features`, by default all but the label.

    Args:
        names: of all columns of the source.
        data: names the label and, optionally, the features.
        source: what errors call the source.

    Raises:
        DataError: a column is missing, is named twice or has no name, or only the label is left.
    """
    _refuse_repeats(names, f"{source}: two columns are called")
    if data.label not in names:
        hint = suggestion(data.label, names)
        raise DataError(f"{source}: no column {show(data.label)} (data.label); {hint}its columns: {listing(names)}")
    others = [name for name in names if name != data.label]
    if data.features is not None:
        if data.label in data.features:
            raise DataError(
                f"{source}: data.features names {show(data.label)}, which is the label; accepted: {listing(others)}"
            )
        return _checked(data.features, others, source)
    if not others:
        raise DataError(f"{source}: {show(data.label)} is the only column; at least one more is needed to learn from")
    if "" in others:
        # The usual cause is a row index written by pandas, which must not be learned from by accident.
        place = names.index("") + 1
        raise DataError(
            f"{source}: column {place} has no name; name it, or list the columns to learn from in data.features"
        )
    return tuple(others)


def keep_features(table: Table, wanted: tuple[str, ...] | None) -> Table:
    """The table with only the features of `data.features`, in that order; all of them where it is None."""
    if wanted is None:
        return table
    wanted = _checked(wanted, table.feature_names, table.source)
    places = [table.feature_names.index(name) for name in wanted]
    return replace(table, features=table.features[:, places], feature_names=wanted)


def _checked(wanted: tuple[str, ...], known: Sequence[str], source: str) -> tuple[str, ...]:
    _refuse_repeats(wanted, f"{source}: data.features names twice:")
    if unknown := [name for name in wanted if name not in known]:
        hint = suggestion(unknown[0], known)
        raise DataError(f"{source}: no column {show(unknown[0])} (data.features); {hint}accepted: {listing(known)}")
    return wanted


def _refuse_repeats(names: Sequence[str], complaint: str) -> None:
    seen: set[str] = set()
    for name in names:
        if name in seen:
            raise DataError(f"{complaint} {show(name)}; every column may be named once")
        seen.add(name)
