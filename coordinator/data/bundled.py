"""The small real datasets that come with scikit-learn."""

from __future__ import annotations

from shardsgd.coordinator.data.dataset import Table

BUNDLED = ("digits", "breast_cancer", "diabetes", "iris", "wine")


def read_bundled(name: str) -> Table:
    """Reads the set called `name`, one of `BUNDLED`; labels are numbers, as in scikit-learn."""
    from sklearn import datasets  # noqa: PLC0415  # a second of import time, which other sources need not pay

    bunch = getattr(datasets, f"load_{name}")()
    return Table(bunch.data, bunch.target, tuple(str(feature) for feature in bunch.feature_names), name)
