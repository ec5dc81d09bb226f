"""What one owner may have."""

from __future__ import annotations

from dataclasses import asdict, dataclass

from shardsgd.errors import InputError


@dataclass(frozen=True)
class Limits:
    """What one owner may have; every owner the same. None: no limit.

    Attributes:
        open_jobs: jobs that have not ended.
        workers: of the owner's jobs that train at a time.
        dataset_bytes: of uploaded datasets.
        upload_bytes: of one uploaded dataset.
        watchers: streaming calls at a time: watches, uploads and downloads.

    Raises:
        InputError: one is less than 1; all such are named.
    """

    open_jobs: int | None = 1_000
    workers: int | None = None
    dataset_bytes: int | None = 64 * 2**30
    upload_bytes: int | None = 8 * 2**30
    watchers: int | None = 512

    def __post_init__(self) -> None:
        wrong = [f"{name} = {value}" for name, value in asdict(self).items() if value is not None and value < 1]
        if wrong:
            raise InputError(f"limits of an owner: {', '.join(wrong)}: must be at least 1")
