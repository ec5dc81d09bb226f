"""RESULTS.md from the records. Pure functions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import median

from benchmarks import sweep_report
from benchmarks.results import Comparison, SectionResult
from benchmarks.tables import details, number, reached, table, times, with_spread
from benchmarks.targets import LEAF_SHARE, is_ours, target

_INTRO = """# Results

Written by `make bench`; what is compared, how and why: [README.md](README.md). Numbers are medians over rounds, with the
least and the most in brackets; ratios are taken within each round, where what slows the machine down slows both sides. Ratios
are what counts: the milliseconds are this machine's."""

_RATIO_NOTE = "Their time over ours in the same round; above 1 we are faster."

_EXCHANGE_NOTE = """Ours adds the sums where the workers left them; the copy of each gradient out of XLA into that memory,
which DDP does not need, is in a step's `reduce`, not in here. Less than four blocks (1 MB) is averaged by the workers here,
in a real step by the coordinator."""

_SCIKIT_NOTE = """`SGDClassifier` updates after every row, in compiled code of one thread: B = 1, where two workers of ours take
B = 256. With a model as small as this, a step of ours is mostly overhead and `SGDClassifier` is hard to beat; and in an epoch
it makes 256 updates where we make one, so rows per second do not say who is done first. `MLPClassifier` does the same
mathematics as we do, in one process: here the comparison is direct."""

_COLD_NOTE = (
    "Seconds from the start of the command to its first line about a step, with Python's files in the page cache."
)


def report(sections: Mapping[str, SectionResult]) -> str:
    """The whole file, of the sections that were ever run."""
    writers = {"step": _step, "sklearn": _scikit, "exchange": _exchange, "cold": _cold, "sweep": sweep_report.text}
    parts = [_INTRO, *_settings(sections)]
    parts += [writer(sections[name]) for name, writer in writers.items() if name in sections]
    return "\n\n".join(parts) + "\n"


def _settings(sections: Mapping[str, SectionResult]) -> list[str]:
    """The setting of each section: a column each, or one for all that share it."""
    groups: dict[tuple[tuple[str, str], ...], list[str]] = {}
    for name, section in sections.items():
        groups.setdefault(tuple(section.setting.items()), []).append(name)
    if not groups:
        return []
    settings = [dict(group) for group in groups]
    head = ["", *(", ".join(names) for names in groups.values())]
    keys = dict.fromkeys(key for setting in settings for key in setting)
    return [table(head, ([key, *(setting.get(key, "–") for setting in settings)] for key in keys))]


def _step(section: SectionResult) -> str:
    title = "## A training step\n\nMLP 784-256-128-10, float32, momentum, 30,000 rows in memory, 2 workers."
    parts = [title, times(section.comparisons), _RATIO_NOTE, ratios(section.comparisons)]
    if shares := _leaf_shares(section.comparisons):
        parts += ["Where the time of our steps goes (medians over all steps of the run):", details(section.comparisons)]
        parts += ["The slowest worker's pure leaf time over the time of the step:", shares]
    return "\n\n".join(parts)


def _scikit(section: SectionResult) -> str:
    parts = ["## The models that scikit-learn has too", _SCIKIT_NOTE, _rows_per_second(section.comparisons)]
    return "\n\n".join([*parts, _RATIO_NOTE, ratios(section.comparisons)])


def _exchange(section: SectionResult) -> str:
    title = "## The exchange alone\n\nfloat32 of two processes averaged, no gradients. " + _EXCHANGE_NOTE
    parts = [title, times(section.comparisons)]
    if rows := ratios(section.comparisons):
        parts += [_RATIO_NOTE, rows]
    return "\n\n".join(parts)


def _cold(section: SectionResult) -> str:
    parts = ["## Cold start to the first step", _COLD_NOTE, times(section.comparisons, unit="s", factor=1)]
    return "\n\n".join([*parts, _RATIO_NOTE, ratios(section.comparisons)])


def ratios(comparisons: Sequence[Comparison]) -> str:
    """Every peer against every contender of ours; empty where there is no such pair."""
    rows = []
    for comparison in comparisons:
        for ours in filter(is_ours, comparison.seconds):
            for peer in comparison.seconds:
                if not is_ours(peer):
                    values = comparison.ratios(peer, ours)
                    goal = reached(median(values), target(comparison.work, peer, ours))
                    rows.append([f"{comparison.work}: {peer} / {ours}", with_spread(values), *goal])
    return table(["ratio", "median (least–most)", "at least", "reached"], rows) if rows else ""


def _leaf_shares(comparisons: Sequence[Comparison]) -> str:
    rows = []
    for comparison in comparisons:
        for name, fields in comparison.details.items():
            if "leaf_seconds" in fields:
                share = fields["leaf_seconds"] / median(comparison.seconds[name])
                goal = reached(share, LEAF_SHARE.get((comparison.work, name)))
                rows.append([f"{comparison.work}, {name}", number(share), *goal])
    return table(["share", "of medians", "at least", "reached"], rows) if rows else ""


def _rows_per_second(comparisons: Sequence[Comparison]) -> str:
    rows = [
        [f"{comparison.work}: {name}", with_spread([comparison.rows / value for value in values])]
        for comparison in comparisons
        for name, values in comparison.seconds.items()
    ]
    return table(["rows per second", "median (least–most)"], rows)
