"""How the rows of an evaluation are cut into chunks of the fixed size that its program takes."""

from __future__ import annotations

from shardsgd.model.problem import Problem, Split

Chunk = tuple[int, int, int]

# Rows of one call. Fixed, because XLA may give other bits for other shapes of the same sum.
EVALUATION_ROWS = 256


def chunks(problem: Problem, split: Split) -> list[Chunk]:
    """(array, start, stop) of every chunk of a split."""
    return [
        (array, start, min(start + EVALUATION_ROWS, rows))
        for array, rows in enumerate(problem.split_rows(split))
        for start in range(0, rows, EVALUATION_ROWS)
    ]
