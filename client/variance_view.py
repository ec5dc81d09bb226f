"""What a terminal, a pipe or nobody sees of a measurement of the variance: while it goes, and its tables."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Self, TextIO

from rich.console import Console, Group, RenderableType
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn
from rich.table import Table
from rich.text import Text

from shardsgd.formatting import MISSING, count, number, percent, rows
from shardsgd.progress import discard_output

if TYPE_CHECKING:
    from shardsgd.coordinator.variance.records import Cell, Law, Variance

_LINE_SECONDS = 5.0


class LiveMeasurement:
    """An observer for a terminal: a bar that is redrawn in place and gone at the end.

    Args:
        console: where to draw.
    """

    def __init__(self, console: Console) -> None:
        self._console = console
        self._bar = Progress(
            TextColumn("{task.description}", markup=False),
            BarColumn(bar_width=None),
            TaskProgressColumn(),
            TimeRemainingColumn(),
            console=console,
            transient=True,
        )
        self._task = self._bar.add_task("starting", total=None)

    def __enter__(self) -> Self:
        self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with suppress(OSError):  # the terminal may have gone: that must not cost the measurement its files
            self._bar.stop()

    def phase(self, text: str) -> None:
        """Shows a stage beside the bar."""
        self._bar.update(self._task, description=text)

    def note(self, text: str) -> None:
        """Prints a line above the bar."""
        with suppress(OSError):
            self._console.print(text, markup=False, highlight=False)

    def progress(self, done: int, total: int, doing: str) -> None:
        """Moves the bar."""
        self._bar.update(self._task, description=doing, completed=done, total=total)


class PlainMeasurement:
    """An observer for a pipe or a file: whole lines, one about the progress every 5 seconds.

    Args:
        stream: where to write.
        clock: seconds that only ever grow.
    """

    def __init__(self, stream: TextIO, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._stream = stream
        self._clock = clock
        self._next_line = clock()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Nothing is left to be written."""

    def phase(self, text: str) -> None:
        """Writes a line."""
        self.note(text)

    def note(self, text: str) -> None:
        """Writes a line; nothing once the reader of the pipe is gone."""
        try:
            print(text, file=self._stream, flush=True)
        except OSError:
            discard_output(self._stream)

    def progress(self, done: int, total: int, doing: str) -> None:
        """Writes a line if the last one is old enough."""
        now = self._clock()
        if now >= self._next_line:
            self._next_line = now + _LINE_SECONDS
            # Rounded down: 100% is for what is done.
            self.note(f"{100 * done // total}%  {count(done)} of {count(total)} gradients of rows  {doing}")


def variance_tables(variance: Variance, out: Path) -> RenderableType:
    """All that was measured overall, a line for each parameter array, and where the files are."""
    return Group(_cells(variance.law.cells), Text(), _layers(variance), Text(), _figures(variance, out))


def _cells(cells: tuple[Cell, ...]) -> Table:
    table = Table(title="E‖g_B − g‖²", title_justify="left", box=None, pad_edge=False, padding=(0, 2, 0, 0))
    for heading in ("drawn", "B"):
        table.add_column(heading, justify="right" if heading == "B" else "left", no_wrap=True)
    for heading in ("batches", "measured", "95% interval", "predicted", "ratio"):
        table.add_column(heading, justify="right", no_wrap=True)
    last = None
    for cell in sorted(cells, key=lambda cell: (cell.sampling, cell.batch)):
        table.add_row(
            "" if cell.sampling == last else cell.sampling.replace("_", " ").replace(" replacement", ""),
            count(cell.batch),
            count(cell.repeats),
            number(cell.measured),
            f"{number(cell.ci_low)} to {number(cell.ci_high)}",
            number(cell.predicted),
            number(cell.measured / cell.predicted, 3) if cell.predicted else MISSING,
        )
        last = cell.sampling
    return table


def _layers(variance: Variance) -> Table:
    table = Table(title="by parameter array", title_justify="left", box=None, pad_edge=False, padding=(0, 2, 0, 0))
    table.add_column("array", overflow="fold")
    for heading in ("tr Σ", "of all", "|G|²", "tr Σ/|G|²", "slope"):
        table.add_column(heading, justify="right", no_wrap=True)
    for layer in variance.layers:
        law, whole = layer.law, variance.law.trace_exact
        table.add_row(
            Text(layer.name),
            number(law.trace_exact),
            percent(law.trace_exact / whole if whole else None),
            number(law.gradient_norm_squared),
            rows(law.noise_scale),
            number(law.slope),
        )
    return table


def _figures(variance: Variance, out: Path) -> Table:
    law = variance.law
    table = Table.grid(padding=(0, 2))
    table.add_column(style="dim", no_wrap=True)
    table.add_column(overflow="fold")
    at = MISSING if variance.step is None else count(variance.step)
    for label, text in (
        (variance.name, f"{variance.state}: {variance.reason}"),
        ("parameters", f"step {at}"),
        ("tr Σ", f"{number(law.trace_exact, 7)} (exact, {count(variance.rows)} rows)"),
        ("|G|²", number(law.gradient_norm_squared, 7)),
        ("noise scale", f"tr Σ/|G|² = {rows(law.noise_scale)}"),
        ("slope", _slopes(law)),
        ("files", f"{out} (report.html shows the measurement)"),
    ):
        table.add_row(label, Text(text))
    return table


def _slopes(law: Law) -> str:
    parts = [
        f"{value:.4f} ({low:.4f} to {high:.4f}) {how}"
        for value, low, high, how in (
            (law.slope, law.slope_ci_low, law.slope_ci_high, "with replacement"),
            (
                law.slope_without_replacement,
                law.slope_without_replacement_ci_low,
                law.slope_without_replacement_ci_high,
                "without, divided by (n − B)/(n − 1)",
            ),
        )
        if value is not None and low is not None and high is not None
    ]
    return "; ".join(parts) or "n/a (two batch sizes are needed)"
