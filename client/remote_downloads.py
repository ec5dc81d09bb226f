"""Fetching a job's parameters: whole and checked, through every break of the connection."""

from __future__ import annotations

import hashlib
import tempfile
from collections.abc import Mapping
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

from shardsgd.coordinator.files import replace_file
from shardsgd.errors import InputError, ServiceUnavailableError, TransferError
from shardsgd.protos import training_pb2 as pb
from shardsgd.remote_calls import Calls
from shardsgd.remote_info import Download
from shardsgd.remote_patience import Patience

if TYPE_CHECKING:
    from numpy.typing import NDArray

# Deadline of one stream; the next one goes on where it ends.
_STREAM_S = 600.0


def download_file(calls: Calls, job_id: str, path: Path, patience: Patience) -> Download:
    """Fetches the parameters into a file, which is there once it is whole, or not at all.

    Raises:
        InputError: the file cannot be written.
        TransferError: what arrived is not what was sent.
        RemoteError: the service refuses, failed or is out of reach.
    """
    if path.is_dir():
        raise InputError(f"{path}: is a folder; expected the name of a file to write")
    try:
        return replace_file(path, lambda file: _Transfer(calls, job_id, file).run(patience))
    except OSError as error:
        raise InputError(f"{path}: cannot be written: {error.strerror or error}") from None


def download_arrays(calls: Calls, job_id: str, patience: Patience) -> dict[str, NDArray[Any]]:
    """Fetches the parameters as arrays by name, through a temporary file.

    Raises:
        TransferError: what arrived is not what was sent.
        RemoteError: the service refuses, failed or is out of reach.
    """
    with tempfile.TemporaryDirectory(prefix="shardsgd-") as folder:
        path = Path(folder) / "parameters.safetensors"
        return read_parameters(path, download_file(calls, job_id, path, patience).parameters_sha256)


def read_parameters(path: Path, parameters_sha256: str) -> dict[str, NDArray[Any]]:
    """The arrays of a file, in order of their names, checked.

    Raises:
        TransferError: they are not those of the checksum, or the file holds something else.
    """
    from safetensors import SafetensorError  # noqa: PLC0415  # loads NumPy, which `import shardsgd` does not
    from safetensors.numpy import load_file  # noqa: PLC0415

    from shardsgd.model.layout import parameters_sha256 as digest  # noqa: PLC0415

    try:
        arrays: Mapping[str, NDArray[Any]] = load_file(path)
    except SafetensorError as error:
        raise TransferError(f"what was downloaded is not a safetensors file: {error}") from None
    if digest(arrays) != parameters_sha256:
        raise TransferError(f"the parameters are not those that the service promised (sha256 {parameters_sha256[:16]})")
    return {name: arrays[name] for name in sorted(arrays)}


class _Transfer:
    """One file on its way."""

    def __init__(self, calls: Calls, job_id: str, file: BinaryIO) -> None:
        self._calls = calls
        self._job_id = job_id
        self._file = file
        self._header: pb.ParametersHeader | None = None
        self._offset = 0
        self._digest = hashlib.sha256()

    def run(self, patience: Patience) -> Download:
        """From the first byte to the last."""
        while not self._is_whole:
            try:
                self._go_on(patience)
            except ServiceUnavailableError as error:
                if not self._is_whole:
                    patience.after(error)
        assert self._header is not None, "a whole file has a header"
        if self._digest.hexdigest() != self._header.sha256:
            raise TransferError(f"job {self._job_id}: the download is damaged (its sha256 is not the promised one)")
        return Download(self._header.size_bytes, self._header.sha256, self._header.parameters_sha256)

    @property
    def _is_whole(self) -> bool:
        return self._header is not None and self._offset == self._header.size_bytes

    def _go_on(self, patience: Patience) -> None:
        """Takes what a stream brings; it may break."""
        request = pb.DownloadParametersRequest(job_id=self._job_id, offset_bytes=self._offset)
        with closing(self._calls.stream(request, pb.DownloadParametersResponse, timeout_s=_STREAM_S)) as stream:
            first = next(stream, None)
            if first is None or first.WhichOneof("part") != "header":
                raise TransferError(f"job {self._job_id}: the download does not begin with its header")
            if self._header is not None and self._header != first.header:
                self._start_over()  # the job went on and paused again: these are other parameters
                return
            self._header = first.header
            for message in stream:
                self._take(message.chunk)
                patience.encouraged()
        if not self._is_whole:
            raise TransferError(
                f"job {self._job_id}: the download ended after {self._offset} of {self._header.size_bytes} bytes"
            )

    def _take(self, chunk: bytes) -> None:
        assert self._header is not None, "the header comes first"
        if self._offset + len(chunk) > self._header.size_bytes:
            raise TransferError(f"job {self._job_id}: the download goes on after its {self._header.size_bytes} bytes")
        self._file.write(chunk)
        self._digest.update(chunk)
        self._offset += len(chunk)

    def _start_over(self) -> None:
        self._file.seek(0)
        self._file.truncate()
        self._header, self._offset, self._digest = None, 0, hashlib.sha256()
