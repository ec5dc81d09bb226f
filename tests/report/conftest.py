"""Writes reports and reads them back."""

import pytest
from reports import Page, job, run, summary

from shardsgd.coordinator.report import write_report


@pytest.fixture
def report(tmp_path):
    def write(spec=None, ending=None, records=None, steps_per_epoch=6, incidents=()):
        path = tmp_path / "report.html"
        steps, validations = records if records is not None else run(180)
        write_report(
            path,
            spec=spec or job(),
            summary=ending or summary(),
            steps=steps,
            validations=validations,
            steps_per_epoch=steps_per_epoch,
            incidents=incidents,
        )
        return Page(path.read_text(encoding="utf-8"))

    return write
