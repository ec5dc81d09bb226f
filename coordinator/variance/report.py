"""report.html of a measurement."""

from __future__ import annotations

from collections.abc import Iterable
from html import escape

from shardsgd.coordinator.page import page, section
from shardsgd.coordinator.report_figures import figures
from shardsgd.coordinator.variance.charts import variance_charts
from shardsgd.coordinator.variance.records import Variance
from shardsgd.formatting import MISSING, count, number, percent, plural, rows
from shardsgd.spec import JobSpec
from shardsgd.spec_files import spec_toml

_LAYER_HEADER = ("array", "parameters", "tr Σ", "of all", "|G|²", "tr Σ/|G|²", "slope", "95% interval")


def variance_report(variance: Variance, spec: JobSpec) -> bytes:
    """The page; the same measurement gives the same bytes.

    Args:
        variance: what was measured.
        spec: of the job, resolved.
    """
    pictures = figures(variance_charts(variance), "There is nothing to draw: no batch size was measured.")
    return page(
        f"{variance.name}: variance of the gradient",
        (
            _header(variance),
            section("What the batch size buys", _explanation(variance) + pictures),
            section("By parameter array", f'<div class="wide">{_layers(variance)}</div>'),
            section("Final figures", _final_figures(variance)),
            section("Job spec", f'<pre tabindex="0"><code>{escape(spec_toml(spec))}</code></pre>'),
            '<p class="soft">Written by shardsgd. All numbers are in variance.csv and variance.json, the spec in job.toml,'
            " all beside this page.</p>",
        ),
    )


def interval(low: float | None, high: float | None, digits: int = 4) -> str:
    """An interval in words."""
    return MISSING if low is None or high is None else f"{number(low, digits)} to {number(high, digits)}"


def _header(variance: Variance) -> str:
    cards = "".join(
        f"<div><dt>{escape(label)}</dt><dd>{escape(value)}<small>{escape(detail)}</small></dd></div>"
        for label, value, detail in _headlines(variance)
    )
    return (
        f"<header>\n<h1>{escape(variance.name)}: variance of the gradient</h1>\n"
        f'<p><span class="state {variance.state}">{variance.state}</span>: {escape(variance.reason)}</p>\n'
        f'<dl class="cards">{cards}</dl>\n</header>'
    )


def _headlines(variance: Variance) -> Iterable[tuple[str, str, str]]:
    law = variance.law
    yield "slope", number(law.slope), f"95%: {interval(law.slope_ci_low, law.slope_ci_high)}; the law: −1"
    yield "tr Σ", number(law.trace_exact), "variance of one row's gradient"
    yield "|G|²", number(law.gradient_norm_squared), "squared gradient of all rows"
    yield "noise scale", rows(law.noise_scale), "tr Σ/|G|², an order of magnitude"
    yield "rows", count(variance.rows), "n, each in g once"
    yield "step", MISSING if variance.step is None else count(variance.step), "updates before these parameters"


def _explanation(variance: Variance) -> str:
    return (
        "<p>At parameters that do not change, g is the gradient of all n rows and g_B that of B rows drawn at random."
        " Drawn with replacement, E‖g_B − g‖² is tr Σ/B, with Σ the covariance of single rows' gradients; without replacement"
        f" it is (n − B)/(n − 1) times that, and nothing at B = n = {count(variance.rows)}. tr Σ is exact, from the gradient of"
        " every row. The loss is meant without its regularizer, which adds the same to every row's gradient.</p>\n"
    )


def _layers(variance: Variance) -> str:
    head = "".join(f'<th scope="col">{escape(cell)}</th>' for cell in _LAYER_HEADER)
    whole = variance.law.trace_exact
    body = "".join(
        "<tr>"
        + "".join(
            f"<td>{escape(cell)}</td>"
            for cell in (
                layer.name,
                count(layer.parameters),
                number(layer.law.trace_exact),
                percent(layer.law.trace_exact / whole if whole else None),
                number(layer.law.gradient_norm_squared),
                rows(layer.law.noise_scale),
                number(layer.law.slope),
                interval(layer.law.slope_ci_low, layer.law.slope_ci_high),
            )
        )
        + "</tr>"
        for layer in variance.layers
    )
    return f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"


def _final_figures(variance: Variance) -> str:
    law = variance.law
    lines = (
        ("state", variance.state),
        ("reason", variance.reason),
        ("training rows, n", count(variance.rows)),
        ("seed", str(variance.seed)),
        ("parameters after", MISSING if variance.step is None else plural(variance.step, "step")),
        ("tr Σ, exact, divisor n", repr(law.trace_exact)),
        ("|G|²", repr(law.gradient_norm_squared)),
        ("noise scale tr Σ/|G|²", rows(law.noise_scale)),
        ("slope with replacement", f"{number(law.slope)} ({interval(law.slope_ci_low, law.slope_ci_high)})"),
        (
            "slope without replacement, divided by (n − B)/(n − 1)",
            f"{number(law.slope_without_replacement)} "
            f"({interval(law.slope_without_replacement_ci_low, law.slope_without_replacement_ci_high)})",
        ),
    )
    body = "".join(f'<tr><th scope="row">{escape(label)}</th><td>{escape(text)}</td></tr>' for label, text in lines)
    return f'<table class="final"><tbody>{body}</tbody></table>'
