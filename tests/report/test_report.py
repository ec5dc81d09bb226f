"""report.html of runs of every kind, read back as a browser would read it."""

import dataclasses
import math
import re
import xml.etree.ElementTree as ET

import matplotlib as mpl
import numpy as np
import pytest
from reports import NO_NOISE, NOISE, SHA256, SVG, VARIANCE, job, run, summary, texts_of

from shardsgd.coordinator.curves import MOST_POINTS, drawable, series, smoothed, thinned, variance_exponent
from shardsgd.coordinator.records import GradientNoise, StepRecord, ValidationRecord, VariancePoint


def test_all_figures_of_the_summary_are_there_as_text(report):
    text = report().text
    for figure in (
        "digits-mlp",
        "SUCCEEDED",
        "30 epochs are done",
        "180",
        "0.02341",
        "0.1042",
        "97.36%",
        "1 m 23 s",
        "4,211",
        "workers at the end 3",
        "worker losses survived 17",
        "tr Σ, variance of one row 0.9 (0.85 to 0.95)",
        "squared mean gradient 0.0029 (0.0021 to 0.0037)",
        "314 rows (240 to 420)",
        SHA256,
    ):
        assert figure in text


def test_eight_pictures_with_axes_captions_and_tables(report):
    page = report()
    assert list(page.pictures) == [
        "Loss",
        "Validation accuracy",
        "Learning rate",
        "Gradient norm",
        "Gradient norm by layer",
        "Variance of the averaged gradient",
        "Noise scale",
        "Parts of a step",
    ]
    x_labels = ["step (6 steps an epoch)"] * 5 + ["rows averaged, B", "step (6 steps an epoch)", "share of a step"]
    y_labels = ["loss (nats)", "accuracy (", "learning rate (", "‖g‖ (", "‖g‖ of an array ("]
    y_labels += ["variance (", "tr Σ / |G|² (rows)", "a step: "]
    for svg, x_label, y_label in zip(page.pictures.values(), x_labels, y_labels, strict=True):
        texts = texts_of(svg)
        assert x_label in texts
        assert any(text.startswith(y_label) for text in texts)
        assert svg.get("viewBox")
        assert svg.get("width") is None
    assert len(page.captions) == 8
    assert all(caption.endswith(".") for caption in page.captions)
    assert page.tags.count("details") == 7  # the eighth has its table in the open
    assert 'name="viewport"' in page.source


def test_page_needs_nothing_from_outside(report):
    page = report()
    for tag, name, value in page.attributes:
        if name.startswith("xmlns"):
            continue
        assert name not in {"src", "srcset", "data", "action", "poster"}
        assert not name.startswith("on")
        assert "://" not in (value or "")
        if name.endswith("href"):
            assert tag == "use"
            assert value.startswith("#")
    assert not {"script", "link", "img", "iframe", "object", "embed", "base", "form"} & set(page.tags)
    style = re.search(r"<style>(.*?)</style>", page.source, flags=re.DOTALL).group(1)
    assert "url(" not in style
    assert "@import" not in style
    assert "src=" not in page.source
    assert "http" not in re.sub(r'xmlns(:\w+)?="[^"]*"', "", page.source).replace("http-equiv", "")


def test_ids_are_unique_and_references_lead_somewhere(report):
    page = report()
    ids = [value for _, name, value in page.attributes if name == "id"]
    assert len(ids) == len(set(ids)) > 100
    references = re.findall(r'(?:url\(|href=")#([^)"]+)', page.source)
    assert references
    assert set(references) <= set(ids)


def test_same_run_same_bytes_and_no_trace_in_matplotlib(report):
    before = dict(mpl.rcParams)
    assert report().source == report().source
    assert dict(mpl.rcParams) == before


def test_users_matplotlib_settings_change_nothing(report):
    plain = report().source
    with mpl.rc_context({"axes.facecolor": "red", "axes.grid": True, "lines.linewidth": 9, "xtick.labelsize": 3}):
        assert report().source == plain


