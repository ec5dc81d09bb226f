"""What a terminal and a pipe see of a run."""

import io
import os
import re
from itertools import pairwise
from pathlib import Path

import pytest
from rich.console import Console

from shardsgd.coordinator.records import GradientNoise, Incident, Pace, StepRecord, Summary, ValidationRecord
from shardsgd.progress import LiveProgress, PlainProgress
from shardsgd.summary_view import summary_table

WIDTHS = [40, 60, 80, 120, 200]
CONTROL = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")
STEP = StepRecord(
    step=1234,
    epoch=12,
    loss=0.123456,
    learning_rate=0.00345,
    gradient_norm=0.5,
    noise_trace=12.0,
    noise_scale=314.2,
    step_seconds=0.001,
)
LARGE_STEP = StepRecord(
    step=123_456_789,
    epoch=1_234_567,
    loss=1.2345e-38,
    learning_rate=1.2345e-5,
    gradient_norm=0.5,
    noise_trace=12.0,
    noise_scale=31_420.0,
    step_seconds=0.001,
)
PACE = Pace(samples_per_second=12_345.6, fraction_done=0.436, eta_seconds=83.0)
OPEN_ENDED = Pace(samples_per_second=12_345.6, fraction_done=None, eta_seconds=None)
VALIDATION = ValidationRecord(step=1200, epoch=12, loss=0.14321, accuracy=0.97222)


class FakeClock:
    def __init__(self):
        self.now = 1000.0

    def __call__(self):
        return self.now


def terminal(width):
    return Console(width=width, force_terminal=True, file=io.StringIO(), legacy_windows=False)


def screen_lines(console):
    """Every line that was ever drawn, without control codes."""
    return re.split(r"[\r\n]+", CONTROL.sub("", console.file.getvalue()))


def live_line(width, record=STEP, pace=PACE, validation=VALIDATION):
    console = terminal(width)
    with LiveProgress(console) as display:
        if validation is not None:
            display.validation(validation)
        display.step(record, pace)
    lines = [line for line in screen_lines(console) if "step" in line]
    assert len(lines) == 1
    return lines[0]


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("record", [STEP, LARGE_STEP])
@pytest.mark.parametrize("pace", [PACE, OPEN_ENDED])
@pytest.mark.parametrize("validation", [VALIDATION, None])
def test_live_line_fits_and_keeps_what_matters(width, record, pace, validation):
    line = live_line(width, record, pace, validation)
    assert len(line) <= width
    assert f"step {record.step:,}" in line
    assert "loss" in line


def test_a_large_noise_scale_is_shown_in_thousands():
    assert "noise scale 31k" in live_line(200, LARGE_STEP)


def test_live_line_leaves_out_what_matters_least_first():
    figures = ["step", "loss", "43%", "left", "accuracy", "epoch", "validation loss", "samples/s", "lr", "noise scale"]
    shown = {width: [figure for figure in figures if figure in live_line(width)] for width in WIDTHS}
    assert shown[200] == figures
    assert shown[40] == figures[:3]
    for narrow, wide in pairwise(WIDTHS):
        assert set(shown[narrow]) < set(shown[wide])


@pytest.mark.parametrize("width", WIDTHS)
def test_bar_shows_the_fraction(width):
    def done(fraction):
        return live_line(width, pace=Pace(1.0, fraction, 1.0)).count("━")

    assert done(0.0) == 0
    assert 0 < done(0.5) < done(1.0)
    assert "─" not in live_line(width, pace=Pace(1.0, 1.0, 1.0))
    assert "━" not in live_line(width, pace=OPEN_ENDED)


def test_a_run_is_at_100_percent_only_when_done():
    assert "99%" in live_line(80, pace=Pace(1.0, 0.9999, 0.1))
    assert "100%" in live_line(80, pace=Pace(1.0, 1.0, 0.0))


def test_time_left_is_in_whole_seconds():
    assert "1 s left" in live_line(80, pace=Pace(1.0, 0.9, 0.0123))
    assert "n/a left" in live_line(80, pace=Pace(1.0, 0.0, float("inf")))


