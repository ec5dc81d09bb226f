"""NumPy memory that programs read where it lies."""

import mmap

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from shardsgd.model.aliases import alias
from shardsgd.model.layout import aligned_zeros

DTYPES = [np.dtype(dtype) for dtype in (np.float32, np.float64, np.int32)]


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", [(40,), (5, 8), (1, 1)])
def test_a_program_reads_what_the_memory_holds_when_it_is_called(shape, dtype):
    memory = aligned_zeros(shape, dtype)
    aliased = alias(memory)
    assert (aliased.shape, aliased.dtype) == (shape, dtype)
    twice = jax.jit(lambda x: 2 * x)
    results = []
    for number in range(5):
        memory[...] = number + np.arange(memory.size).reshape(shape)
        results.append(jax.block_until_ready(twice(aliased)))
    for number, result in enumerate(results):
        np.testing.assert_array_equal(result, 2 * (number + np.arange(memory.size).reshape(shape)))
    assert twice._cache_size() == 1


def test_memory_shared_with_another_process_can_be_aliased():
    with mmap.mmap(-1, mmap.PAGESIZE) as shared:
        memory = np.frombuffer(shared, np.float64)
        aliased = alias(memory[8:])
        shared[64:72] = np.float64(3.5).tobytes()
        assert float(jax.jit(jnp.sum)(aliased)) == 3.5
        del aliased, memory


@pytest.mark.parametrize("dtype", DTYPES)
def test_memory_that_would_be_copied_is_refused(dtype):
    memory = aligned_zeros((64,), dtype)
    for first in range(1, 64 // dtype.itemsize):
        with pytest.raises(ValueError, match="copy"):
            alias(memory[first:])
    assert alias(memory[64 // dtype.itemsize :]).shape == (64 - 64 // dtype.itemsize,)


def test_memory_that_may_not_be_written_is_refused():
    memory = aligned_zeros((64,), DTYPES[0])
    memory.flags.writeable = False
    with pytest.raises(BufferError):
        alias(memory)


def test_gaps_are_refused():
    with pytest.raises(jax.errors.JaxRuntimeError, match="strid"):
        alias(aligned_zeros((64,), DTYPES[0])[::2])