def test_colours_follow_the_page(report):
    styles = [element.get("style", "") for svg in report().pictures.values() for element in svg.iter()]
    colours = {colour for style in styles for colour in re.findall(r"(?:fill|stroke): ([^;]+)", style)}
    assert all(colour == "none" or colour.startswith("var(--") for colour in colours), colours


def test_lines_differ_without_colour(report):
    loss = ET.tostring(report().pictures["Loss"], encoding="unicode")
    assert "stroke-opacity: 0.4" in loss  # single steps: faint and thin
    assert "stroke-width: 2.2" in loss  # their average: thick
    assert "stroke-dasharray" in loss  # held-out rows: dotted, with markers
    assert "use" in loss


def test_hostile_texts_stay_texts(report):
    hostile = "</pre></code><script>alert('1')</script><img src=x onerror=alert(1)>&amp;\"'"
    spec = job(data={"source": f"/data/{hostile}.csv", "label": hostile, "features": [hostile]})
    page = report(spec, summary(state="FAILED", reason=hostile, name="<b>n</b>"))
    assert not {"script", "img", "b"} & set(page.tags)
    assert page.text.count("<script>alert('1')</script>") == 5  # twice the reason, thrice the spec
    assert "&amp;" in page.text


def test_reason_that_is_no_valid_unicode(report):
    assert "cannot read ?.csv" in report(ending=summary(reason="cannot read \udcff.csv")).text


def test_spec_is_shown_as_toml(report):
    text = report(job(seed=1234567)).text
    assert "seed = 1234567" in text
    assert "[optimizer] kind =" in text


def test_captions_say_what_the_data_say(report):
    loss, accuracy, rate, norm, layers, variance, noise, time = report().captions
    assert "went from 2.5 to 0.0" in loss
    assert "after step 180" in loss
    assert "97.19%" in accuracy
    assert rate == "The learning rate went from 0.1 to 0.007454."
    assert "went from 2 to" in norm
    assert "falls as rows^-1.05 (the law: rows^-1)" in variance
    assert "at the batch of 256 rows the line gives 0.00352" in variance
    assert "the largest part of the gradient was layer1.weight's, 0.007" in layers
    assert "the smallest layer0.bias's, 0.0004" in layers
    assert noise.startswith("At step 179, tr Σ/|G|² ≈ 209 rows (200 to 220)")
    assert time.startswith("The median of 180 steps:")


def test_tables_hold_the_numbers_of_the_pictures(report):
    text = report().text
    assert "step loss of its rows averaged held-out rows 0 2.5 2.5 n/a 16 " in text
    assert " 179 " in text
    assert "rows averaged measured tr Σ/B ratio 32 0.02365 0.02813 0.841 64 " in text


def test_variance_line_goes_on_to_the_batch(report):
    svg = report().pictures["Variance of the averaged gradient"]
    assert [tick for tick in texts_of(svg) if tick in {"32", "64", "128", "256"}] == ["32", "64", "128", "256"]


def test_nothing_held_out(report):
    steps, _ = run(180)
    page = report(job(data={"source": "digits", "validation": 0.0}), summary(validation=None), (steps, []))
    assert "Validation accuracy" not in page.pictures
    assert "held-out" not in page.captions[0]
    assert "nothing was held out" in page.text


def test_regression_has_no_accuracy(report):
    steps, validations = run(180)
    validations = [dataclasses.replace(record, accuracy=None) for record in validations]
    spec = job(data={"source": "diabetes"}, objective={"loss": "squared_error"})
    page = report(spec, summary(validation={"loss": 12.5, "accuracy": None}), (steps, validations))
    assert "Validation accuracy" not in page.pictures
    assert "loss (squared label units)" in texts_of(page.pictures["Loss"])
    assert "validation loss 12.5" in page.text


def test_one_shard_gives_no_noise(report):
    steps, validations = run(180)
    unknown = dict.fromkeys(("noise_trace", "noise_scale", "noise_scale_low", "noise_scale_high"))
    steps = [dataclasses.replace(record, **unknown) for record in steps]
    page = report(ending=summary(gradient_noise=NO_NOISE), records=(steps, validations))
    assert "Noise scale" not in page.pictures
    assert "Variance of the averaged gradient" not in page.pictures
    assert "Gradient norm by layer" in page.pictures
    assert "not estimated" in page.text
    assert "no step gave an estimate" in page.text


