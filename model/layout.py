"""Parameters and gradients as one flat buffer with a named layout; arrays are views of it, never copies."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple, Self

import numpy as np
from numpy.typing import NDArray

Flat = NDArray[Any]

# XLA:CPU takes a NumPy array without copying it only where it is aligned so; it is also a cache line.
ALIGNMENT_BYTES = 64

# Elements of a block. What an update reads and writes of one (θ, sums, optimizer slots) stays in a core's cache; what NumPy's
# calls cost by themselves (10 µs) is small beside it. Of 32, 64 and 128 Ki the fastest.
BLOCK = 1 << 16


def aligned_zeros(shape: tuple[int, ...], dtype: np.dtype[Any]) -> NDArray[Any]:
    """A zeroed array that starts on a 64-byte boundary."""
    nbytes = math.prod(shape) * dtype.itemsize
    memory = np.zeros(nbytes + ALIGNMENT_BYTES, np.uint8)
    start = -memory.ctypes.data % ALIGNMENT_BYTES
    return memory[start : start + nbytes].view(dtype).reshape(shape)


def block_spans(length: int) -> tuple[slice, ...]:
    """A flat buffer cut into blocks; the last one may be shorter."""
    return tuple(slice(start, min(start + BLOCK, length)) for start in range(0, length, BLOCK))


@dataclass(frozen=True)
class Entry:
    """One named array within the buffer.

    Attributes:
        name: such as `layer0.weight`.
        shape: of the array.
        offset: of its first element, in elements; a multiple of 64 bytes.
    """

    name: str
    shape: tuple[int, ...]
    offset: int

    @property
    def size(self) -> int:
        """Elements of the array."""
        return math.prod(self.shape)

    @property
    def span(self) -> slice:
        """Where the array lies in the buffer."""
        return slice(self.offset, self.offset + self.size)

    @property
    def is_weight(self) -> bool:
        """Whether regularizers apply: weights yes, biases no."""
        return self.name.endswith(".weight")


class Piece(NamedTuple):
    """What one block holds of one array.

    Attributes:
        entry: number of the array.
        within: where in the flattened array.
        where: where in the buffer.
    """

    entry: int
    within: slice
    where: slice


@dataclass(frozen=True)
class Layout:
    """The arrays of a network in one buffer. Elements between arrays are padding and stay 0.

    Attributes:
        entries: in the order of their offsets, without overlap.
        dtype: of every element.
    """

    entries: tuple[Entry, ...]
    dtype: np.dtype[Any]

    @classmethod
    def pack(cls, shapes: Iterable[tuple[str, tuple[int, ...]]], dtype: np.dtype[Any]) -> Self:
        """Lays arrays out one after another, each on a 64-byte boundary."""
        entries, offset = [], 0
        for name, shape in shapes:
            entry = Entry(name, shape, offset)
            entries.append(entry)
            offset = _aligned(offset + entry.size, dtype)
        return cls(tuple(entries), dtype)

    @cached_property
    def length(self) -> int:
        """Elements of the buffer, padding included."""
        last = self.entries[-1]
        return _aligned(last.offset + last.size, self.dtype)

    @property
    def nbytes(self) -> int:
        """Bytes of the buffer."""
        return self.length * self.dtype.itemsize

    @property
    def parameters(self) -> int:
        """Elements that are parameters, padding excluded."""
        return sum(entry.size for entry in self.entries)

    @cached_property
    def blocks(self) -> tuple[slice, ...]:
        """Of the buffer, in order: the unit of the update."""
        return block_spans(self.length)

    @cached_property
    def pieces(self) -> tuple[tuple[Piece, ...], ...]:
        """What each block holds, in order."""
        return tuple(tuple(self._pieces(block)) for block in self.blocks)

    def zeros(self) -> Flat:
        """A zeroed buffer that starts on a 64-byte boundary."""
        return aligned_zeros((self.length,), self.dtype)

    def views(self, flat: Flat) -> dict[str, NDArray[Any]]:
        """The named arrays of a buffer, sharing its memory. Works on NumPy and JAX arrays (which copy if they must)."""
        return {entry.name: flat[entry.span].reshape(entry.shape) for entry in self.entries}

    def _pieces(self, block: slice) -> Iterator[Piece]:
        for number, entry in enumerate(self.entries):
            start, stop = max(entry.span.start, block.start), min(entry.span.stop, block.stop)
            if start < stop:
                yield Piece(number, slice(start - entry.offset, stop - entry.offset), slice(start, stop))

    def fill(self, flat: Flat, arrays: Mapping[str, Any]) -> Flat:
        """Copies named arrays into a buffer and returns it.

        Raises:
            ValueError: an array has another shape than its entry.
        """
        for name, view in self.views(flat).items():
            array = np.asarray(arrays[name])
            if array.shape != view.shape:
                raise ValueError(f"{name} has shape {array.shape}, not {view.shape}")
            view[...] = array
        return flat


def parameters_sha256(arrays: Mapping[str, NDArray[Any]]) -> str:
    """SHA-256 over the raw little-endian bytes of every array in order of its name."""
    digest = hashlib.sha256()
    for name in sorted(arrays):
        array = np.ascontiguousarray(arrays[name])
        digest.update(array.astype(array.dtype.newbyteorder("<"), copy=False).data)
    return digest.hexdigest()


def _aligned(elements: int, dtype: np.dtype[Any]) -> int:
    unit = ALIGNMENT_BYTES // dtype.itemsize
    return -(-elements // unit) * unit
