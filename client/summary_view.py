"""The last thing a run prints: its summary."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from rich.table import Table
from rich.text import Text

from shardsgd.coordinator.advice.words import advice_line
from shardsgd.formatting import count, duration, noise_in_words, number, percent, plural

if TYPE_CHECKING:
    from shardsgd.coordinator.records import Summary

_STATE_STYLES = {"SUCCEEDED": "bold green", "INTERRUPTED": "bold yellow", "FAILED": "bold red"}


def summary_table(summary: Summary, out_dir: Path | None, *, batch_size: int) -> Table:
    """The summary as a two-column table that wraps to any width.

    Args:
        summary: how the run ended.
        out_dir: the folder with the run's files; None: they are on another machine.
        batch_size: `batch.size` of the spec, which the noise scale is compared with.
    """
    table = Table.grid(padding=(0, 2))
    table.add_column(style="dim", no_wrap=True, max_width=24)
    table.add_column(overflow="fold")

    def row(label: str, text: str) -> None:
        table.add_row(label, Text(text))  # Text, not str: a path may contain what rich would read as markup

    state = Text.assemble((summary.state, _STATE_STYLES[summary.state]), f": {summary.reason}")
    table.add_row(Text(summary.name, style="bold"), state)
    row("steps", f"{count(summary.steps)} ({plural(summary.epochs, 'epoch')})")
    row("training loss", number(summary.train_loss))
    if summary.validation is not None:
        accuracy = summary.validation.get("accuracy")
        share = "" if accuracy is None else f", accuracy {percent(accuracy)}"
        row("validation", f"loss {number(summary.validation.get('loss'))}{share}")
    row("time", f"{duration(summary.seconds)}, {number(summary.samples_per_second)} samples/s")
    row("workers", f"{count(summary.workers)} (losses survived: {count(summary.recoveries)})")
    noise = summary.gradient_noise
    row(
        "noise scale",
        noise_in_words(noise.noise_scale, batch_size, low=noise.noise_scale_low, high=noise.noise_scale_high),
    )
    row("batch size", advice_line(noise, batch_size))
    row("parameters", f"sha256 {summary.parameters_sha256[:16]} (all of it in summary.json)")
    if out_dir is not None:
        row("files", f"{out_dir} (report.html shows the run)")
    return table
