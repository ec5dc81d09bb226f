"""The section of report.html on what happened to the workers."""

from __future__ import annotations

import statistics
from collections import Counter
from collections.abc import Sequence
from html import escape

from shardsgd.coordinator.records import Incident
from shardsgd.formatting import count, duration, plural

_SHOWN = 20
_WORDS = {"lost": "lost", "start failed": "failed to start", "left": "let go", "joined": "joined"}


def incidents_section(incidents: Sequence[Incident]) -> str | None:
    """A sentence and a table; None where nothing happened."""
    told = [incident for incident in incidents if incident.kind in _WORDS]
    if not incidents:
        return None
    table = _table(told[-_SHOWN:]) if told else ""
    more = f'<p class="soft">The last {_SHOWN} of {count(len(told))}; all are in metrics.jsonl.</p>\n'
    return f"<p>{escape(_in_words(incidents))}</p>\n{more if len(told) > _SHOWN else ''}{table}"


def _in_words(incidents: Sequence[Incident]) -> str:
    kinds = Counter(incident.kind for incident in incidents)
    changes = [f"{plural(kinds[kind], 'worker')} {words}" for kind, words in _WORDS.items() if kinds[kind]]
    held_up = [
        incident.seconds for incident in incidents if incident.kind == "recovered" and incident.seconds is not None
    ]
    repeated = sum(incident.leaves for incident in incidents)
    delays = (
        f"{plural(len(held_up), 'round')} held up, for {duration(statistics.median(held_up))} at the median and "
        f"{duration(max(held_up))} at the most; {plural(repeated, 'unit')} of work computed once more"
        if held_up
        else ""
    )
    return "; ".join([*changes, *([delays] if delays else [])]) + ". No step was lost, and no bit changed."


def _table(incidents: Sequence[Incident]) -> str:
    head = "".join(f'<th scope="col">{cell}</th>' for cell in ("step", "worker", "what", "why"))
    body = "".join(
        f"<tr><td>{count(incident.step)}</td><td>{incident.worker}</td><td>{_WORDS[incident.kind]}</td>"
        f"<td>{escape(incident.reason)}</td></tr>"
        for incident in incidents
    )
    return f'<table class="parts"><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>'
