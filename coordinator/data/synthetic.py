"""Made data with a known answer: `synthetic:linear,rows=1000,features=10,noise=0.1`.

Numbers are counter-based, so a source names its data, whatever the job's own seed. (The last bits of normal numbers are
up to the machine's logarithm and cosine.)
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from shardsgd.coordinator.data.dataset import Table
from shardsgd.coordinator.data.wording import suggestion
from shardsgd.errors import DataError
from shardsgd.model.sampling import Stream, random_unit
from shardsgd.spec_problems import show

PREFIX = "synthetic:"
EXAMPLES = (
    '"synthetic:linear,rows=1000,features=10,noise=0.1", "synthetic:blobs,rows=1000,features=10,classes=3,spread=1.0"'
)

# Lanes of Stream.SYNTHETIC.
_ANSWER, _FEATURES, _NOISE, _CENTERS = range(4)

_MAX_CELLS = 2**28  # 2 GiB of float64: above this a typing error is likelier than a wish
_CENTER_BOX = 10.0  # centers lie in [-10, 10), far apart for a spread of 1


@dataclass(frozen=True)
class _Parameter:
    default: float
    low: float
    high: float
    whole: bool

    def read(self, text: str) -> float | None:
        """The number that `text` spells, or None where it is not accepted."""
        try:
            value = int(text) if self.whole else float(text)
        except ValueError:
            return None
        return value if self.low <= value <= self.high else None

    def __str__(self) -> str:
        return f"{'an integer' if self.whole else 'a number'} from {self.low} to {self.high}"


_COMMON = {
    "rows": _Parameter(1000, 1, _MAX_CELLS, whole=True),
    "features": _Parameter(10, 1, _MAX_CELLS, whole=True),
    "seed": _Parameter(0, 0, 2**63 - 1, whole=True),
}
_KINDS = {
    "linear": _COMMON | {"noise": _Parameter(0.1, 0, 1e6, whole=False)},
    "blobs": _COMMON | {"classes": _Parameter(3, 2, 1000, whole=True), "spread": _Parameter(1.0, 0, 1e6, whole=False)},
}


def read_synthetic(source: str) -> Table:
    """Makes the rows that `source` describes.

    Raises:
        DataError: the kind or a parameter is unknown or out of bounds.
    """
    kind, values = _parse(source)
    rows, features, seed = (int(values[name]) for name in ("rows", "features", "seed"))
    names = tuple(f"x{column}" for column in range(features))
    x = _normals(seed, _FEATURES, rows * features).reshape(rows, features)
    if kind == "linear":
        # Not x @ w, whose last bits depend on the threads of the linear algebra library.
        y = (x * _answer(seed, features)).sum(axis=1) + values["noise"] * _normals(seed, _NOISE, rows)
        return Table(x, y, names, source)
    classes = int(values["classes"])
    numbers = np.arange(rows) % classes
    unit = random_unit(seed, Stream.SYNTHETIC, _CENTERS, 0, classes * features).reshape(classes, features)
    centers = (2 * unit - 1) * _CENTER_BOX
    return Table(centers[numbers] + values["spread"] * x, numbers, names, source)


def linear_answer(source: str) -> NDArray[np.float64]:
    """The true w of a `synthetic:linear` source, [features]: its labels are Xw + noise·ε."""
    _, values = _parse(source)
    return _answer(int(values["seed"]), int(values["features"]))


def _answer(seed: int, features: int) -> NDArray[np.float64]:
    return _normals(seed, _ANSWER, features)


def _normals(seed: int, lane: int, count: int) -> NDArray[np.float64]:
    """`count` standard normal numbers (Box and Muller 1958, "A note on the generation of random normal deviates")."""
    first, second = random_unit(seed, Stream.SYNTHETIC, lane, 0, 2 * -(-count // 2)).reshape(-1, 2).T
    radius = np.sqrt(-2 * np.log1p(-first))  # 1 - u is in (0, 1], where the logarithm is finite
    angle = 2 * math.pi * second
    return np.stack([radius * np.cos(angle), radius * np.sin(angle)], axis=1).ravel()[:count]


def _parse(source: str) -> tuple[str, dict[str, float]]:
    kind, *assignments = (part.strip() for part in source.removeprefix(PREFIX).split(","))
    if kind not in _KINDS:
        raise DataError(
            f"data.source = {show(source)}: unknown kind {show(kind)}; {suggestion(kind, _KINDS)}accepted: {EXAMPLES}"
        )
    known = _KINDS[kind]
    given: dict[str, float] = {}
    for assignment in assignments:
        name, _, text = (part.strip() for part in assignment.partition("="))
        if name not in known:
            accepted = ", ".join(f"{parameter}=…" for parameter in known)
            raise DataError(
                f"data.source = {show(source)}: unknown parameter {show(name)}; "
                f"{suggestion(name, known)}accepted: {accepted}"
            )
        if name in given:
            raise DataError(f"data.source = {show(source)}: {name} is given twice; accepted: once")
        value = known[name].read(text)
        if value is None:
            raise DataError(f"data.source = {show(source)}: {name} = {show(text)}; accepted: {known[name]}")
        given[name] = value
    values = {name: given.get(name, parameter.default) for name, parameter in known.items()}
    if values["rows"] * values["features"] > _MAX_CELLS:
        raise DataError(
            f"data.source = {show(source)}: rows times features is more than {_MAX_CELLS}, the most that is made"
        )
    return kind, values
