"""What is seen of a measurement while it goes."""

import io

from rich.console import Console

from shardsgd.variance_view import LiveMeasurement, PlainMeasurement


def follow(observer):
    with observer as seen:
        seen.note("100 rows [bold]; 3 batch sizes")
        seen.phase("starting 2 Ray workers")
        for done in range(0, 101, 10):
            seen.progress(done, 100, "batches of [4] rows")


def test_on_a_terminal_a_bar_is_drawn_in_place_and_gone_at_the_end():
    stream = io.StringIO()
    follow(LiveMeasurement(Console(file=stream, force_terminal=True, width=80)))
    text = stream.getvalue()
    assert "100 rows [bold]; 3 batch sizes" in text
    assert "batches of [4] rows" in text
    assert "100%" in text
    # The last thing is that the line is cleared.
    assert text.rindex("\x1b[2K") > text.rindex("100%")


def test_in_a_pipe_there_is_a_line_every_five_seconds():
    stream, now = io.StringIO(), iter(range(0, 1000, 2))
    follow(PlainMeasurement(stream, clock=lambda: next(now)))
    lines = stream.getvalue().splitlines()
    assert lines[:2] == ["100 rows [bold]; 3 batch sizes", "starting 2 Ray workers"]
    assert [line.split()[0] for line in lines[2:]] == ["0%", "30%", "60%", "90%"]
    assert lines[3] == "30%  30 of 100 gradients of rows  batches of [4] rows"


def test_a_reader_that_has_gone_is_no_error(tmp_path):
    class Gone(io.StringIO):
        def write(self, text):
            raise BrokenPipeError

        def fileno(self):
            return self.nowhere.fileno()

    stream = Gone()
    with (tmp_path / "file").open("w") as stream.nowhere:
        follow(PlainMeasurement(stream))
