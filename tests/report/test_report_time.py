"""Where the time of a run's steps went, as report.html shows it."""

import dataclasses
import math
import re

import numpy as np
import pytest
from reports import SVG, TIMES, UNTIMED, run, texts_of

from shardsgd.coordinator.time_charts import whole_percent


def timed(*changes):
    """Steps of which each takes `TIMES` but for these changes."""
    steps, _ = run(len(changes))
    return [dataclasses.replace(record, **change) for record, change in zip(steps, changes, strict=True)], []


def bars_of(svg):
    """Left, right and middle height of the bars, in the picture's units, from the first part to the last."""
    bars = []
    for path in bar_paths(svg):
        points = np.array(re.findall(r"[-\d.]+", path.get("d")), dtype=float).reshape(-1, 2)
        bars.append((points[:, 0].min(), points[:, 0].max(), points[:, 1].mean()))
    return bars


def bar_paths(svg):
    for group in svg.iter(f"{SVG}g"):
        for path in group.findall(f"{SVG}path"):
            closed = path.get("d").strip().endswith("z")  # an axis is not
            if closed and group.get("id").startswith("time-patch") and "stroke: var(--ink" in path.get("style"):
                yield path


def test_where_the_time_went_is_there_as_text(report):
    text = report().text
    assert "Where the time went 83% of a step is gradient computation; a worker waited 12% of it, on average. " in text
    assert (
        "part median ms share of a step gather 0.100 1.0% leaf (gradients) 8.300 83.0% reduce 0.300 3.0%"
        " exchange 0.900 9.0% update 0.400 4.0% a step 10.000 100.0% idle, per worker 1.200 12.0% "
    ) in text


def test_the_parts_are_labelled_and_one_begins_where_the_other_ends(report):
    svg = report().pictures["Parts of a step"]
    labels = ["gather 1%", "leaf (gradients) 83%", "reduce 3%", "exchange 9%", "update 4%"]
    assert [text for text in texts_of(svg) if text in labels] == labels
    bars = bars_of(svg)
    assert len(bars) == len(labels)
    lefts, rights, heights = np.array(bars).T
    assert lefts[1:] == pytest.approx(rights[:-1])
    assert (np.diff(heights) > 0).all()  # downwards
    shares = (rights - lefts) / (rights[-1] - lefts[0])
    assert shares == pytest.approx([0.01, 0.83, 0.03, 0.09, 0.04], abs=1e-3)


def test_the_gradients_stand_out_from_the_other_parts(report):
    styles = [path.get("style") for path in bar_paths(report().pictures["Parts of a step"])]
    assert ["fill: var(--blue" in style for style in styles] == [False, True, False, False, False]


def test_the_tick_labels_of_the_parts_fit_into_the_picture(report):
    svg = report(records=timed({"step_seconds": 0.02, "exchange_seconds": 0.0109})).pictures["Parts of a step"]
    width = float(svg.get("viewBox").split()[2])
    texts = {text.text: text for text in svg.iter(f"{SVG}text")}
    leaf, whole = texts["leaf (gradients) 42%"], texts["100%"]
    assert "text-anchor: end" in leaf.get("style")
    assert float(leaf.get("x")) - 6.2 * len(leaf.text) > 0  # letters of 11 pt are 6.2 pt wide, on average
    assert "text-anchor: middle" in whole.get("style")
    assert float(whole.get("x")) + 6.99 * len(whole.text) / 2 < width


def test_times_are_medians(report):
    slow = {"step_seconds": 9.0, "exchange_seconds": 8.99, "idle_seconds": 8.99}
    text = report(records=timed({}, slow, {})).text
    assert "leaf (gradients) 8.300 83.0%" in text
    assert "exchange 0.900 9.0%" in text
    assert "idle, per worker 1.200 12.0%" in text


def test_shares_add_up_though_medians_do_not(report):
    gathers = {"gather_seconds": 0.0041, "leaf_seconds": 0.0043}
    waits = {"exchange_seconds": 0.0049, "leaf_seconds": 0.0043}
    page = report(records=timed({}, gathers, waits))
    assert "leaf (gradients) 4.300 71.7%" in page.text  # the median shares are 1, 43, 3, 9 and 4%
    assert bars_of(page.pictures["Parts of a step"])[-1][1] == pytest.approx(
        bars_of(report().pictures["Parts of a step"])[-1][1], abs=0.01
    )


def test_steps_of_which_each_is_another_part(report):
    nothing = dict.fromkeys(TIMES, 0.0) | {"step_seconds": 0.01}
    parts = ("gather_seconds", "leaf_seconds", "exchange_seconds")
    page = report(records=timed(*(nothing | {part: 0.01} for part in parts)))
    assert "leaf (gradients) 0.000 0.0%" in page.text
    assert "a step 10.000 100.0%" in page.text


def test_a_clock_that_is_ahead_makes_no_time_negative(report):
    page = report(records=timed({"exchange_seconds": -0.0001, "step_seconds": 0.009}))
    assert "exchange 0.000 0.0%" in page.text
    assert "-0" not in page.text[page.text.index("Where the time") : page.text.index("Final figures")]


def test_an_exchange_that_takes_the_most_is_named(report):
    slow = {"step_seconds": 0.0391, "exchange_seconds": 0.03, "idle_seconds": 0.0389}
    text = report(records=timed(slow)).text
    assert (
        "The largest part of a step is exchange, 77%; 21% is gradient computation; a worker waited >99% of it" in text
    )


def test_slow_steps_have_fewer_decimals(report):
    seconds = {name: 1000 * value for name, value in TIMES.items()}
    assert "gather 100.0 1.0% leaf (gradients) 8,300.0 83.0%" in report(records=timed(seconds)).text


def test_a_run_resumed_from_an_older_version_shows_what_was_measured(report):
    page = report(records=timed(UNTIMED, UNTIMED, UNTIMED, {}, {}))
    assert page.captions[-1].startswith("The median of 2 steps whose parts were measured, of 5:")
    assert "a step 10.000 100.0%" in page.text


@pytest.mark.parametrize("times", [UNTIMED, dict.fromkeys(TIMES, math.nan), dict.fromkeys(TIMES, 0.0)])
def test_where_nothing_was_measured_there_is_no_such_section(report, times):
    page = report(records=timed(times, times))
    assert "Where the time went" not in page.text
    assert "Parts of a step" not in page.pictures


@pytest.mark.parametrize(
    ("share", "text"), [(0.0, "0%"), (1e-9, "<1%"), (0.0149, "1%"), (0.994, ">99%"), (1.0, "100%"), (0.126, "13%")]
)
def test_whole_percent_is_neither_nothing_nor_all_unless_it_is(share, text):
    assert whole_percent(share) == text