@pytest.mark.parametrize("width", WIDTHS)
def test_phases_and_notes_fit_and_are_seen(width):
    console = terminal(width)
    with LiveProgress(console) as display:
        display.phase("starting 2 workers")
        display.note("a [bold]note[/bold] about C:\\x that is certainly longer than forty columns of text")
        display.phase("a stage with a very long name " * 10)
    lines = screen_lines(console)
    assert max(map(len, lines)) <= width
    assert any(line.endswith("starting 2 workers") for line in lines)
    assert "[bold]note[/bold]" in " ".join(lines)


def test_a_phase_after_the_steps_replaces_their_line():
    console = terminal(80)
    with LiveProgress(console) as display:
        display.step(STEP, PACE)
        display.phase("evaluating")
    assert screen_lines(console)[-2].endswith("evaluating")


@pytest.mark.parametrize("error", [KeyboardInterrupt, ValueError])
def test_terminal_is_left_clean_when_the_run_is_cut_short(error):
    console = terminal(80)

    def cut_short():
        with LiveProgress(console) as display:
            display.step(STEP, PACE)
            raise error

    with pytest.raises(error):
        cut_short()
    output = console.file.getvalue()
    assert output.rindex("\x1b[?25h") > output.rindex("\x1b[?25l")  # the cursor is shown again
    assert output.endswith("\x1b[2K")  # and the line it stands in is erased


def test_live_needs_no_unicode_where_the_terminal_has_none():
    file = io.TextIOWrapper(io.BytesIO(), encoding="ascii")
    with LiveProgress(Console(width=80, force_terminal=True, file=file)) as display:
        display.phase("starting")
        display.step(STEP, PACE)
    assert b"###" in file.buffer.getvalue()


def plain():
    stream, clock = io.StringIO(), FakeClock()
    return PlainProgress(stream, clock=clock), stream, clock


def test_plain_lines_have_no_control_codes_and_say_everything():
    display, stream, _ = plain()
    with display:
        display.phase("starting 2 workers")
        display.step(STEP, PACE)
        display.validation(VALIDATION)
        display.note("worker 1 was lost")
    assert stream.getvalue() == (
        "starting 2 workers\n"
        "43%  step 1,234  epoch 12  loss 0.1235  lr 0.00345  noise scale 310  12,350 samples/s  1 m 23 s left\n"
        "step 1,200  epoch 12  validation loss 0.1432  accuracy 97.22%\n"
        "worker 1 was lost\n"
    )


INCIDENTS = [
    Incident(7, "lost", 1, "its connection closed"),
    Incident(7, "recovered", None, "", 4, 0.01),
    Incident(9, "joined", 1, ""),
]


def test_incidents_are_told_but_not_what_they_cost():
    console, stream = terminal(80), io.StringIO()
    with LiveProgress(console) as live, PlainProgress(stream) as plain:
        for incident in INCIDENTS:
            live.incident(incident)
            plain.incident(incident)
    said = ["worker 1 lost in step 7: its connection closed", "worker 1 joined before step 9"]
    assert stream.getvalue().splitlines() == said
    assert [line for line in screen_lines(console) if "worker" in line] == said


def test_plain_leaves_out_what_is_not_known():
    display, stream, _ = plain()
    display.step(StepRecord(0, 0, 2.5, 0.1, 1.0, None, None, 0.1), OPEN_ENDED)
    display.validation(ValidationRecord(1, 1, 3.25, None))
    assert stream.getvalue() == (
        "step 0  epoch 0  loss 2.5  lr 0.1  12,350 samples/s\nstep 1  epoch 1  validation loss 3.25\n"
    )


def test_plain_writes_a_line_about_steps_every_five_seconds():
    display, stream, clock = plain()
    for _ in range(81):
        display.step(STEP, PACE)
        clock.now += 0.25
    assert stream.getvalue().count("\n") == 5  # at 0, 5, 10, 15 and 20 s


