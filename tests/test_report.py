"""report.html of runs of every kind, read back as a browser would read it."""

import dataclasses
import math
import re
import xml.etree.ElementTree as ET
from html import unescape
from html.parser import HTMLParser

import matplotlib as mpl
import numpy as np
import pytest

from shardsgd.coordinator.curves import MOST_POINTS, drawable, series, smoothed, thinned, variance_exponent
from shardsgd.coordinator.records import GradientNoise, StepRecord, Summary, ValidationRecord, VariancePoint
from shardsgd.coordinator.report import write_report
from shardsgd.coordinator.time_charts import whole_percent
from shardsgd.spec import JobSpec

SVG = "{http://www.w3.org/2000/svg}"
NO_NOISE = GradientNoise(None, None, None, ())
VARIANCE = tuple(VariancePoint(rows, 0.9 / rows**1.05, 0.9 / rows) for rows in (32.0, 64.0, 128.0))
NOISE = GradientNoise(0.9, 0.0029, 314.2, VARIANCE)
SHA256 = "0123456789abcdef" * 4
TIMES = {
    "step_seconds": 0.01,
    "gather_seconds": 0.0001,
    "leaf_seconds": 0.0083,
    "reduce_seconds": 0.0003,
    "exchange_seconds": 0.0009,
    "update_seconds": 0.0004,
    "idle_seconds": 0.0012,
}
UNTIMED = dict.fromkeys(TIMES) | {"step_seconds": 0.02}  # as an older version wrote it


def job(**changes):
    return JobSpec(**{"name": "digits-mlp", "data": {"source": "digits"}, "stop": {"epochs": 30}} | changes)


def run(count, steps_per_epoch=6):
    """Steps and validations of a training whose loss falls by half every tenth of it."""
    steps = [
        StepRecord(
            step=step,
            epoch=step // steps_per_epoch,
            loss=2.5 * 0.5 ** (10 * step / count) + 0.01 * (step % 3),
            learning_rate=0.1 / math.sqrt(step + 1),
            gradient_norm=2.0 * 0.5 ** (8 * step / count),
            noise_trace=1.0,
            noise_scale=30.0 + step if step else None,
            **TIMES,
        )
        for step in range(count)
    ]
    validations = [
        ValidationRecord(
            step=step,
            epoch=step // steps_per_epoch,
            loss=2.6 * 0.5 ** (9 * step / count),
            accuracy=1 - 0.9 * 0.5 ** (5 * step / count),
        )
        for step in range(steps_per_epoch, count + 1, steps_per_epoch)
    ]
    return steps, validations


def summary(**changes):
    fields = {
        "name": "digits-mlp",
        "state": "SUCCEEDED",
        "reason": "30 epochs are done",
        "steps": 180,
        "epochs": 30.0,
        "train_loss": 0.02341,
        "validation": {"loss": 0.1042, "accuracy": 0.97361},
        "parameters_sha256": SHA256,
        "seconds": 83.4,
        "samples_per_second": 4211.3,
        "workers": 3,
        "recoveries": 17,
        "gradient_noise": NOISE,
    }
    return Summary(**fields | changes)


class Page(HTMLParser):
    """A page as elements, attributes and the text that is seen."""

    VOID = frozenset({"meta", "link", "img"})
    INLINE = frozenset({"span", "code"})

    def __init__(self, text):
        super().__init__()
        self.source = text
        self.attributes = []
        self.open = []
        self.seen = []
        self.tags = []
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        self.seen.append("" if tag in self.INLINE else " ")
        self.tags.append(tag)
        self.attributes += [(tag, name, value) for name, value in attrs]
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += [(tag, name, value) for name, value in attrs]

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if "style" not in self.open:
            self.seen.append(data)

    @property
    def text(self):
        return " ".join("".join(self.seen).split())

    @property
    def pictures(self):
        """The inlined SVGs by title; parsing fails unless they are well-formed."""
        svgs = [ET.fromstring(svg) for svg in re.findall(r"<svg.*?</svg>", self.source, flags=re.DOTALL)]
        return {svg.get("aria-label"): svg for svg in svgs}

    @property
    def captions(self):
        return [unescape(caption) for caption in re.findall(r"<figcaption>(.*?)</figcaption>", self.source)]


@pytest.fixture
def report(tmp_path):
    def write(spec=None, ending=None, records=None, steps_per_epoch=6):
        path = tmp_path / "report.html"
        steps, validations = records if records is not None else run(180)
        write_report(
            path,
            spec=spec or job(),
            summary=ending or summary(),
            steps=steps,
            validations=validations,
            steps_per_epoch=steps_per_epoch,
        )
        return Page(path.read_text(encoding="utf-8"))

    return write


