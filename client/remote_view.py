"""Jobs and services as tables for people."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime

from rich.table import Table
from rich.text import Text

from shardsgd.coordinator.service.states import ENDED, Intent, JobState
from shardsgd.formatting import MISSING, count, duration, number
from shardsgd.remote_info import JobInfo, OwnerLimits, ServerInfo
from shardsgd.summary_view import summary_table
from shardsgd.terminal import LeavableConsole

_STATE_STYLES = {
    JobState.RUNNING: "bold cyan",
    JobState.PAUSED: "bold yellow",
    JobState.SUCCEEDED: "bold green",
    JobState.FAILED: "bold red",
    JobState.CANCELLED: "bold yellow",
}
_INTENTIONS = {Intent.PAUSE: "pausing", Intent.CANCEL: "cancelling"}
# Wider than any line: in a pipe nothing is folded.
_NO_TERMINAL = 100_000


def list_console() -> LeavableConsole:
    """Where lists are printed: a line of theirs is one line, also in a pipe."""
    shown = LeavableConsole()
    return shown if shown.is_terminal else LeavableConsole(width=_NO_TERMINAL)


def jobs_table(jobs: Iterable[JobInfo], now: datetime | None = None) -> Table:
    """A row a job.

    Args:
        jobs: in the order of the rows.
        now: what ages are counted from; None: this moment.
    """
    now = now or datetime.now(UTC)
    jobs = list(jobs)
    table = Table(box=None, pad_edge=False, header_style="dim")
    # An id is there to be copied: whatever else has to, it is not folded.
    table.add_column("JOB", no_wrap=True, min_width=max((len(info.job_id) for info in jobs), default=0))
    table.add_column("STATE")
    table.add_column("DONE", justify="right", no_wrap=True)
    table.add_column("LOSS", justify="right", no_wrap=True)
    table.add_column("CREATED", no_wrap=True)
    owners = len({info.owner for info in jobs}) > 1
    if owners:
        table.add_column("OWNER", overflow="fold")
    for info in jobs:
        cells: list[str | Text] = [
            Text(info.job_id),
            state_text(info),
            done(info),
            loss(info),
            f"{_age(info.created_at, now)} ago",
        ]
        if owners:
            cells.append(Text(info.owner))
        table.add_row(*cells)
    return table


def job_table(info: JobInfo, now: datetime | None = None) -> Table:
    """All of a job that people ask for, as two columns."""
    now = now or datetime.now(UTC)
    table = _two_columns()

    def row(label: str, text: str | Text) -> None:
        table.add_row(label, text if isinstance(text, Text) else Text(text))

    row("job", Text(info.job_id, style="bold"))
    row("state", state_text(info) + (f": {info.reason}" if info.reason else ""))
    row("name", info.name)
    row("owner", info.owner)
    if info.priority:
        row("priority", str(info.priority))
    for label, time in (("created", info.created_at), ("started", info.started_at), ("ended", info.ended_at)):
        if time is not None:
            row(label, f"{time.astimezone():%Y-%m-%d %H:%M:%S} ({_age(time, now)} ago)")
    row("data", info.spec_message.data.source)
    row("workers", count(info.spec_message.workers.count))
    if info.progress is not None:
        step, pace = info.progress.record, info.progress.pace
        share = "" if pace.fraction_done is None else f" ({done(info)} done)"
        row("progress", f"step {count(step.step)}, epoch {count(step.epoch)}{share}, loss {loss(info)}")
        if info.state is JobState.RUNNING:
            left = "" if pace.eta_seconds is None else f", {duration(pace.eta_seconds)} left"
            row("pace", f"{number(pace.samples_per_second)} samples/s{left}")
    return table


def ended_table(info: JobInfo, fetch: str) -> Table | None:
    """How a job ended, like the end of a local run; None where it came to no summary.

    Args:
        info: of a job that has ended or is paused.
        fetch: the command that fetches its parameters.
    """
    if info.summary is None:
        return None
    table = summary_table(info.summary, None, batch_size=info.spec_message.batch.size)
    table.add_row("job", Text(info.job_id))
    table.add_row("fetch", Text(fetch))
    return table


def server_table(address: str, info: ServerInfo) -> Table:
    """A service."""
    table = _two_columns()
    table.add_row("service", Text(address, style="bold"))
    table.add_row("version", Text(f"shardsgd {info.version}, jaxlib {info.jaxlib_version or MISSING}"))
    table.add_row("up for", duration(info.uptime_s))
    table.add_row("workers", f"{count(info.workers_free)} of {count(info.workers_total)} free")
    table.add_row("jobs", f"{count(info.jobs_running)} running, {count(info.jobs_queued)} queued")
    table.add_row("you are", Text(info.owner))
    table.add_row("you may have", _limits(info.limits))
    return table


def state_text(info: JobInfo) -> Text:
    """Where a job stands, and where it is about to go."""
    text = Text(info.state, style=_STATE_STYLES.get(info.state, "bold"))
    if info.state not in ENDED and info.state is not JobState.PAUSED and info.intent in _INTENTIONS:
        text.append(f", {_INTENTIONS[info.intent]}", style="not bold")
    if info.queue_position:
        text.append(f", {count(info.queue_position)} before it", style="not bold")
    return text


def done(info: JobInfo) -> str:
    """The share of the work that is done."""
    if info.state is JobState.SUCCEEDED:
        return "100%"
    if info.progress is None or info.progress.pace.fraction_done is None:
        return ""
    # Rounded down: 100% is for a job that is done.
    return f"{min(99, int(100 * info.progress.pace.fraction_done))}%"


def loss(info: JobInfo) -> str:
    """The training loss, as far as it is known."""
    if info.summary is not None and info.summary.train_loss is not None:
        return number(info.summary.train_loss)
    return "" if info.progress is None else number(info.progress.record.loss)


def size(nbytes: int) -> str:
    """A number of bytes in the largest unit that it fills.

    Example:
        >>> size(999), size(123_456), size(4 * 2**30)
        ('999 B', '120.6 KiB', '4 GiB')
    """
    value, unit = float(nbytes), "B"
    for larger in ("KiB", "MiB", "GiB", "TiB"):
        if value < 1024:
            break
        value, unit = value / 1024, larger
    return f"{number(value)} {unit}"


def _limits(limits: OwnerLimits) -> str:
    parts = [
        "any number of open jobs" if limits.open_jobs is None else f"{count(limits.open_jobs)} open jobs",
        "all workers" if limits.workers is None else f"{count(limits.workers)} workers",
        "any datasets" if limits.dataset_bytes is None else f"{size(limits.dataset_bytes)} of datasets",
    ]
    if limits.upload_bytes is not None:
        parts.append(f"{size(limits.upload_bytes)} in one")
    return ", ".join(parts)


def _age(time: datetime, now: datetime) -> str:
    # Clocks of two machines differ: what is just made may seem to come from the future.
    return duration(max(0.0, round((now - time).total_seconds())))


def _two_columns() -> Table:
    table = Table.grid(padding=(0, 2))
    table.add_column(style="dim", no_wrap=True)
    table.add_column(overflow="fold")
    return table