def test_one_variance_point_has_no_slope(report):
    noise = dataclasses.replace(NOISE, variance=VARIANCE[:1])
    caption = report(ending=summary(gradient_noise=noise)).captions[5]
    assert caption.startswith("The measured variance is 0.841 times tr Σ/B; at the batch of 256 rows")


@pytest.mark.parametrize("bad", [math.nan, math.inf, 0.0, -1.0])
def test_unusable_variance_points_are_not_drawn(report, bad):
    noise = dataclasses.replace(NOISE, variance=(*VARIANCE, VariancePoint(256.0, bad, 0.9 / 256)))
    caption = report(ending=summary(gradient_noise=noise)).captions[5]
    assert "rows^-1.05" in caption


def test_zero_noise_has_no_place_on_a_logarithmic_axis(report):
    steps, validations = run(60)
    steps = [dataclasses.replace(record, noise_scale=0.0) for record in steps]
    assert "Noise scale" not in report(records=(steps, validations)).pictures


def test_a_single_step(report):
    steps, _ = run(1, 1)
    page = report(ending=summary(steps=1, epochs=1.0, gradient_noise=NO_NOISE), records=(steps, []), steps_per_epoch=1)
    *drawn_by_step, of_the_parts = page.pictures
    assert drawn_by_step == ["Loss", "Learning rate", "Gradient norm", "Gradient norm by layer"]
    assert of_the_parts == "Parts of a step"
    assert page.captions[0] == "The loss of a step's rows was 2.5."
    assert page.captions[1] == "The learning rate was 0.1."
    assert page.captions[2] == "The norm of a step's gradient was 2."
    assert page.captions[4].startswith("The median of 1 step:")
    for title in drawn_by_step:
        svg = page.pictures[title]
        assert any(group.get("clip-path") and group.find(f"{SVG}use") is not None for group in svg.iter(f"{SVG}g"))
    assert "1 epoch" in page.text
    assert "step (1 step an epoch)" in texts_of(page.pictures["Loss"])


def test_interrupted_before_the_first_step(report):
    ending = summary(
        state="INTERRUPTED",
        reason="interrupted after 0 steps",
        steps=0,
        epochs=0.0,
        train_loss=None,
        validation=None,
        seconds=0.0,
        samples_per_second=0.0,
        gradient_noise=NO_NOISE,
    )
    page = report(ending=ending, records=([], []))
    assert page.pictures == {}
    assert "the run ended before its first step" in page.text
    assert "INTERRUPTED: interrupted after 0 steps" in page.text


@pytest.mark.parametrize(
    ("lowest", "highest"),
    [
        (1e-30, 2.0),
        (1e-7, 1e7),
        (0.001, 3e5),
        (1.0, 1e30),
        (0.5, 0.5),
        (0.69314, 0.69316),
        (1000.001, 1000.002),
        (-3e5, 1e6),
    ],
)
def test_tick_labels_differ_and_fit_beside_the_axis(report, lowest, highest):
    losses = enumerate((lowest, highest))
    steps = [StepRecord(step, step, loss, 0.1, 1.0, None, None, 0.1) for step, loss in losses]
    svg = report(records=(steps, []), steps_per_epoch=1).pictures["Loss"]
    groups = [group for group in svg.iter(f"{SVG}g") if "-ytick_" in group.get("id", "")]
    labels = [text for group in groups for text in group.iter(f"{SVG}text")]
    assert len(labels) >= 3
    assert len({label.text for label in labels}) == len(labels)
    for label in labels:
        assert "text-anchor: end" in label.get("style")
        assert float(label.get("x")) - 6.99 * len(label.text) > 0  # digits of 11 pt are 6.99 pt wide


