"""report.html: one run as a page that needs nothing else, neither network nor scripts."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from contextlib import nullcontext
from html import escape
from pathlib import Path

from shardsgd.coordinator.charts import Chart
from shardsgd.coordinator.files import Guard, write_atomically
from shardsgd.coordinator.noise_charts import noise_charts
from shardsgd.coordinator.records import Incident, StepRecord, Summary, ValidationRecord
from shardsgd.coordinator.report_figures import figures
from shardsgd.coordinator.report_incidents import incidents_section
from shardsgd.coordinator.report_style import STYLE
from shardsgd.coordinator.report_time import time_section
from shardsgd.coordinator.training_charts import training_charts
from shardsgd.formatting import count, duration, noise_in_words, number, percent, plural, rows
from shardsgd.spec import JobSpec
from shardsgd.spec_files import spec_toml

# Says to the browser what is true anyway, so that even a flaw in the escaping could load or run nothing.
_POLICY = "default-src 'none'; style-src 'unsafe-inline'"


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
        _section("Training", figures(training, "There is nothing to draw: the run ended before its first step.")),
        _section("What the batch size bought", _noise(spec, summary, noise)),
        *([] if time is None else [_section("Where the time went", time)]),
        *([] if happened is None else [_section("What happened to the workers", happened)]),
        _section("Final figures", _final_figures(spec, summary)),
        _section("Job spec", f'<pre tabindex="0"><code>{escape(spec_toml(spec))}</code></pre>'),
        '<p class="soft">Written by shardsgd. Every step is in metrics.jsonl, these figures in summary.json,'
        " the spec in job.toml, all beside this page.</p>",
    )
    body = "\n".join(sections)
    page = (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">\n'
        f"<title>{escape(summary.name)}: training report</title>\n<style>{STYLE}</style>\n</head>\n<body>\n"
        f"{body}\n</body>\n</html>\n"
    )
    # A reason may quote a file name that is not valid Unicode.
    write_atomically(path, page.encode("utf-8", errors="replace"), guard)


def _section(title: str, content: str) -> str:
    return f"<section>\n<h2>{escape(title)}</h2>\n{content}\n</section>"


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
    words = noise_in_words(summary.gradient_noise.noise_scale, spec.batch.size)
    return (
        "<p>Averaging over B rows divides the variance of the gradient by B. With tr Σ the variance of one row's"
        " gradient and G the mean of all, tr Σ/|G|² is the number of rows at which the average is as much signal as"
        f" noise. At the end of this run: {escape(words)}.</p>\n"
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
        ("tr Σ, variance of one row", number(noise.noise_trace)),
        ("|G|², squared mean gradient", number(noise.gradient_norm_squared)),
        ("noise scale tr Σ/|G|²", rows(noise.noise_scale)),
        ("SHA-256 of the parameters", summary.parameters_sha256),
    )
    body = "".join(f'<tr><th scope="row">{escape(label)}</th><td>{escape(text)}</td></tr>' for label, text in lines)
    return f'<table class="final"><tbody>{body}</tbody></table>'
