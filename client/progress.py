"""What a terminal, a pipe or nobody sees of a run while it goes: three observers."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from types import TracebackType
from typing import TYPE_CHECKING, Self, TextIO

from rich.console import Console, ConsoleOptions, RenderableType
from rich.live import Live
from rich.spinner import Spinner
from rich.text import Text

from shardsgd.coordinator.records import incident_text
from shardsgd.formatting import compact, count, duration, number, percent

if TYPE_CHECKING:
    from shardsgd.coordinator.records import Incident, Pace, StepRecord, ValidationRecord

_REFRESHES_PER_SECOND = 8
_STEP_LINE_SECONDS = 5.0
_VALIDATION_LINE_SECONDS = 0.2
_GAP = "  "
_AFTERMATH = "recovered"
_NARROWEST_BAR, _WIDEST_BAR = 8, 40


class LiveProgress:
    """An observer for a terminal: one line that is redrawn in place and gone at the end.

    Drawing happens on a thread of its own; the step loop only hands over its records.

    Args:
        console: where to draw.
    """

    def __init__(self, console: Console) -> None:
        self._console = console
        self._phase = "starting"
        self._steps: tuple[StepRecord, Pace] | None = None
        self._validation: ValidationRecord | None = None
        self._spinner = Spinner("line" if console.options.ascii_only else "dots", style="cyan")
        self._live = Live(
            console=console,
            get_renderable=self._view,
            refresh_per_second=_REFRESHES_PER_SECOND,
            transient=True,
        )

    def __enter__(self) -> Self:
        self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with suppress(OSError):  # the terminal may have gone: that must not cost the run its files
            self._live.stop()

    def phase(self, text: str) -> None:
        """Shows a stage beside a spinner, until the next step."""
        self._phase = text
        self._steps = None
        if self._live.is_started:
            with suppress(OSError):
                self._live.refresh()  # at once: the stage may be one that keeps the drawing thread from running

    def note(self, text: str) -> None:
        """Prints a line above the live one."""
        with suppress(OSError):
            self._console.print(text, markup=False, highlight=False)

    def step(self, record: StepRecord, pace: Pace) -> None:
        """Shows the step's figures at the next redraw."""
        self._steps = (record, pace)

    def validation(self, record: ValidationRecord) -> None:
        """Shows the evaluation from now on."""
        self._validation = record

    def incident(self, record: Incident) -> None:
        """Prints a line above the live one; none for what only says what the one before has cost."""
        if record.kind != _AFTERMATH:
            self.note(incident_text(record))

    def _view(self) -> RenderableType:
        # Read once: the step loop's thread may replace it at any moment.
        if (steps := self._steps) is not None:
            return _StepLine(_figures(*steps, self._validation), steps[1].fraction_done)
        self._spinner.update(text=Text(self._phase, no_wrap=True, overflow="ellipsis"))
        return self._spinner


class PlainProgress:
    """An observer for a pipe or a file: whole lines, no control codes, not more of them than can be read.

    A validation gets a line, unless the one before is less than 0.2 seconds old (the last one always does); steps get
    one every 5 seconds. Once the reader of the pipe is gone, nothing is written any more and the run goes on.

    Args:
        stream: where to write.
        clock: seconds that only ever grow.

    Attributes:
        is_read: whether the reader of the pipe is still there, as far as is known.
    """

    def __init__(self, stream: TextIO, *, clock: Callable[[], float] = time.monotonic) -> None:
        self.is_read = True
        self._stream = stream
        self._clock = clock
        self._next_step_line = clock()
        self._next_validation_line = clock()
        self._held_back: ValidationRecord | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._held_back is not None:
            self._write_validation(self._held_back)

    def phase(self, text: str) -> None:
        """Writes a line."""
        self._write(text)

    def note(self, text: str) -> None:
        """Writes a line."""
        self._write(text)

    def step(self, record: StepRecord, pace: Pace) -> None:
        """Writes a line if the last line about training is old enough."""
        now = self._clock()
        if now >= self._next_step_line:
            self._next_step_line = now + _STEP_LINE_SECONDS
            self._write(_GAP.join(figure.plain for figure in _figures(record, pace, None)))

    def validation(self, record: ValidationRecord) -> None:
        """Writes a line, or holds it back until it is known whether a newer one follows."""
        now = self._clock()
        if now < self._next_validation_line:
            self._held_back = record
            return
        self._next_validation_line = now + _VALIDATION_LINE_SECONDS
        self._next_step_line = now + _STEP_LINE_SECONDS
        self._write_validation(record)

    def incident(self, record: Incident) -> None:
        """Writes a line; none for what only says what the one before has cost."""
        if record.kind != _AFTERMATH:
            self._write(incident_text(record))

    def _write_validation(self, record: ValidationRecord) -> None:
        self._held_back = None
        figures = (
            f"step {count(record.step)}",
            f"epoch {count(record.epoch)}",
            f"validation loss {number(record.loss)}",
            *([] if record.accuracy is None else [f"accuracy {percent(record.accuracy)}"]),
        )
        self._write(_GAP.join(figures))

    def _write(self, text: str) -> None:
        try:
            print(text, file=self._stream, flush=True)
        except OSError:  # a closed pipe, a terminal that has gone
            self.is_read = False
            discard_output(self._stream)


