"""Pictures and tables of report.html as HTML."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from html import escape

from shardsgd.coordinator.charts import Chart, Stack
from shardsgd.coordinator.figures import draw


def figures(charts: Sequence[Chart], otherwise: str) -> str:
    """The pictures, each with its caption and its numbers; where there are none, a paragraph that says why."""
    if not charts:
        return f"<p>{escape(otherwise)}</p>"
    drawn = "\n".join(figure(chart, _numbers(chart)) for chart in charts)
    return f'<div class="figures">\n{drawn}\n</div>'


def figure(chart: Chart | Stack, below: str = "") -> str:
    """One picture with its heading and its caption."""
    return (
        f"<figure>\n<h3>{escape(chart.title)}</h3>\n{draw(chart)}\n"
        f"<figcaption>{escape(chart.caption)}</figcaption>\n{below}</figure>"
    )


def _numbers(chart: Chart) -> str:
    table = _table(chart.header, chart.table)
    return f'<details><summary>Numbers</summary><div class="wide">{table}</div></details>\n'


def _table(header: Sequence[str], lines: Iterable[Sequence[str]]) -> str:
    head = "".join(f'<th scope="col">{escape(cell)}</th>' for cell in header)
    body = "".join(f"<tr>{_cells(line)}</tr>" for line in lines)
    return f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"


def _cells(line: Sequence[str]) -> str:
    return "".join(f"<td>{escape(cell)}</td>" for cell in line)
