"""The NPY format, read without trusting it: never a pickle, never more memory than the file has bytes."""

from __future__ import annotations

import math
import tokenize
import warnings
from typing import IO, Any

import numpy as np
from numpy.lib import format as npy

from shardsgd.coordinator.data.dataset import Array
from shardsgd.errors import DataError

_HEADER_READERS = {(1, 0): npy.read_array_header_1_0, (2, 0): npy.read_array_header_2_0}

# What NumPy's header parser was seen to raise on damaged headers (fuzzed with NumPy 2.4).
_HEADER_ERRORS = (ValueError, TypeError, SyntaxError, tokenize.TokenError, RecursionError, MemoryError, OverflowError)

_MAX_ITEM_BYTES = 8  # wider floats would lose digits without notice


def read_array(file: IO[bytes], size: int, where: str, texts: bool = False) -> Array:
    """Reads one array of numbers.

    Args:
        file: at the beginning of the array's magic bytes.
        size: bytes of the whole file or archive member.
        where: what errors call the array.
        texts: whether an array of texts is accepted too.

    Raises:
        DataError: the array is damaged or holds something else.
    """
    shape, fortran, dtype = _read_header(file, where)
    _check_dtype(dtype, where, texts)
    # Compared before anything is allocated: a header may claim any shape.
    claimed, present = math.prod(shape) * dtype.itemsize, size - file.tell()
    if claimed != present or min(shape, default=0) < 0:
        raise DataError(f"{where}: damaged: shape {shape} of {dtype} takes {claimed} bytes, but {present} are there")
    flat = np.frombuffer(file.read(claimed), dtype)
    if flat.nbytes != claimed:
        raise DataError(f"{where}: damaged: ends after {flat.nbytes} of {claimed} bytes")
    array = flat.reshape(shape[::-1]).T if fortran else flat.reshape(shape)
    return array.astype(dtype.newbyteorder("="), copy=False)


def _read_header(file: IO[bytes], where: str) -> tuple[tuple[int, ...], bool, np.dtype[Any]]:
    try:
        version = npy.read_magic(file)
        if version not in _HEADER_READERS:
            raise DataError(f"{where}: NPY version {version[0]}.{version[1]}; accepted: 1.0 and 2.0")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about headers of Python 2 and old type names, which are read all the same
            return _HEADER_READERS[version](file)
    except _HEADER_ERRORS as error:
        raise DataError(f"{where}: not a NumPy array: {str(error).splitlines()[0]}") from None


def _check_dtype(dtype: np.dtype[Any], where: str, texts: bool) -> None:
    if dtype.hasobject:
        raise DataError(f"{where}: holds Python objects; object arrays and pickles are never read")
    if dtype.names is not None or dtype.subdtype is not None:
        raise DataError(f"{where}: structured type {dtype}; accepted: one plain array of numbers")
    accepted = "integers, floats of up to 64 bits, booleans" + (", texts" if texts else "")
    is_number = dtype.kind in "biuf" and dtype.itemsize <= _MAX_ITEM_BYTES
    if not is_number and not (texts and dtype.kind == "U"):
        raise DataError(f"{where}: type {dtype}; accepted: {accepted}")
