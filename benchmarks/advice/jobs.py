"""What is trained, at which batch sizes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from shardsgd.spec import JobSpec

SIZES = (16, 32, 64, 128, 256, 512, 1024)
SHARDS = 4


@dataclass(frozen=True)
class Job:
    """What is trained.

    Attributes:
        name: in the report.
        about: in words.
        sections: of its spec, without the batch and the rate.
        target: loss over all training rows, at most.
        present: B₀, the batch size at which the rate is tuned.
        rates: tried there.
        most_steps: of a run that does not reach the target.
    """

    name: str
    about: str
    sections: dict[str, Any]
    target: float
    present: int
    rates: tuple[float, ...]
    most_steps: int = 1500

    def spec(self, batch: int, rate: float, seed: int) -> JobSpec:
        """Of a run."""
        optimizer = {**self.sections.get("optimizer", {}), "learning_rate": rate}
        draws = {"size": batch, "shards": SHARDS, "sampling": "replacement"}
        return JobSpec(**{**self.sections, "optimizer": optimizer, "batch": draws, "seed": seed}).resolved()


def _rates(middle: float, doublings: int) -> tuple[float, ...]:
    return tuple(middle * 2 ** (k / 2) for k in range(-2 * doublings, 2 * doublings + 1))


JOBS = (
    Job(
        "digits",
        "1,438 training rows of 64 features, MLP 64-32-10 with ReLU, softmax cross-entropy, SGD",
        {"data": {"source": "digits"}, "model": {"hidden": [32]}},
        target=0.02,
        present=128,
        rates=_rates(1.0, 2),
    ),
    Job(
        "digits, momentum",
        "the same with momentum 0.9",
        {
            "data": {"source": "digits"},
            "model": {"hidden": [32]},
            "optimizer": {"kind": "momentum", "momentum": 0.9},
        },
        target=0.02,
        present=128,
        rates=_rates(0.1, 2),
    ),
    Job(
        "breast_cancer",
        "455 training rows of 30 features, linear, logistic loss, SGD",
        {"data": {"source": "breast_cancer"}, "model": {"kind": "linear"}, "objective": {"loss": "logistic"}},
        target=0.06,
        present=128,
        rates=_rates(4.0, 2),
    ),
)