@pytest.mark.parametrize("lost", [math.nan, math.inf, None])  # None: how JSON gives back what is not a number
def test_diverged_run_is_drawn_up_to_where_it_broke(report, lost):
    steps, validations = run(60)
    steps = [
        dataclasses.replace(record, loss=10.0 ** (5 * record.step), gradient_norm=10.0 ** (3 * record.step))
        for record in steps
    ]
    steps.append(dataclasses.replace(steps[-1], step=60, loss=lost, gradient_norm=lost))
    page = report(
        ending=summary(state="FAILED", reason="loss is nan", train_loss=None, validation=None),
        records=(steps, validations),
    )
    assert "at step 21 the loss was infinite, not a number or too large to draw" in page.captions[0]
    assert "Gradient norm" in page.pictures
    assert "FAILED: loss is nan" in page.text


def test_everything_not_finite(report):
    nan = math.nan
    steps = [StepRecord(step, 0, nan, nan, nan, nan, nan, nan) for step in range(5)]
    validations = [ValidationRecord(5, 1, nan, nan)]
    noise = GradientNoise(nan, nan, nan, (VariancePoint(nan, nan, nan),))
    ending = summary(train_loss=nan, validation={"loss": nan, "accuracy": nan}, gradient_noise=noise)
    assert report(ending=ending, records=(steps, validations)).pictures == {}


def test_a_constant_run(report):
    steps = [StepRecord(step, step, 0.5, 0.1, 0.0, 0.0, None, 0.001) for step in range(100)]
    page = report(records=(steps, []), steps_per_epoch=1)
    assert "was 0.5 throughout" in page.captions[0]
    assert page.captions[1] == "The learning rate was 0.1 throughout."


def test_a_hundred_thousand_steps_stay_small(report):
    page = report(ending=summary(steps=100_000), records=run(100_000, 10))
    assert len(page.source) < 1_000_000
    for svg in page.pictures.values():
        for path in svg.iter(f"{SVG}path"):
            assert len(re.findall("[ML]", path.get("d"))) <= MOST_POINTS
        assert sum(1 for _ in svg.iter(f"{SVG}use")) < 120
    assert "99,999" in page.text


def test_thinning_keeps_spikes_ends_and_order():
    x = np.arange(100_000, dtype=float)
    y = np.sin(x / 1e4)
    y[31_415], y[92_653] = 50.0, -50.0
    thin_x, thin_y = thinned(x, y)
    assert len(thin_x) == len(thin_y) <= MOST_POINTS
    assert (np.diff(thin_x) > 0).all()
    assert (thin_x[0], thin_x[-1]) == (0, 99_999)
    assert (y[thin_x.astype(int)] == thin_y).all()
    assert {50.0, -50.0} <= set(thin_y)


@pytest.mark.parametrize("count", [1, 2, MOST_POINTS, MOST_POINTS + 1])
def test_thinning_leaves_short_series_alone(count):
    x = np.arange(count, dtype=float)
    thin_x, _ = thinned(x, x)
    assert len(thin_x) <= MOST_POINTS
    if count <= MOST_POINTS:
        assert (thin_x == x).all()


def test_average_starts_at_the_first_value_and_recovers_from_a_huge_one():
    assert smoothed(np.array([3.0, 3.0, 3.0]), 10).tolist() == pytest.approx([3.0, 3.0, 3.0])
    y = np.ones(5000)
    y[0] = 1e90
    assert smoothed(y, 10)[-1] == pytest.approx(1.0)


def test_what_cannot_be_drawn_is_left_out():
    x, y = drawable(series([0, 1, 2, 3, 4, 5]), series([1.0, None, math.nan, -math.inf, 1e300, 2.0]))
    assert x.tolist() == [0, 5]
    assert y.tolist() == [1.0, 2.0]


@pytest.mark.parametrize("exponent", [-1.0, -0.5, -1.3])
def test_exponent_of_an_exact_power_law(exponent):
    points = [VariancePoint(rows, 3.0 * rows**exponent, 1.0) for rows in (1.0, 2.0, 4.0, 64.0)]
    assert variance_exponent(points) == pytest.approx(exponent)
