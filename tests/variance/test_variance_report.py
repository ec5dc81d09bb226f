"""report.html and the terminal's tables of measurements of every kind."""

import io
import re
from pathlib import Path

import numpy as np
import pytest
from reports import Page, job, texts_of
from rich.console import Console

from shardsgd.coordinator.variance.records import DRAWS, Layer, Variance, law_of
from shardsgd.coordinator.variance.report import variance_report
from shardsgd.variance_view import variance_tables

ROWS = 100
NAMES = ("layer0.weight", "layer0.bias")


def law(trace, sizes, *, norm=0.5, draws=DRAWS, spread=0.1):
    random = np.random.default_rng(0)

    def squared(draw, size):
        factor = 1.0 if draw == "with_replacement" else (ROWS - size) / (ROWS - 1)
        return trace / size * factor * (1 + spread * random.normal(size=20))

    return law_of(trace, norm, ROWS, [(draw, size, squared(draw, size)) for size in sizes for draw in draws])


def measured(sizes=(1, 4, 16, 64, 100), *, trace=3.0, names=NAMES, **changes):
    layers = tuple(Layer(name, 12, law(trace / (place + 2), sizes)) for place, name in enumerate(names))
    fields = {
        "name": "digits-mlp",
        "state": "SUCCEEDED",
        "reason": "all 10 cells are measured",
        "rows": ROWS,
        "repeats": 20,
        "seed": 7,
        "step": 42,
        "law": law(trace, sizes),
        "layers": layers,
    }
    return Variance(**fields | changes)


def read(variance):
    return Page(variance_report(variance, job()).decode())


def terminal(variance):
    console = Console(width=100, record=True, file=io.StringIO())
    console.print(variance_tables(variance, Path("runs/x")))
    return console.export_text()


def test_pictures_figures_and_tables_are_there():
    page = read(measured())
    assert list(page.pictures) == [
        "Variance, drawn with replacement",
        "Variance, drawn without replacement",
        "Measured over predicted variance",
        "Variance of each parameter array",
    ]
    for svg in list(page.pictures.values()):
        assert "batch size B (rows)" in texts_of(svg)
    for text in (
        "digits-mlp: variance of the gradient",
        "SUCCEEDED: all 10 cells are measured",
        "slope with replacement −1".replace("−1", "-"),
        "tr Σ, exact, divisor n 3.0",
        "parameters after 42 steps",
        "layer0.weight 12 1.5 50.00%",
        "layer0.bias 12 1 33.33%",
    ):
        assert text in page.text, text
    assert all(caption.endswith(".") for caption in page.captions)


def test_the_page_needs_nothing_from_outside():
    page = read(measured())
    assert not {"script", "link", "img", "iframe"} & set(page.tags)
    assert "http" not in re.sub(r'xmlns(:\w+)?="[^"]*"', "", page.source).replace("http-equiv", "")
    ids = [value for _, name, value in page.attributes if name == "id"]
    assert len(ids) == len(set(ids))


def test_what_a_reason_or_a_name_says_is_no_markup():
    nasty = "<script>alert(1)</script> & [bold]"
    page = read(measured(names=(nasty, "b"), state="FAILED", reason=nasty))
    assert "script" not in page.tags
    assert nasty in page.text
    assert nasty in terminal(measured(reason=nasty))


def test_the_same_measurement_gives_the_same_bytes():
    assert variance_report(measured(), job()) == variance_report(measured(), job())


@pytest.mark.parametrize(
    "variance",
    [
        measured(()),
        measured((1,)),
        measured((100,)),
        measured((3, 4)),
        measured(trace=0.0, law=law(0.0, (1, 2), norm=0.0)),
        measured(step=None, repeats=None, state="INTERRUPTED", reason="interrupted after 0 of 4 cells"),
        measured(law=law(3.0, (1, 2), draws=("with_replacement",))),
        measured(law=law_of(3.0, 1.0, ROWS, [("with_replacement", 2, np.array([np.inf, 1.0]))])),
        measured(names=tuple(f"layer{number}.weight" for number in range(30))),
        measured(tuple(range(1, 101))),
    ],
    ids=["nothing", "one row", "all rows", "two sizes", "no variance", "unknown step", "half", "inf", "deep", "dense"],
)
def test_measurements_of_every_kind_have_a_page_and_tables(variance):
    page = read(variance)
    assert variance.state in page.text
    text = terminal(variance)
    assert "runs/x" in text
    for layer in variance.layers:
        assert layer.name in text


def test_the_table_has_a_line_for_each_cell():
    lines = terminal(measured((1, 4, 100))).splitlines()
    starts = [" ".join(line.split()[:3]) for line in lines]
    assert [start for start in starts if re.match(r"(with|without)? ?\d", start)] == [
        "with 1 20", "4 20 " + starts[3].split()[2], "100 20 " + starts[4].split()[2],
        "without 1 20", "4 20 " + starts[6].split()[2], "100 20 " + starts[7].split()[2],
    ]  # fmt: skip
