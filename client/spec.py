"""The job spec: one frozen definition, of which TOML, `--set` and Python keywords are spellings.

Bounds and choices stand here once. The texts of error messages and the table in docs/spec.md are derived from them.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from shardsgd.errors import SpecError
from shardsgd.spec_problems import cross_problems, field_problems

_FILE_SUFFIXES = (".csv", ".parquet", ".npz", ".npy", ".gz")

Rows = Annotated[int, Field(ge=1, le=2**31)]
Fraction = Annotated[float, Field(ge=0, lt=1, allow_inf_nan=False)]
Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
NonNegative = Annotated[float, Field(ge=0, allow_inf_nan=False)]


class Section(BaseModel):
    """A table of the spec: frozen, no unknown keys, no silent conversions (`"3"` is not a number, `true` is not 1)."""

    model_config = ConfigDict(
        frozen=True, extra="forbid", strict=True, protected_namespaces=(), hide_input_in_errors=True
    )


class Workers(Section):
    """Who computes. Nothing here changes a bit of the result."""

    count: int = Field(2, ge=1, le=1024, description="Ray workers; a number only the clock can notice")
    min: int = Field(1, ge=1, le=1024, description="workers without which no step begins; at most count")
    max: Annotated[int, Field(ge=1, le=1024)] | None = Field(
        None, description="workers that a running job may be scaled to; default: count"
    )
    wait_seconds: NonNegative = Field(
        60.0, description="how long there may be fewer than min before the job fails, with a checkpoint"
    )
    hang_seconds: Positive = Field(
        5.0, description="a worker that has not answered for so long, and for ten times what is usual, is replaced"
    )
    max_losses: Annotated[int, Field(ge=0)] | None = Field(
        None, description="workers that may be lost; default: any number"
    )
    verify: Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)] = Field(
        0.0, description="share of the gradients computed twice, by two workers, and compared"
    )
    accelerator: Literal["cpu"] = Field("cpu", description="device kind of the workers")
    exchange: Literal["auto", "shared_memory", "ray"] = Field(
        "auto", description="transport of parameters and gradient sums; auto: shared memory on one node, else ray"
    )


class Data(Section):
    """What is learned from."""

    source: str = Field(
        min_length=1, description="a bundled set, `synthetic:…`, or a path to .csv .parquet .npz .npy or IDX"
    )
    label: str = Field(
        "label", min_length=1, description="column or array that holds the labels, where the format has names"
    )
    features: tuple[str, ...] | None = Field(
        None, min_length=1, strict=False, description="columns or array to learn from; default: all but the label"
    )
    validation: Fraction = Field(0.2, description="share of the rows held out for validation")
    standardize: bool = Field(True, description="scale features to mean 0 and deviation 1 of the training rows")


class Model(Section):
    """What is fitted."""

    kind: Literal["linear", "mlp"] = Field("mlp", description="network family")
    hidden: tuple[Annotated[int, Field(ge=1, le=65536)], ...] = Field(
        (64,), max_length=64, strict=False, description="units of each hidden layer (mlp)"
    )
    activation: Literal["sigmoid", "tanh", "relu", "leaky_relu", "gelu"] = Field(
        "relu", description="nonlinearity between layers (mlp)"
    )


class Objective(Section):
    """What is minimized: the mean loss of the rows plus the regularizer."""

    loss: Literal["squared_error", "logistic", "softmax_cross_entropy"] = Field(
        "softmax_cross_entropy", description="loss of one row"
    )
    l1: NonNegative = Field(0.0, description="l1·‖w‖₁ over weights, not biases")
    l2: NonNegative = Field(0.0, description="l2·‖w‖²/2 over weights, not biases")


class Optimizer(Section):
    """How a gradient moves the parameters."""

    kind: Literal["sgd", "momentum"] = Field("sgd", description="update rule")
    momentum: Fraction = Field(0.9, description="β of Δ ← βΔ − ηg (momentum)")
    learning_rate: Positive = Field(0.1, description="lr(0), which the schedule scales")


class Schedule(Section):
    """lr(t) / lr(0), for t = 0, 1, …"""

    kind: Literal["constant", "polynomial", "step", "exponential"] = Field("constant", description="decay of the rate")
    power: Positive | None = Field(None, description="α of (t+1)^−α (polynomial)")
    factor: Annotated[float, Field(gt=0, lt=1, allow_inf_nan=False)] | None = Field(
        None, description="c of c^⌊t/T⌋ (step)"
    )
    every: Annotated[int, Field(ge=1)] | None = Field(None, description="T of c^⌊t/T⌋, in steps (step)")
    rate: Positive | None = Field(None, description="β of exp(−βt) (exponential)")
    scale_invariant: bool = Field(
        False, description="scale the rate by AdaScale's gain r, and let the schedule advance by r a step instead of 1"
    )
    tuned_for: Rows | None = Field(
        None, description="batch size that the schedule was tuned for, at most batch.size (scale_invariant)"
    )


class Batch(Section):
    """The rows of one step."""

    size: Rows = Field(256, description="rows of one step over all workers")
    shards: int = Field(8, ge=1, le=4096, description="logical shards V; part of what fixes the bits")
    sampling: Literal["shuffle", "replacement"] = Field("shuffle", description="how rows are drawn")
    precision: Literal["float32", "float64", "bfloat16"] = Field(
        "float32", description="of parameters and gradients (bfloat16: bf16 compute, float32 sums)"
    )


class Stop(Section):
    """When training ends: the first rule to hold. Without any, after 30 epochs."""

    epochs: Annotated[int, Field(ge=1)] | None = Field(None, description="passes over the training rows")
    steps: Annotated[int, Field(ge=1)] | None = Field(None, description="updates of the parameters")
    seconds: Positive | None = Field(None, description="wall-clock time in the step loop")
    tolerance: Positive | None = Field(None, description="change of the training loss between two epochs, at most")
    target_loss: Annotated[float, Field(allow_inf_nan=False)] | None = Field(
        None, description="validation loss (training loss where nothing is held out), at most"
    )
    patience: Annotated[int, Field(ge=1)] | None = Field(
        None, description="evaluations without a better validation loss (training loss where nothing is held out)"
    )


class Checkpoint(Section):
    """What an interruption may cost."""

    every_seconds: Positive = Field(30.0, description="time between checkpoints")
    keep: int = Field(2, ge=1, le=1000, description="checkpoints kept; a damaged one is passed over for the one before")


class JobSpec(Section):
    """One training run, complete and validated.

    Built from keywords, each section a mapping: `JobSpec(name="digits", data={"source": "digits"})`; from TOML by
    `shardsgd.spec_files.read_spec`.

    Raises:
        SpecError: lists every wrong field at once.
    """

    name: str = Field(
        "job",
        pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$",
        description="letters, digits and . _ - ; names the output folder",
    )
    seed: int = Field(0, ge=0, lt=2**63, description="of every random choice")
    workers: Workers = Workers()
    data: Data
    model: Model = Model()
    objective: Objective = Objective()
    optimizer: Optimizer = Optimizer()
    schedule: Schedule = Schedule()
    batch: Batch = Batch()
    stop: Stop = Stop()
    checkpoint: Checkpoint = Checkpoint()

    def __init__(self, *, spec_source: str = "job spec", **fields: Any) -> None:
        try:
            super().__init__(**fields)
        except ValidationError as error:
            problems = field_problems(type(self), fields, error)
        else:
            problems = cross_problems(self)
        if problems:
            raise SpecError(spec_source, tuple(problems)) from None

    def resolved(self) -> JobSpec:
        """The spec as it will run: absolute paths, V ≤ B (V lowered to a power of two), and at least one stop rule."""
        changes: dict[str, Any] = {}
        if looks_like_path(self.data.source):
            source = str(Path(self.data.source).expanduser().resolve())
            changes["data"] = self.data.model_copy(update={"source": source})
        if self.batch.shards > self.batch.size:
            shards = 1 << (self.batch.size.bit_length() - 1)
            changes["batch"] = self.batch.model_copy(update={"shards": shards})
        if not self.stop.model_dump(exclude_none=True):
            changes["stop"] = Stop(epochs=30)
        return self.model_copy(update=changes)


def looks_like_path(source: str) -> bool:
    """Whether `data.source` means a file or folder and not a bundled or synthetic set."""
    return "/" in source or source.lower().endswith(_FILE_SUFFIXES) or "-ubyte" in source
