"""Named arrays in one flat, aligned buffer."""

import hashlib
import math

import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from trees import blocks_of, padding

from shardsgd.model.layout import BLOCK, Layout, aligned_zeros, block_spans, parameters_sha256
from shardsgd.model.networks import Network

DTYPES = [np.dtype(np.float32), np.dtype(np.float64)]
shape_lists = st.lists(st.lists(st.integers(1, 9), max_size=3).map(tuple), min_size=1, max_size=8)


def packed(shapes, dtype=DTYPES[0]):
    return Layout.pack([(f"array{i}", shape) for i, shape in enumerate(shapes)], dtype)


@given(shape_lists, st.sampled_from(DTYPES))
def test_arrays_are_aligned_and_apart(shapes, dtype):
    layout = packed(shapes, dtype)
    assert [entry.shape for entry in layout.entries] == shapes
    end = 0
    for entry in layout.entries:
        assert entry.offset * dtype.itemsize % 64 == 0
        assert end <= entry.offset < end + 64 // dtype.itemsize
        end = entry.span.stop
        assert end - entry.offset == entry.size == math.prod(entry.shape)
    assert end <= layout.length < end + 64 // dtype.itemsize
    assert layout.nbytes % 64 == 0
    assert layout.nbytes == layout.zeros().nbytes
    assert layout.parameters == sum(math.prod(shape) for shape in shapes) == layout.length - padding(layout).sum()


@given(shape_lists, st.sampled_from(DTYPES))
def test_zeros_are_zero_and_aligned(shapes, dtype):
    layout = packed(shapes, dtype)
    kept = [layout.zeros() for _ in range(5)]
    for flat in kept:
        assert flat.ctypes.data % 64 == 0
        assert flat.shape == (layout.length,)
        assert flat.dtype == dtype
        assert flat.flags.writeable
        assert not flat.any()


@given(st.lists(st.integers(1, 9), max_size=3).map(tuple), st.sampled_from([*DTYPES, np.dtype(np.int32)]))
def test_aligned_zeros_of_any_shape(shape, dtype):
    for array in [aligned_zeros(shape, dtype) for _ in range(5)]:
        assert array.ctypes.data % 64 == 0
        assert (array.shape, array.dtype) == (shape, dtype)
        assert array.flags.writeable
        assert array.flags.c_contiguous
        assert not array.any()


@given(st.integers(0, 500), st.integers(1, 90))
def test_blocks_are_the_whole_in_order_and_full_but_the_last(length, block):
    with blocks_of(block):
        spans = block_spans(length)
    assert [element for span in spans for element in range(length)[span]] == list(range(length))
    sizes = [span.stop - span.start for span in spans]
    assert all(size == block for size in sizes[:-1])
    assert all(0 < size <= block for size in sizes)


def test_a_layouts_blocks_are_those_of_its_buffer_padding_included():
    layout = packed([(300, 300), (5,)])
    assert layout.blocks == (slice(0, BLOCK), slice(BLOCK, 90_016)) == block_spans(len(layout.zeros()))


@given(shape_lists)
def test_views_share_memory(shapes):
    layout = packed(shapes)
    flat = layout.zeros()
    for number, (view, entry) in enumerate(zip(layout.views(flat).values(), layout.entries, strict=True), start=1):
        assert view.shape == entry.shape
        assert view.ctypes.data == flat.ctypes.data + entry.offset * flat.itemsize
        view[...] = number
        assert np.all(flat[entry.span] == number)


def test_views_of_a_jax_array_have_the_same_values():
    layout = packed([(2, 3), (4,)])
    flat = np.arange(layout.length, dtype=np.float32)
    for name, view in layout.views(jnp.asarray(flat)).items():
        np.testing.assert_array_equal(view, layout.views(flat)[name])


@given(shape_lists, st.sampled_from(DTYPES))
def test_fill_copies_by_name_and_leaves_padding_alone(shapes, dtype):
    layout = packed(shapes, dtype)
    arrays = {e.name: np.arange(1, e.size + 1).reshape(e.shape) * 0.1 + i for i, e in enumerate(layout.entries)}
    flat = layout.zeros()
    assert layout.fill(flat, dict(reversed(arrays.items()))) is flat
    for name, view in layout.views(flat).items():
        np.testing.assert_array_equal(view, arrays[name].astype(dtype))
    assert not flat[padding(layout)].any()


def test_fill_refuses_what_is_missing_or_misshapen():
    layout = packed([(2, 3), (4,)])
    with pytest.raises(KeyError):
        layout.fill(layout.zeros(), {"array0": np.zeros((2, 3))})
    with pytest.raises(ValueError, match=r"array0 has shape \(3, 2\), not \(2, 3\)"):
        layout.fill(layout.zeros(), {"array0": np.zeros((3, 2)), "array1": np.zeros(4)})


def test_layout_of_a_network():
    layout = Network(30, (8, 5), 3, "relu").layout(DTYPES[0])
    names = ["layer0.weight", "layer0.bias", "layer1.weight", "layer1.bias", "layer2.weight", "layer2.bias"]
    assert [entry.name for entry in layout.entries] == names
    assert [entry.shape for entry in layout.entries] == [(30, 8), (8,), (8, 5), (5,), (5, 3), (3,)]
    assert [entry.is_weight for entry in layout.entries] == [True, False] * 3
    assert layout.parameters == 30 * 8 + 8 + 8 * 5 + 5 + 5 * 3 + 3


@pytest.mark.parametrize("dtype", DTYPES)
def test_sha256_is_over_little_endian_bytes_in_order_of_names(dtype):
    random = np.random.default_rng(0)
    arrays = {name: random.normal(size=(3, 2)).astype(dtype) for name in ("b", "a", "layer10.bias", "layer2.bias")}
    code = "<" + dtype.char
    data = b"".join(
        b"".join(np.array(value, code).tobytes() for value in arrays[name].ravel().tolist())
        for name in ("a", "b", "layer10.bias", "layer2.bias")
    )
    expected = hashlib.sha256(data).hexdigest()
    assert parameters_sha256(arrays) == expected
    assert parameters_sha256(dict(reversed(arrays.items()))) == expected
    big_endian = {name: array.astype(dtype.newbyteorder(">")) for name, array in arrays.items()}
    assert parameters_sha256(big_endian) == expected
    column_major = {name: np.asfortranarray(array) for name, array in arrays.items()}
    assert parameters_sha256(column_major) == expected
    assert parameters_sha256(arrays | {"a": np.nextafter(arrays["a"], 9).astype(dtype)}) != expected


def test_sha256_does_not_see_padding():
    layout = packed([(3,), (5,)])
    flat = layout.zeros()
    before = parameters_sha256(layout.views(flat))
    flat[padding(layout)] = 1
    assert parameters_sha256(layout.views(flat)) == before