def discard_output(stream: TextIO) -> None:
    """Sends what is still written to the stream nowhere: for a pipe whose reader has gone.

    Without it the interpreter fails once more when it flushes the stream at exit.
    """
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, stream.fileno())
    os.close(nowhere)


@dataclass(frozen=True)
class _Figure:
    """One figure of a line about a step.

    Attributes:
        rank: the smaller, the longer it stays as the terminal gets narrower.
        label: what it is.
        value: the number.
        unit: what follows the number.
        width: columns to keep for the number, so that a redrawn line does not jitter.
    """

    rank: int
    label: str
    value: str
    unit: str = ""
    width: int = 0

    @property
    def plain(self) -> str:
        return " ".join(part for part in (self.label, self.value, self.unit) if part)

    @property
    def styled(self) -> Text:
        text = Text(self.plain, style="dim")
        start = len(self.label) + 1 if self.label else 0
        text.stylize("not dim bold", start, start + len(self.value))
        text.pad_right(self.width - len(self.value))
        return text


def _figures(record: StepRecord, pace: Pace, validation: ValidationRecord | None) -> list[_Figure]:
    """The figures in the order in which they are shown."""
    figures = []
    if pace.fraction_done is not None:
        # Rounded down: 100% is for a run that is done.
        figures.append(_Figure(2, "", f"{int(100 * pace.fraction_done)}%", width=4))
    figures.append(_Figure(0, "step", count(record.step)))
    figures.append(_Figure(6, "epoch", count(record.epoch)))
    figures.append(_Figure(1, "loss", number(record.loss), width=7))
    if validation is not None:
        figures.append(_Figure(7, "validation loss", number(validation.loss), width=7))
        if validation.accuracy is not None:
            figures.append(_Figure(5, "accuracy", percent(validation.accuracy), width=6))
    figures.append(_Figure(9, "lr", number(record.learning_rate), width=7))
    if record.noise_scale is not None:
        figures.append(_Figure(10, "noise scale", compact(record.noise_scale), width=4))
    figures.append(_Figure(8, "", number(pace.samples_per_second), "samples/s", width=7))
    if pace.eta_seconds is not None:
        figures.append(_Figure(3, "", duration(max(1.0, round(pace.eta_seconds, 0))), "left", width=9))
    return figures


class _StepLine:
    """The figures, and a bar, in one line of any width: what matters least is left out first."""

    _BAR_RANK = 4

    def __init__(self, figures: list[_Figure], fraction_done: float | None) -> None:
        self._figures = figures
        self._fraction_done = fraction_done

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> Iterator[RenderableType]:
        parts = [(figure.rank, figure.styled) for figure in self._figures]
        if self._fraction_done is not None:
            parts.insert(0, (self._BAR_RANK, Text(" " * _NARROWEST_BAR)))
        free = options.max_width + len(_GAP)
        shown = set()
        for rank, text in sorted(parts, key=lambda part: part[0]):
            if (width := text.cell_len + len(_GAP)) <= free:
                shown.add(rank)
                free -= width
        texts = [text for rank, text in parts if rank in shown]
        if self._fraction_done is not None and self._BAR_RANK in shown:
            width = min(_NARROWEST_BAR + free, _WIDEST_BAR)
            texts[0] = _bar(self._fraction_done, width, ascii_only=options.ascii_only)
        yield Text(_GAP, no_wrap=True).join(texts)


def _bar(fraction: float, width: int, *, ascii_only: bool) -> Text:
    done = min(max(int(fraction * width), 0), width)
    full, empty = "#-" if ascii_only else "━─"
    return Text.assemble((full * done, "cyan"), (empty * (width - done), "dim"))
