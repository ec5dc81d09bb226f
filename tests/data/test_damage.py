"""Whatever happens to a file's bytes, it is read or refused in one line."""

import gzip
import io
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from shardsgd.coordinator.data import read_table
from shardsgd.errors import DataError
from shardsgd.spec import Data

IDX = b"\0\0\x08\x02\0\0\0\x03\0\0\0\x02abcdef"


def saved(write, *arguments, **fields):
    buffer = io.BytesIO()
    write(buffer, *arguments, **fields)
    return buffer.getvalue()


def parquet_bytes():
    table = pa.table({"a": [1.0, 2.0, 3.0], "label": ["x", "y", "x"]})
    return saved(lambda buffer: pq.write_table(table, buffer))


FILES = {
    "t.csv": b'a,b,label\n1,2.5,x\n3,"4",y\n5,6,"x"\n7,8,y\n',
    "t.parquet": parquet_bytes(),
    "t.npz": saved(np.savez_compressed, x=np.eye(3), label=np.arange(3)),
    "t.npy": saved(np.save, np.eye(3)),
    "t-images-idx2": IDX,
    "u-images-idx2.gz": gzip.compress(IDX, mtime=0),
}


@st.composite
def damaged(draw, content):
    content = bytearray(content)
    for _ in range(draw(st.integers(1, 3))):
        place = draw(st.integers(0, len(content) - 1))
        cut = draw(st.sampled_from([0, 1, 1, 1, 20]))
        content[place : place + cut] = draw(
            st.one_of(st.binary(max_size=1), st.sampled_from([b",", b'"', b"\n", b"\xff"]))
        )
        content = content or bytearray(b"\0")
    return bytes(content)


@pytest.mark.parametrize("name", FILES)
def test_damage(name):
    for stem in "tu":
        Path(f"{stem}-labels-idx1").write_bytes(b"\0\0\x08\x01\0\0\0\x03\0\1\0")

    @given(damaged(FILES[name]))
    def is_read_or_refused(content):
        Path(name).write_bytes(content)
        try:
            table = read_table(Data(source=f"./{name}"))
        except DataError as error:
            message = str(error)
        else:
            assert table.features.shape == (len(table.labels), len(table.feature_names))
            return
        assert len(message.splitlines()) == 1
        assert name in message

    Path(name).write_bytes(FILES[name])
    assert len(read_table(Data(source=f"./{name}")).labels) > 2
    is_read_or_refused()