def test_plain_writes_every_validation_of_unhurried_epochs_and_then_no_steps_between():
    display, stream, clock = plain()
    with display:
        for epoch in range(1, 11):
            clock.now += 1.0
            display.validation(ValidationRecord(10 * epoch, epoch, 1.0 / epoch, None))
            display.step(STEP, PACE)
    lines = stream.getvalue().splitlines()
    assert [line.split("  ")[1] for line in lines] == [f"epoch {epoch}" for epoch in range(1, 11)]


def test_plain_does_not_flood_and_never_loses_the_last_validation():
    display, stream, clock = plain()
    with display:
        for epoch in range(1, 10_001):
            display.validation(ValidationRecord(epoch, epoch, 1.0 / epoch, None))
            clock.now += 0.001
    lines = stream.getvalue().splitlines()
    assert 45 <= len(lines) <= 52  # ten seconds, five lines a second
    assert lines[-1].startswith("step 10,000 ")
    assert len(set(lines)) == len(lines)


def test_plain_flushes_every_line():
    class Stream(io.StringIO):
        flushes = 0

        def flush(self):
            self.flushes += 1

    stream = Stream()
    display = PlainProgress(stream, clock=FakeClock())
    display.phase("one")
    display.note("two")
    assert stream.flushes == 2


def test_plain_goes_quiet_when_the_reader_has_gone():
    read_end, write_end = os.pipe()
    os.close(read_end)
    stream = os.fdopen(write_end, "w")
    with PlainProgress(stream, clock=FakeClock()) as display:
        display.note("nobody reads this")
        display.step(STEP, PACE)
        display.validation(VALIDATION)
    stream.close()  # flushes what was buffered: would raise if the pipe were still in place


def summary(**changes):
    fields = {
        "name": "digits-mlp",
        "state": "SUCCEEDED",
        "reason": "30 epochs are done",
        "steps": 180,
        "epochs": 30.0,
        "train_loss": 0.02341,
        "validation": {"loss": 0.1042, "accuracy": 0.97361},
        "parameters_sha256": "0123456789abcdef" * 4,
        "seconds": 83.4,
        "samples_per_second": 4211.3,
        "workers": 2,
        "recoveries": 1,
        "gradient_noise": GradientNoise(0.9, 0.0029, 1234.2, (), 903.0, 1699.0),
    }
    return Summary(**fields | changes)


def printed(width, out_dir=Path("runs/digits-mlp"), **changes):
    console = Console(width=width, file=io.StringIO())
    console.print(summary_table(summary(**changes), out_dir, batch_size=256))
    return console.file.getvalue()


def test_summary_says_how_it_ended():
    text = printed(200)
    for figure in (
        "SUCCEEDED: 30 epochs are done",
        "180 (30 epochs)",
        "0.02341",
        "loss 0.1042, accuracy 97.36%",
        "1 m 23 s, 4,211 samples/s",
        "2 (losses survived: 1)",
        "  1,234 rows (900 to 1,700), ",
        "a batch of 256 is well below it",
        "sha256 0123456789abcdef ",
        "runs/digits-mlp",
    ):
        assert figure in text


@pytest.mark.parametrize("width", WIDTHS)
def test_summary_fits(width):
    name = "a" * 64
    lines = printed(width, Path("/data") / ("folder" * 30), name=name, reason="the loss is " * 20).splitlines()
    assert max(map(len, lines)) <= width


def test_summary_of_a_failed_run():
    noise = GradientNoise(None, None, None, ())
    text = printed(
        200,
        state="FAILED",
        reason="loss [nan]",
        train_loss=None,
        validation=None,
        gradient_noise=noise,
        steps=1,
        epochs=1.0,
    )
    assert "FAILED: loss [nan]" in text
    assert "1 (1 epoch)" in text
    assert "not estimated" in text
    assert "accuracy" not in text


def test_summary_of_a_regression_has_no_accuracy():
    text = printed(200, validation={"loss": 12.5, "accuracy": None})
    assert "loss 12.5\n" in re.sub(" +\n", "\n", text)
