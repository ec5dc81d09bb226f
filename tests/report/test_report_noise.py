"""The report's pictures of noise, gain and layers: intervals with their gaps, and lines that differ without colour."""

import dataclasses
import re
import xml.etree.ElementTree as ET

import numpy as np
import pytest
from reports import SVG, job, run, texts_of

ADAPTIVE = {"scale_invariant": True, "tuned_for": 64}


def changed(count, **changes):
    """Steps of a run, each with what `changes` makes of its number."""
    steps, validations = run(count)
    made = [
        dataclasses.replace(record, **{name: value(record.step) for name, value in changes.items()}) for record in steps
    ]
    return made, validations


def curves(svg, style):
    """Drawn lines of a style, as lists of [x, y], NaN between the parts of one."""
    paths = [path for path in svg.iter(f"{SVG}path") if style in path.get("style", "") and path.get("clip-path")]
    return [re.findall(r"([ML]) ([-\d.]+) ([-\d.]+)", path.get("d")) for path in paths]


DOTTED = "stroke-dasharray: 1.2,1.44"


def test_the_interval_is_drawn_on_both_sides_of_the_noise_scale(report):
    svg = report().pictures["Noise scale"]
    low, high = curves(svg, DOTTED)
    (scale,) = curves(svg, "stroke-width: 2.2")
    for bound, sign in ((low, 1), (high, -1)):
        x, y = np.array([point[1:] for point in bound], float).T
        assert x[-1] - x[0] > 200
        beside = np.interp(x, *np.array([point[1:] for point in scale], float).T)
        assert (sign * (y - beside) > 0).all()  # SVG counts downwards
    assert texts_of(svg).count("95% interval") == 1
    assert "_the other end" not in texts_of(svg)


def test_where_an_interval_has_no_upper_end_the_line_has_a_gap(report):
    records = changed(180, noise_scale_high=lambda step: None if 50 <= step < 90 else 40.0 + step)
    page = report(records=records)
    low, high = curves(page.pictures["Noise scale"], DOTTED)
    assert [command for command, *_ in low].count("M") == 1
    assert [command for command, *_ in high].count("M") == 2
    assert "no end of the interval is drawn" in " ".join(page.captions)
    assert re.search(r" 66 96 at least 86 ", page.text)


def test_ends_far_away_do_not_flatten_the_picture(report):
    near, far = (
        report(records=changed(180, noise_scale_high=value)).pictures["Noise scale"]
        for value in (lambda step: 40.0 + step, lambda step: 1e9 if step < 30 else 40.0 + step)
    )

    def scale(svg):
        return [y for _, _, y in curves(svg, "stroke-width: 2.2")[0]]

    assert scale(near) == scale(far)


def test_without_intervals_nothing_is_said_of_them(report):
    nothing = {"noise_scale_low": lambda step: None, "noise_scale_high": lambda step: None}
    page = report(records=changed(180, **nothing))
    assert curves(page.pictures["Noise scale"], DOTTED) == []
    assert "95% interval" not in texts_of(page.pictures["Noise scale"])
    assert page.captions[-2].startswith("At step 179, tr Σ/|G|² ≈ 210 rows, ")


def test_the_gain_has_a_picture_where_rates_are_scaled_by_it(report):
    records = changed(180, gain=lambda step: 1 + 2 * step / 179)
    page = report(job(schedule=ADAPTIVE), records=records)
    assert list(page.pictures)[2:4] == ["Learning rate", "Gain"]
    assert "The gain went from 1 to 3; by it 180 steps of 256 rows were as good as 360 of 64 rows." in page.captions
    assert "step gain steps of the schedule 0 1 1 16 1.179 " in page.text
    assert "gain (steps of 64 rows in one)" in texts_of(page.pictures["Gain"])
    assert "Gain" not in report().pictures


def layers(count):
    names = [f"layer{number}.{kind}" for number in range(count) for kind in ("weight", "bias")]
    return lambda step: {name: (1 + number) * 0.99**step for number, name in enumerate(names)}


def lines_of(svg):
    """(stroke, dashes, marker's shape) of each line of a layer, from the legend."""
    text = ET.tostring(svg, encoding="unicode")
    return re.findall(r"stroke: var\(--(\w+), #\w+\)", text)


@pytest.mark.parametrize(("count", "drawn"), [(1, 2), (4, 8), (5, 5), (8, 8), (20, 8)])
def test_of_many_arrays_some_are_drawn_and_all_are_in_the_table(report, count, drawn):
    page = report(records=changed(60, layer_norms=layers(count)))
    svg = page.pictures["Gradient norm by layer"]
    named = [text for text in texts_of(svg) if re.fullmatch(r"layer\d+\.\w+", text)]
    assert len(named) == drawn
    assert {"layer0.weight", f"layer{count - 1}.weight"} <= set(named)
    assert f"step {' '.join(layers(count)(0))} 0 " in page.text
    caption = page.captions[list(page.pictures).index("Gradient norm by layer")]
    assert ("are drawn" in caption) == (drawn < 2 * count)
    assert f"the largest part of the gradient was layer{count - 1}.bias's" in caption
    # The picture is higher by its legend, and the legend is within it.
    height = float(svg.get("viewBox").split()[3])
    assert all(0 < float(text.get("y")) < height for text in svg.iter(f"{SVG}text") if text.get("y"))


def test_layers_differ_in_more_than_colour(report):
    svg = report(records=changed(60, layer_norms=layers(4))).pictures["Gradient norm by layer"]
    looks = []
    for group in svg.iter(f"{SVG}g"):
        path, uses = group.find(f"{SVG}path"), list(group.iter(f"{SVG}use"))
        if path is not None and path.get("clip-path") and uses:
            dashes = re.search(r"stroke-dasharray: ([\d.,]+)", path.get("style"))
            marker = next(m for m in svg.iter(f"{SVG}path") if f"#{m.get('id')}" == href(uses[0]))
            looks.append((dashes[1] if dashes else "solid", marker.get("d")))
    assert len(looks) == 8
    assert len({marker for _, marker in looks}) == 8
    assert len({dashes for dashes, _ in looks}) >= 4


def href(use):
    return next(value for name, value in use.items() if name.endswith("href"))


def test_layers_of_a_run_that_began_in_an_older_version(report):
    page = report(records=changed(60, layer_norms=lambda step: None if step < 30 else layers(2)(step)))
    assert "Gradient norm by layer" in page.pictures
    page = report(records=changed(60, layer_norms=lambda step: None))
    assert "Gradient norm by layer" not in page.pictures


@pytest.mark.parametrize("bad", [np.nan, np.inf, None, 0.0])
def test_an_array_without_a_gradient_has_no_line(report, bad):
    page = report(records=changed(60, layer_norms=lambda step: {"layer0.weight": 1.0, "layer0.bias": bad}))
    if bad == 0.0:
        assert "layer0.bias" not in texts_of(page.pictures["Gradient norm by layer"])
        assert "step layer0.weight layer0.bias 0 1 0 " in page.text
    else:
        assert "Gradient norm by layer" not in page.pictures
