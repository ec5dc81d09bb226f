"""The output folder of a measurement: job.toml, variance.csv, variance.json and report.html."""

from __future__ import annotations

import csv
import fcntl
import io
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, fields
from pathlib import Path

from shardsgd.coordinator.files import remove_temporary, write_atomically
from shardsgd.coordinator.variance.records import Cell, Variance, as_json
from shardsgd.errors import InputError
from shardsgd.spec import JobSpec
from shardsgd.spec_files import spec_toml

_SPEC, _CSV, _JSON, _REPORT = "job.toml", "variance.csv", "variance.json", "report.html"
# What a training run has and a measurement has not.
_OF_A_RUN = ("metrics.jsonl", "summary.json", "checkpoints")


class VarianceFolder:
    """Paths and writers of one measurement's files.

    Attributes:
        path: the folder.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    @contextmanager
    def claimed(self, spec: JobSpec) -> Iterator[None]:
        """Owns the folder for the length of a block; makes it, writes job.toml, removes what an earlier measurement left.

        Raises:
            InputError: it cannot be written, holds a training run, or another measurement writes to it.
        """
        of_a_run = [name for name in _OF_A_RUN if (self.path / name).exists()]
        if of_a_run:
            raise InputError(f"--out {self.path}: holds a training run ({of_a_run[0]}); accepted: another folder")
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            handle = os.open(self.path, os.O_RDONLY)
        except OSError as error:
            raise self._unwritable(error) from None
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            for name in (_CSV, _JSON, _REPORT):
                (self.path / name).unlink(missing_ok=True)
            for name in (_SPEC, _CSV, _JSON, _REPORT):
                remove_temporary(self.path, name)
            write_atomically(self.path / _SPEC, spec_toml(spec).encode())
        except BlockingIOError:
            os.close(handle)
            raise InputError(f"--out {self.path}: another measurement is writing to this folder") from None
        except OSError as error:
            os.close(handle)
            raise self._unwritable(error) from None
        try:
            yield
        finally:
            os.close(handle)

    def write(self, variance: Variance) -> None:
        """variance.csv and variance.json."""
        write_atomically(self.path / _CSV, _csv(variance).encode())
        write_atomically(self.path / _JSON, (json.dumps(as_json(variance), indent=2) + "\n").encode())

    def write_report(self, page: bytes) -> None:
        """report.html."""
        write_atomically(self.path / _REPORT, page)

    def _unwritable(self, error: OSError) -> InputError:
        return InputError(f"--out {self.path}: cannot be written: {error.strerror or error}")


def _csv(variance: Variance) -> str:
    """A line for each cell of the overall law; numbers with all their digits."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow([field.name for field in fields(Cell)])
    writer.writerows(asdict(cell).values() for cell in variance.law.cells)
    return text.getvalue()
