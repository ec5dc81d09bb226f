"""The report's pictures as SVG text, drawn by matplotlib without touching its global state.

Colours are written as CSS variables, so that one picture serves a light and a dark page. Roles differ in line style,
width and marker too: the pictures stay readable in black and white.
"""

from __future__ import annotations

import io
import re

import matplotlib.style
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, FuncFormatter, MaxNLocator

from shardsgd.coordinator.charts import Chart, Line, Role, Stack
from shardsgd.coordinator.curves import thinned
from shardsgd.coordinator.report_axes import ROUND, fix_ticks, linear_tick, log_ticks, tick

# About as wide as a column of the page: text keeps its size, and is still readable on a phone.
_SIZE_INCHES = (5.2, 3.1)
_MOST_MARKERS = 40
# Of each of many lines; their markers are not above each other.
_FEW_MARKERS = 7
# Lines that have room for their legend beside them. More have it below the picture, in two columns.
_MOST_BESIDE = 3
_LEGEND_ROW_INCHES = 0.21
_USUAL_LABEL = len("100,000")  # pictures below each other have their axes below each other
_INK, _GRID, _BLUE, _RED, _PAPER = "#1f2933", "#d9dee5", "#0a6ebd", "#c2410c", "#fefefe"
_VARIABLES = {_INK: "ink", _GRID: "grid", _BLUE: "blue", _RED: "red", _PAPER: "paper"}
_STYLES: dict[Role, dict[str, object]] = {
    "raw": {"color": _BLUE, "linewidth": 0.8, "alpha": 0.4},
    "main": {"color": _BLUE, "linewidth": 2.2},
    "points": {
        "color": _RED,
        "linewidth": 1.0,
        "linestyle": (0, (1, 1.5)),
        "marker": "o",
        "markersize": 6,
        "markerfacecolor": _PAPER,
        "markeredgewidth": 1.6,
    },
    "reference": {"color": _INK, "linewidth": 1.4, "linestyle": (0, (6, 3))},
    "bound": {"color": _BLUE, "linewidth": 1.2, "linestyle": (0, (1, 1.2))},
    "one of many": {"linewidth": 1.5, "markersize": 5.5, "markerfacecolor": _PAPER, "markeredgewidth": 1.3},
}
# Of one of many lines: colour, dashes and marker, so that two of them differ in two ways.
_MANY = (
    (_BLUE, "-", "o"),
    (_RED, (0, (5, 2)), "s"),
    (_INK, (0, (1, 1.2)), "^"),
    (_BLUE, (0, (5, 2, 1, 2)), "D"),
    (_RED, "-", "v"),
    (_INK, (0, (5, 2)), "x"),
    (_BLUE, (0, (1, 1.2)), "P"),
    (_RED, (0, (5, 2, 1, 2)), "*"),
)
_SETTINGS = {
    "svg.fonttype": "none",  # text stays text: it can be found, copied and read aloud, and is a tenth of the size
    "svg.hashsalt": "shardsgd",
    "font.family": "sans-serif",
    "font.size": 11,
    "text.color": _INK,
    "axes.labelcolor": _INK,
    "axes.edgecolor": _INK,
    "xtick.color": _INK,
    "ytick.color": _INK,
}


def draw(chart: Chart | Stack) -> str:
    """The picture as an `<svg>` element whose ids start with the chart's key."""
    # From the defaults: a matplotlibrc of the user changes nothing.
    with matplotlib.style.context(["default", _SETTINGS]):
        width, height = _SIZE_INCHES
        figure = Figure(figsize=(width, height + _legend_inches(chart)))
        if isinstance(chart, Stack):
            _draw_stack(figure, chart)
        else:
            _draw_lines(figure, chart)
        buffer = io.StringIO()
        no_metadata = dict.fromkeys(("Creator", "Date", "Format", "Type"))
        FigureCanvasSVG(figure).print_figure(buffer, format="svg", facecolor="none", metadata=no_metadata)
    return _for_page(buffer.getvalue(), chart)


def _draw_lines(figure: Figure, chart: Chart) -> None:
    below = _legend_inches(chart)
    axes = figure.add_axes(_place(_USUAL_LABEL, below), facecolor="none")
    for line in chart.lines:
        _draw_line(axes, line)
    _dress(axes, chart)
    if below:
        figure.legend(loc="lower left", ncols=2, frameon=False, fontsize=10, borderaxespad=0)
    axes.set_position(_place(max(len(label.get_text()) for label in axes.get_yticklabels()), below))


