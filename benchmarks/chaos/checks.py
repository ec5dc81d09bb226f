"""What must be true of a run that was disturbed, beside one that was not. A check's text is empty where it holds."""

from __future__ import annotations

from typing import Any

from benchmarks.chaos.runs import Finished

_RESULTS = ("state", "steps", "parameters_sha256", "train_loss", "validation")
_NUMBERS = ("loss", "gradient_norm", "noise_trace", "noise_scale")


def same_end(disturbed: dict[str, Any], alone: dict[str, Any], fields: tuple[str, ...] = _RESULTS) -> str:
    """Parameters and losses of two summaries, bit for bit."""
    differing = [
        f"{name}: {disturbed[name]} instead of {alone[name]}" for name in fields if disturbed[name] != alone[name]
    ]
    return "; ".join(differing)


def same_steps(disturbed: list[dict[str, Any]], alone: list[dict[str, Any]]) -> str:
    """Every number of every step that both have, bit for bit."""
    for one, other in zip(disturbed, alone, strict=False):
        for name in _NUMBERS:
            if one[name] != other[name]:
                return f"step {one['step']}: {name} is {one[name]!r} instead of {other[name]!r}"
    return ""


def no_step_lost(lines: list[dict[str, Any]], steps: int) -> str:
    """Steps 0 … steps − 1, each once."""
    found = [line["step"] for line in lines]
    if found == list(range(steps)):
        return ""
    missing = sorted(set(range(steps)) - set(found))
    return f"{len(missing)} of {steps} missing ({missing[:5]}), {len(found) - len(set(found))} done twice"


def nothing_left(run: Finished) -> str:
    """No process, folder, socket or segment."""
    return "; ".join(run.left)


def in_the_book(run: Finished) -> str:
    """Whether metrics.jsonl has every incident."""
    expected = [(each["step"], each["kind"], each["worker"]) for each in run.incidents]
    lines = [line for line in run.metrics if "incident" in line]
    found = [(line["step"], line["incident"]["kind"], line["incident"]["worker"]) for line in lines]
    return "" if found == expected else f"{len(found)} incidents in metrics.jsonl, {len(expected)} in the run's memory"