def texts_of(svg):
    return ["".join(element.itertext()) for element in svg.iter(f"{SVG}text")]


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
        "tr Σ, variance of one row 0.9",
        "squared mean gradient 0.0029",
        "310 rows",
        SHA256,
    ):
        assert figure in text


def test_seven_pictures_with_axes_captions_and_tables(report):
    page = report()
    assert list(page.pictures) == [
        "Loss",
        "Validation accuracy",
        "Learning rate",
        "Gradient norm",
        "Variance of the averaged gradient",
        "Noise scale",
        "Parts of a step",
    ]
    x_labels = ["step (6 steps an epoch)"] * 4 + ["rows averaged, B", "step (6 steps an epoch)", "share of a step"]
    y_labels = ["loss (nats)", "accuracy (", "learning rate (", "‖g‖ (", "variance (", "tr Σ / |G|² (rows)", "a step: "]
    for svg, x_label, y_label in zip(page.pictures.values(), x_labels, y_labels, strict=True):
        texts = texts_of(svg)
        assert x_label in texts
        assert any(text.startswith(y_label) for text in texts)
        assert svg.get("viewBox")
        assert svg.get("width") is None
    assert len(page.captions) == 7
    assert all(caption.endswith(".") for caption in page.captions)
    assert page.tags.count("details") == 6  # the seventh has its table in the open
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
    loss, accuracy, rate, norm, variance, noise, time = report().captions
    assert "went from 2.5 to 0.0" in loss
    assert "after step 180" in loss
    assert "97.19%" in accuracy
    assert rate == "The learning rate went from 0.1 to 0.007454."
    assert "went from 2 to" in norm
    assert "falls as rows^-1.05 (the law: rows^-1)" in variance
    assert "at the batch of 256 rows the line gives 0.00352" in variance
    assert noise.startswith("At step 179, tr Σ/|G|² ≈ 210 rows")
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
    steps = [dataclasses.replace(record, noise_trace=None, noise_scale=None) for record in steps]
    page = report(ending=summary(gradient_noise=NO_NOISE), records=(steps, validations))
    assert list(page.pictures) == ["Loss", "Validation accuracy", "Learning rate", "Gradient norm", "Parts of a step"]
    assert "not estimated" in page.text
    assert "no step gave an estimate" in page.text


def test_one_variance_point_has_no_slope(report):
    noise = dataclasses.replace(NOISE, variance=VARIANCE[:1])
    caption = report(ending=summary(gradient_noise=noise)).captions[4]
    assert caption.startswith("The measured variance is 0.841 times tr Σ/B; at the batch of 256 rows")


@pytest.mark.parametrize("bad", [math.nan, math.inf, 0.0, -1.0])
def test_unusable_variance_points_are_not_drawn(report, bad):
    noise = dataclasses.replace(NOISE, variance=(*VARIANCE, VariancePoint(256.0, bad, 0.9 / 256)))
    caption = report(ending=summary(gradient_noise=noise)).captions[4]
    assert "rows^-1.05" in caption


def test_zero_noise_has_no_place_on_a_logarithmic_axis(report):
    steps, validations = run(60)
    steps = [dataclasses.replace(record, noise_scale=0.0) for record in steps]
    assert "Noise scale" not in report(records=(steps, validations)).pictures


def test_a_single_step(report):
    steps, _ = run(1, 1)
    page = report(ending=summary(steps=1, epochs=1.0, gradient_noise=NO_NOISE), records=(steps, []), steps_per_epoch=1)
    *drawn_by_step, of_the_parts = page.pictures
    assert drawn_by_step == ["Loss", "Learning rate", "Gradient norm"]
    assert of_the_parts == "Parts of a step"
    assert page.captions[0] == "The loss of a step's rows was 2.5."
    assert page.captions[1] == "The learning rate was 0.1."
    assert page.captions[2] == "The norm of a step's gradient was 2."
    assert page.captions[3].startswith("The median of 1 step:")
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
        " exchange 0.900 9.0% update 0.400 4.0% the rest 0.000 0.0% a step 10.000 100.0% idle, per worker 1.200 12.0% "
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
    svg = report(records=timed({"step_seconds": 0.02})).pictures["Parts of a step"]
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


def test_time_of_no_part_is_the_rest(report):
    page = report(records=timed({"step_seconds": 0.02}))
    assert "update 0.400 2.0% the rest 10.000 50.0% a step 20.000 100.0%" in page.text
    assert (
        "The largest part of a step is the rest, 50%; 42% is gradient computation; a worker waited 6% of it"
        in page.text
    )
    assert "the rest 50%" in texts_of(page.pictures["Parts of a step"])


def test_a_clock_that_is_ahead_makes_no_time_negative(report):
    page = report(records=timed({"exchange_seconds": -0.0001, "step_seconds": 0.009}))
    assert "exchange 0.000 0.0%" in page.text
    assert "the rest 0.000 0.0%" in page.text
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