def _legend_inches(chart: Chart | Stack) -> float:
    """The height of a legend below the picture; 0 where it has none there."""
    lines = 0 if isinstance(chart, Stack) else sum(not line.label.startswith("_") for line in chart.lines)
    return _LEGEND_ROW_INCHES * -(-lines // 2) if lines > _MOST_BESIDE else 0.0


def _place(label_length: int, below: float) -> tuple[float, float, float, float]:
    """Where in the picture the axes are, so that the y axis has room for labels of this length, and `below` inches are left."""
    left = 0.02 + 0.0187 * max(label_length, _USUAL_LABEL)
    height = _SIZE_INCHES[1] + below
    return left, (0.165 * _SIZE_INCHES[1] + below) / height, 0.98 - left, 0.74 * _SIZE_INCHES[1] / height


def _draw_line(axes: Axes, line: Line) -> None:
    x, y = thinned(line.x, line.y)
    style = dict(_STYLES[line.role])
    if line.role == "points":
        style["markevery"] = max(1, -(-len(x) // _MOST_MARKERS))
    elif line.role == "one of many":
        style["color"], style["linestyle"], style["marker"] = _MANY[line.number % len(_MANY)]
        every = max(1, -(-len(x) // _FEW_MARKERS))
        style["markevery"] = (every * line.number // len(_MANY) % every, every)
    elif len(x) == 1:
        style["marker"] = "s"  # a line of one point would not be seen
    axes.plot(x, y, label=line.label, **style)  # type: ignore[arg-type]  # keyword names are checked by matplotlib


def _dress(axes: Axes, chart: Chart) -> None:
    axes.set_xlabel(chart.x_label)
    # Above its axis and not beside it: any length fits, and nobody has to tilt their head.
    axes.set_title(chart.y_label, loc="left", fontsize=11)
    axes.grid(True, color=_GRID, linewidth=0.8)
    axes.set_axisbelow(True)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    if chart.log_x:
        axes.set_xscale("log")
        fix_ticks(axes.xaxis, np.unique(chart.lines[0].x))
    else:
        if all((line.x == chart.lines[0].x[0]).all() for line in chart.lines):
            axes.set_xlim(chart.lines[0].x[0] - 1, chart.lines[0].x[0] + 1)
        axes.xaxis.set_major_locator(MaxNLocator(5, integer=True, steps=ROUND))
        axes.xaxis.set_major_formatter(FuncFormatter(tick))
    if chart.log_y:
        axes.set_yscale("log")
        fix_ticks(axes.yaxis, log_ticks(*axes.get_ylim()))
    else:
        axes.yaxis.set_major_locator(MaxNLocator(5, steps=ROUND))
        axes.yaxis.set_major_formatter(FuncFormatter(linear_tick(*axes.get_ylim(), percent=chart.percent_y)))
    if len(chart.lines) > 1 and not _legend_inches(chart):
        axes.legend(frameon=False, fontsize=10)


def _draw_stack(figure: Figure, stack: Stack) -> None:
    """A line for each part, beginning where the one above ends: so even the thinnest has its label beside it."""
    labels = [f"{part.label} {part.text}" for part in stack.parts]
    left = 0.02 + 0.017 * max(map(len, labels))
    axes = figure.add_axes((left, 0.165, 0.94 - left, 0.74), facecolor="none")  # half of "100%" is right of the axis
    start = 0.0
    for line, part in enumerate(stack.parts):
        end = start + part.share
        if line + 1 < len(stack.parts):
            axes.plot([end, end], [line + 0.31, line + 0.69], color=_INK, linewidth=0.8)
        # With an edge: a part of almost nothing is a line, and grey ones stand out from the page.
        fill = _BLUE if part.stressed else _GRID
        axes.barh(line, part.share, left=start, height=0.62, color=fill, edgecolor=_INK, linewidth=0.8, clip_on=False)
        start = end
    axes.set_yticks(range(len(labels)), labels)
    axes.tick_params(axis="y", length=0)
    axes.invert_yaxis()
    axes.set_xlim(0, 1)
    axes.set_xlabel(stack.x_label)
    axes.set_title(stack.y_label, loc="left", fontsize=11)
    axes.xaxis.set_major_locator(FixedLocator([0, 0.25, 0.5, 0.75, 1]))
    axes.xaxis.set_major_formatter(FuncFormatter(linear_tick(0, 1, percent=True)))
    axes.grid(True, axis="x", color=_GRID, linewidth=0.8)
    axes.set_axisbelow(True)
    for side in ("top", "right", "left"):
        axes.spines[side].set_visible(False)


def _for_page(svg: str, chart: Chart | Stack) -> str:
    """Takes what is meant for a file of its own out of the SVG, and makes it scale, follow the theme and be unique."""
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<style.*?</style>", "", svg, flags=re.DOTALL)  # would apply to the whole page
    svg = re.sub(r'(\bid="|url\(#|href="#)', rf"\g<1>{chart.key}-", svg)
    svg = re.sub(r' width="[\d.]+pt" height="[\d.]+pt"| height="[\d.]+pt" width="[\d.]+pt"', "", svg, count=1)
    for colour, name in _VARIABLES.items():
        svg = svg.replace(colour, f"var(--{name}, {colour})")
    return svg.replace("<svg ", f'<svg role="img" aria-label="{chart.title}" ', 1)
