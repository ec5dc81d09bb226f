"""The time of a training step, against everything else that could take it."""

from __future__ import annotations

from benchmarks.alternate import Options, compare
from benchmarks.contender import Contender
from benchmarks.results import Comparison
from benchmarks.work import ONE_THREAD, job, ours, write_rows

BATCHES = (64, 256, 1024)
DDP, RAY_TRAIN, JIT, OURS_2, OURS_8 = "PyTorch DDP", "Ray Train", "jax.jit, one process", "ours V=2", "ours V=8"


def work_name(batch: int) -> str:
    """Of the step with so many rows, in tables."""
    return f"B = {batch}"


def measure(options: Options) -> list[Comparison]:
    """One comparison a batch size."""
    source = write_rows(options.scratch / "rows.npz")
    comparisons = []
    for batch in BATCHES:
        parameters = {"source": str(source), "batch": batch}
        contenders = [
            Contender(DDP, "ddp", parameters, ONE_THREAD),
            Contender(RAY_TRAIN, "ray_train", parameters, ONE_THREAD),
            Contender(JIT, "jit_one", parameters),
            ours(OURS_2, job(source, batch=batch, shards=2)),
            ours(OURS_8, job(source, batch=batch, shards=8)),
        ]
        comparisons.append(compare(work_name(batch), contenders, options, rows=batch))
    return comparisons
