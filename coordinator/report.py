"""report.html: one run as a page that needs nothing else, neither network nor scripts."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from contextlib import nullcontext
from html import escape
from pathlib import Path

from shardsgd.coordinator.charts import Chart
from shardsgd.coordinator.files import Guard, write_atomically
from shardsgd.coordinator.noise_charts import noise_charts
from shardsgd.coordinator.page import page, section
from shardsgd.coordinator.records import Incident, StepRecord, Summary, ValidationRecord
from shardsgd.coordinator.report_figures import figures
from shardsgd.coordinator.report_incidents import incidents_section
from shardsgd.coordinator.report_time import time_section
from shardsgd.coordinator.training_charts import training_charts
from shardsgd.formatting import count, duration, noise_in_words, number, percent, plural, rows_within
from shardsgd.spec import JobSpec
from shardsgd.spec_files import spec_toml


def write_report(
    path: Path,
    *,
    spec: JobSpec,
    summary: Summary,
    steps: Sequence[StepRecord],
    validations: Sequence[ValidationRecord],
    steps_per_epoch: int,
    incidents: Sequence[Incident] = (),
    guard: Guard = nullcontext,
) -> None:
    """Writes the report of a run, however it ended; the same run gives the same bytes.

    Args:
        path: the file to write.
        spec: of the run, resolved.
        summary: how it ended.
        steps: what is known of its steps, oldest first; may be empty.
        validations: likewise.
        steps_per_epoch: steps of one pass over the training rows.
        incidents: what happened to the workers, oldest first.
        guard: see `write_atomically`.
    """
    training = training_charts(spec, steps, validations, steps_per_epoch)
    noise = noise_charts(spec, steps, summary.gradient_noise.variance, steps_per_epoch)
    time, happened = time_section(steps), incidents_section(incidents)
    sections = (
        _header(summary),
        section("Training", figures(training, "There is nothing to draw: the run ended before its first step.")),
        section("What the batch size bought", _noise(spec, summary, noise)),
        *([] if time is None else [section("Where the time went", time)]),
        *([] if happened is None else [section("What happened to the workers", happened)]),
        section("Final figures", _final_figures(spec, summary)),
        section("Job spec", f'<pre tabindex="0"><code>{escape(spec_toml(spec))}</code></pre>'),
        '<p class="soft">Written by shardsgd. Every step is in metrics.jsonl, these figures in summary.json,'
        " the spec in job.toml, all beside this page.</p>",
    )
    write_atomically(path, page(f"{summary.name}: training report", sections), guard)


def _header(summary: Summary) -> str:
    cards = "".join(
        f"<div><dt>{escape(label)}</dt><dd>{escape(value)}<small>{escape(detail)}</small></dd></div>"
        for label, value, detail in _headlines(summary)
    )
    return (
        f"<header>\n<h1>{escape(summary.name)}</h1>\n"
        f'<p><span class="state {summary.state}">{summary.state}</span>: {escape(summary.reason)}</p>\n'
        f'<dl class="cards">{cards}</dl>\n'
        f'<p class="soft">SHA-256 of the parameters: <code>{escape(summary.parameters_sha256)}</code></p>\n</header>'
    )


def _headlines(summary: Summary) -> Iterable[tuple[str, str, str]]:
    """The figures one looks for first: what it is, the figure, a remark."""
    accuracy, loss = _validation(summary)
    if accuracy is not None:
        yield "validation accuracy", percent(accuracy), "of held-out rows"
    if loss is not None:
        yield "validation loss", number(loss), "of held-out rows"
    yield "training loss", number(summary.train_loss), "all training rows"
    yield "steps", count(summary.steps), plural(summary.epochs, "epoch")
    yield "time", duration(summary.seconds), f"{number(summary.samples_per_second)} samples/s"
    yield "workers", count(summary.workers), f"losses survived: {count(summary.recoveries)}"


def _validation(summary: Summary) -> tuple[float | None, float | None]:
    validation = summary.validation or {}
    return validation.get("accuracy"), validation.get("loss")


def _noise(spec: JobSpec, summary: Summary, charts: Sequence[Chart]) -> str:
    noise = summary.gradient_noise
    words = noise_in_words(noise.noise_scale, spec.batch.size, low=noise.noise_scale_low, high=noise.noise_scale_high)
    return (
        "<p>Averaging over B rows divides the variance of the gradient by B. With tr Σ the variance of one row's"
        " gradient and G the mean of all, tr Σ/|G|² is the number of rows at which the average is as much signal as"
        f" noise. At the end of this run: {escape(words)}. Intervals are for 95%, of averages over about the last 100"
        " steps; the steps' estimates are taken as independent.</p>\n"
        + figures(charts, "There is nothing to draw: no step gave an estimate of the gradient's variance.")
    )


def _final_figures(spec: JobSpec, summary: Summary) -> str:
    accuracy, loss = _validation(summary)
    noise = summary.gradient_noise
    held_out = "n/a" if spec.data.validation else "n/a (nothing was held out)"
    lines = (
        ("state", summary.state),
        ("reason", summary.reason),
        ("steps", count(summary.steps)),
        ("epochs", number(summary.epochs)),
        ("training loss", number(summary.train_loss)),
        ("validation loss", held_out if loss is None else number(loss)),
        ("validation accuracy", held_out if accuracy is None else percent(accuracy)),
        ("time in the step loop", duration(summary.seconds)),
        ("samples per second", number(summary.samples_per_second)),
        ("workers at the end", count(summary.workers)),
        ("worker losses survived", count(summary.recoveries)),
        (
            "tr Σ, variance of one row",
            _within(noise.noise_trace, noise.noise_trace_low, noise.noise_trace_high),
        ),
        (
            "|G|², squared mean gradient",
            _within(noise.gradient_norm_squared, noise.gradient_norm_squared_low, noise.gradient_norm_squared_high),
        ),
        ("noise scale tr Σ/|G|²", rows_within(noise.noise_scale, noise.noise_scale_low, noise.noise_scale_high)),
        ("SHA-256 of the parameters", summary.parameters_sha256),
    )
    body = "".join(f'<tr><th scope="row">{escape(label)}</th><td>{escape(text)}</td></tr>' for label, text in lines)
    return f'<table class="final"><tbody>{body}</tbody></table>'


def _within(value: float | None, low: float | None, high: float | None) -> str:
    return number(value) if low is None or high is None else f"{number(value)} ({number(low, 3)} to {number(high, 3)})"
