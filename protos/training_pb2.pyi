import datetime

from google.protobuf import duration_pb2 as _duration_pb2
from google.protobuf import timestamp_pb2 as _timestamp_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class Accelerator(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    ACCELERATOR_UNSPECIFIED: _ClassVar[Accelerator]
    ACCELERATOR_CPU: _ClassVar[Accelerator]

class Exchange(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    EXCHANGE_UNSPECIFIED: _ClassVar[Exchange]
    EXCHANGE_AUTO: _ClassVar[Exchange]
    EXCHANGE_SHARED_MEMORY: _ClassVar[Exchange]
    EXCHANGE_RAY: _ClassVar[Exchange]

class ModelKind(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    MODEL_KIND_UNSPECIFIED: _ClassVar[ModelKind]
    MODEL_KIND_LINEAR: _ClassVar[ModelKind]
    MODEL_KIND_MLP: _ClassVar[ModelKind]

class Activation(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    ACTIVATION_UNSPECIFIED: _ClassVar[Activation]
    ACTIVATION_SIGMOID: _ClassVar[Activation]
    ACTIVATION_TANH: _ClassVar[Activation]
    ACTIVATION_RELU: _ClassVar[Activation]
    ACTIVATION_LEAKY_RELU: _ClassVar[Activation]
    ACTIVATION_GELU: _ClassVar[Activation]

class Loss(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    LOSS_UNSPECIFIED: _ClassVar[Loss]
    LOSS_SQUARED_ERROR: _ClassVar[Loss]
    LOSS_LOGISTIC: _ClassVar[Loss]
    LOSS_SOFTMAX_CROSS_ENTROPY: _ClassVar[Loss]

class OptimizerKind(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    OPTIMIZER_KIND_UNSPECIFIED: _ClassVar[OptimizerKind]
    OPTIMIZER_KIND_SGD: _ClassVar[OptimizerKind]
    OPTIMIZER_KIND_MOMENTUM: _ClassVar[OptimizerKind]

class ScheduleKind(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    SCHEDULE_KIND_UNSPECIFIED: _ClassVar[ScheduleKind]
    SCHEDULE_KIND_CONSTANT: _ClassVar[ScheduleKind]
    SCHEDULE_KIND_POLYNOMIAL: _ClassVar[ScheduleKind]
    SCHEDULE_KIND_STEP: _ClassVar[ScheduleKind]
    SCHEDULE_KIND_EXPONENTIAL: _ClassVar[ScheduleKind]

class Sampling(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    SAMPLING_UNSPECIFIED: _ClassVar[Sampling]
    SAMPLING_SHUFFLE: _ClassVar[Sampling]
    SAMPLING_REPLACEMENT: _ClassVar[Sampling]

class Precision(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    PRECISION_UNSPECIFIED: _ClassVar[Precision]
    PRECISION_FLOAT32: _ClassVar[Precision]
    PRECISION_FLOAT64: _ClassVar[Precision]
    PRECISION_BFLOAT16: _ClassVar[Precision]

class JobState(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    JOB_STATE_UNSPECIFIED: _ClassVar[JobState]
    JOB_STATE_QUEUED: _ClassVar[JobState]
    JOB_STATE_STARTING: _ClassVar[JobState]
    JOB_STATE_RUNNING: _ClassVar[JobState]
    JOB_STATE_PAUSED: _ClassVar[JobState]
    JOB_STATE_SUCCEEDED: _ClassVar[JobState]
    JOB_STATE_FAILED: _ClassVar[JobState]
    JOB_STATE_CANCELLED: _ClassVar[JobState]

class Intent(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    INTENT_UNSPECIFIED: _ClassVar[Intent]
    INTENT_RUN: _ClassVar[Intent]
    INTENT_PAUSE: _ClassVar[Intent]
    INTENT_CANCEL: _ClassVar[Intent]

class DatasetFormat(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    DATASET_FORMAT_UNSPECIFIED: _ClassVar[DatasetFormat]
    DATASET_FORMAT_NPZ: _ClassVar[DatasetFormat]
    DATASET_FORMAT_NPY: _ClassVar[DatasetFormat]
    DATASET_FORMAT_CSV: _ClassVar[DatasetFormat]
    DATASET_FORMAT_PARQUET: _ClassVar[DatasetFormat]
ACCELERATOR_UNSPECIFIED: Accelerator
ACCELERATOR_CPU: Accelerator
EXCHANGE_UNSPECIFIED: Exchange
EXCHANGE_AUTO: Exchange
EXCHANGE_SHARED_MEMORY: Exchange
EXCHANGE_RAY: Exchange
MODEL_KIND_UNSPECIFIED: ModelKind
MODEL_KIND_LINEAR: ModelKind
MODEL_KIND_MLP: ModelKind
ACTIVATION_UNSPECIFIED: Activation
ACTIVATION_SIGMOID: Activation
ACTIVATION_TANH: Activation
ACTIVATION_RELU: Activation
ACTIVATION_LEAKY_RELU: Activation
ACTIVATION_GELU: Activation
LOSS_UNSPECIFIED: Loss
LOSS_SQUARED_ERROR: Loss
LOSS_LOGISTIC: Loss
LOSS_SOFTMAX_CROSS_ENTROPY: Loss
OPTIMIZER_KIND_UNSPECIFIED: OptimizerKind
OPTIMIZER_KIND_SGD: OptimizerKind
OPTIMIZER_KIND_MOMENTUM: OptimizerKind
SCHEDULE_KIND_UNSPECIFIED: ScheduleKind
SCHEDULE_KIND_CONSTANT: ScheduleKind
SCHEDULE_KIND_POLYNOMIAL: ScheduleKind
SCHEDULE_KIND_STEP: ScheduleKind
SCHEDULE_KIND_EXPONENTIAL: ScheduleKind
SAMPLING_UNSPECIFIED: Sampling
SAMPLING_SHUFFLE: Sampling
SAMPLING_REPLACEMENT: Sampling
PRECISION_UNSPECIFIED: Precision
PRECISION_FLOAT32: Precision
PRECISION_FLOAT64: Precision
PRECISION_BFLOAT16: Precision
JOB_STATE_UNSPECIFIED: JobState
JOB_STATE_QUEUED: JobState
JOB_STATE_STARTING: JobState
JOB_STATE_RUNNING: JobState
JOB_STATE_PAUSED: JobState
JOB_STATE_SUCCEEDED: JobState
JOB_STATE_FAILED: JobState
JOB_STATE_CANCELLED: JobState
INTENT_UNSPECIFIED: Intent
INTENT_RUN: Intent
INTENT_PAUSE: Intent
INTENT_CANCEL: Intent
DATASET_FORMAT_UNSPECIFIED: DatasetFormat
DATASET_FORMAT_NPZ: DatasetFormat
DATASET_FORMAT_NPY: DatasetFormat
DATASET_FORMAT_CSV: DatasetFormat
DATASET_FORMAT_PARQUET: DatasetFormat

class JobSpec(_message.Message):
    __slots__ = ("name", "seed", "workers", "data", "model", "objective", "optimizer", "schedule", "batch", "stop", "checkpoint")
    NAME_FIELD_NUMBER: _ClassVar[int]
    SEED_FIELD_NUMBER: _ClassVar[int]
    WORKERS_FIELD_NUMBER: _ClassVar[int]
    DATA_FIELD_NUMBER: _ClassVar[int]
    MODEL_FIELD_NUMBER: _ClassVar[int]
    OBJECTIVE_FIELD_NUMBER: _ClassVar[int]
    OPTIMIZER_FIELD_NUMBER: _ClassVar[int]
    SCHEDULE_FIELD_NUMBER: _ClassVar[int]
    BATCH_FIELD_NUMBER: _ClassVar[int]
    STOP_FIELD_NUMBER: _ClassVar[int]
    CHECKPOINT_FIELD_NUMBER: _ClassVar[int]
    name: str
    seed: int
    workers: Workers
    data: Data
    model: Model
    objective: Objective
    optimizer: Optimizer
    schedule: Schedule
    batch: Batch
    stop: Stop
    checkpoint: Checkpoint
    def __init__(self, name: _Optional[str] = ..., seed: _Optional[int] = ..., workers: _Optional[_Union[Workers, _Mapping]] = ..., data: _Optional[_Union[Data, _Mapping]] = ..., model: _Optional[_Union[Model, _Mapping]] = ..., objective: _Optional[_Union[Objective, _Mapping]] = ..., optimizer: _Optional[_Union[Optimizer, _Mapping]] = ..., schedule: _Optional[_Union[Schedule, _Mapping]] = ..., batch: _Optional[_Union[Batch, _Mapping]] = ..., stop: _Optional[_Union[Stop, _Mapping]] = ..., checkpoint: _Optional[_Union[Checkpoint, _Mapping]] = ...) -> None: ...

class Workers(_message.Message):
    __slots__ = ("count", "min", "max", "wait_seconds", "hang_seconds", "max_losses", "verify", "accelerator", "exchange")
    COUNT_FIELD_NUMBER: _ClassVar[int]
    MIN_FIELD_NUMBER: _ClassVar[int]
    MAX_FIELD_NUMBER: _ClassVar[int]
    WAIT_SECONDS_FIELD_NUMBER: _ClassVar[int]
    HANG_SECONDS_FIELD_NUMBER: _ClassVar[int]
    MAX_LOSSES_FIELD_NUMBER: _ClassVar[int]
    VERIFY_FIELD_NUMBER: _ClassVar[int]
    ACCELERATOR_FIELD_NUMBER: _ClassVar[int]
    EXCHANGE_FIELD_NUMBER: _ClassVar[int]
    count: int
    min: int
    max: int
    wait_seconds: float
    hang_seconds: float
    max_losses: int
    verify: float
    accelerator: Accelerator
    exchange: Exchange
    def __init__(self, count: _Optional[int] = ..., min: _Optional[int] = ..., max: _Optional[int] = ..., wait_seconds: _Optional[float] = ..., hang_seconds: _Optional[float] = ..., max_losses: _Optional[int] = ..., verify: _Optional[float] = ..., accelerator: _Optional[_Union[Accelerator, str]] = ..., exchange: _Optional[_Union[Exchange, str]] = ...) -> None: ...

class Data(_message.Message):
    __slots__ = ("source", "label", "features", "validation", "standardize")
    SOURCE_FIELD_NUMBER: _ClassVar[int]
    LABEL_FIELD_NUMBER: _ClassVar[int]
    FEATURES_FIELD_NUMBER: _ClassVar[int]
    VALIDATION_FIELD_NUMBER: _ClassVar[int]
    STANDARDIZE_FIELD_NUMBER: _ClassVar[int]
    source: str
    label: str
    features: Names
    validation: float
    standardize: bool
    def __init__(self, source: _Optional[str] = ..., label: _Optional[str] = ..., features: _Optional[_Union[Names, _Mapping]] = ..., validation: _Optional[float] = ..., standardize: _Optional[bool] = ...) -> None: ...

class Names(_message.Message):
    __slots__ = ("items",)
    ITEMS_FIELD_NUMBER: _ClassVar[int]
    items: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, items: _Optional[_Iterable[str]] = ...) -> None: ...

class Sizes(_message.Message):
    __slots__ = ("items",)
    ITEMS_FIELD_NUMBER: _ClassVar[int]
    items: _containers.RepeatedScalarFieldContainer[int]
    def __init__(self, items: _Optional[_Iterable[int]] = ...) -> None: ...

class Model(_message.Message):
    __slots__ = ("kind", "hidden", "activation")
    KIND_FIELD_NUMBER: _ClassVar[int]
    HIDDEN_FIELD_NUMBER: _ClassVar[int]
    ACTIVATION_FIELD_NUMBER: _ClassVar[int]
    kind: ModelKind
    hidden: Sizes
    activation: Activation
    def __init__(self, kind: _Optional[_Union[ModelKind, str]] = ..., hidden: _Optional[_Union[Sizes, _Mapping]] = ..., activation: _Optional[_Union[Activation, str]] = ...) -> None: ...

class Objective(_message.Message):
    __slots__ = ("loss", "l1", "l2")
    LOSS_FIELD_NUMBER: _ClassVar[int]
    L1_FIELD_NUMBER: _ClassVar[int]
    L2_FIELD_NUMBER: _ClassVar[int]
    loss: Loss
    l1: float
    l2: float
    def __init__(self, loss: _Optional[_Union[Loss, str]] = ..., l1: _Optional[float] = ..., l2: _Optional[float] = ...) -> None: ...

class Optimizer(_message.Message):
    __slots__ = ("kind", "momentum", "learning_rate")
    KIND_FIELD_NUMBER: _ClassVar[int]
    MOMENTUM_FIELD_NUMBER: _ClassVar[int]
    LEARNING_RATE_FIELD_NUMBER: _ClassVar[int]
    kind: OptimizerKind
    momentum: float
    learning_rate: float
    def __init__(self, kind: _Optional[_Union[OptimizerKind, str]] = ..., momentum: _Optional[float] = ..., learning_rate: _Optional[float] = ...) -> None: ...

class Schedule(_message.Message):
    __slots__ = ("kind", "power", "factor", "every", "rate", "scale_invariant", "tuned_for")
    KIND_FIELD_NUMBER: _ClassVar[int]
    POWER_FIELD_NUMBER: _ClassVar[int]
    FACTOR_FIELD_NUMBER: _ClassVar[int]
    EVERY_FIELD_NUMBER: _ClassVar[int]
    RATE_FIELD_NUMBER: _ClassVar[int]
    SCALE_INVARIANT_FIELD_NUMBER: _ClassVar[int]
    TUNED_FOR_FIELD_NUMBER: _ClassVar[int]
    kind: ScheduleKind
    power: float
    factor: float
    every: int
    rate: float
    scale_invariant: bool
    tuned_for: int
    def __init__(self, kind: _Optional[_Union[ScheduleKind, str]] = ..., power: _Optional[float] = ..., factor: _Optional[float] = ..., every: _Optional[int] = ..., rate: _Optional[float] = ..., scale_invariant: _Optional[bool] = ..., tuned_for: _Optional[int] = ...) -> None: ...

class Batch(_message.Message):
    __slots__ = ("size", "shards", "sampling", "precision")
    SIZE_FIELD_NUMBER: _ClassVar[int]
    SHARDS_FIELD_NUMBER: _ClassVar[int]
    SAMPLING_FIELD_NUMBER: _ClassVar[int]
    PRECISION_FIELD_NUMBER: _ClassVar[int]
    size: int
    shards: int
    sampling: Sampling
    precision: Precision
    def __init__(self, size: _Optional[int] = ..., shards: _Optional[int] = ..., sampling: _Optional[_Union[Sampling, str]] = ..., precision: _Optional[_Union[Precision, str]] = ...) -> None: ...

class Stop(_message.Message):
    __slots__ = ("epochs", "steps", "seconds", "tolerance", "target_loss", "patience")
    EPOCHS_FIELD_NUMBER: _ClassVar[int]
    STEPS_FIELD_NUMBER: _ClassVar[int]
    SECONDS_FIELD_NUMBER: _ClassVar[int]
    TOLERANCE_FIELD_NUMBER: _ClassVar[int]
    TARGET_LOSS_FIELD_NUMBER: _ClassVar[int]
    PATIENCE_FIELD_NUMBER: _ClassVar[int]
    epochs: int
    steps: int
    seconds: float
    tolerance: float
    target_loss: float
    patience: int
    def __init__(self, epochs: _Optional[int] = ..., steps: _Optional[int] = ..., seconds: _Optional[float] = ..., tolerance: _Optional[float] = ..., target_loss: _Optional[float] = ..., patience: _Optional[int] = ...) -> None: ...

class Checkpoint(_message.Message):
    __slots__ = ("every_seconds", "keep")
    EVERY_SECONDS_FIELD_NUMBER: _ClassVar[int]
    KEEP_FIELD_NUMBER: _ClassVar[int]
    every_seconds: float
    keep: int
    def __init__(self, every_seconds: _Optional[float] = ..., keep: _Optional[int] = ...) -> None: ...

class Job(_message.Message):
    __slots__ = ("job_id", "spec", "state", "reason", "intent", "owner", "priority", "create_time", "start_time", "end_time", "last_sequence", "progress", "summary", "queue_position")
    JOB_ID_FIELD_NUMBER: _ClassVar[int]
    SPEC_FIELD_NUMBER: _ClassVar[int]
    STATE_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    INTENT_FIELD_NUMBER: _ClassVar[int]
    OWNER_FIELD_NUMBER: _ClassVar[int]
    PRIORITY_FIELD_NUMBER: _ClassVar[int]
    CREATE_TIME_FIELD_NUMBER: _ClassVar[int]
    START_TIME_FIELD_NUMBER: _ClassVar[int]
    END_TIME_FIELD_NUMBER: _ClassVar[int]
    LAST_SEQUENCE_FIELD_NUMBER: _ClassVar[int]
    PROGRESS_FIELD_NUMBER: _ClassVar[int]
    SUMMARY_FIELD_NUMBER: _ClassVar[int]
    QUEUE_POSITION_FIELD_NUMBER: _ClassVar[int]
    job_id: str
    spec: JobSpec
    state: JobState
    reason: str
    intent: Intent
    owner: str
    priority: int
    create_time: _timestamp_pb2.Timestamp
    start_time: _timestamp_pb2.Timestamp
    end_time: _timestamp_pb2.Timestamp
    last_sequence: int
    progress: Metrics
    summary: Summary
    queue_position: int
    def __init__(self, job_id: _Optional[str] = ..., spec: _Optional[_Union[JobSpec, _Mapping]] = ..., state: _Optional[_Union[JobState, str]] = ..., reason: _Optional[str] = ..., intent: _Optional[_Union[Intent, str]] = ..., owner: _Optional[str] = ..., priority: _Optional[int] = ..., create_time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., start_time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., end_time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., last_sequence: _Optional[int] = ..., progress: _Optional[_Union[Metrics, _Mapping]] = ..., summary: _Optional[_Union[Summary, _Mapping]] = ..., queue_position: _Optional[int] = ...) -> None: ...

class Metrics(_message.Message):
    __slots__ = ("step", "epoch", "loss", "learning_rate", "gradient_norm", "noise_trace", "noise_scale", "step_seconds", "samples_per_second", "fraction_done", "eta_seconds", "steps_left_out", "noise_norm_squared", "noise_scale_low", "noise_scale_high", "gain")
    STEP_FIELD_NUMBER: _ClassVar[int]
    EPOCH_FIELD_NUMBER: _ClassVar[int]
    LOSS_FIELD_NUMBER: _ClassVar[int]
    LEARNING_RATE_FIELD_NUMBER: _ClassVar[int]
    GRADIENT_NORM_FIELD_NUMBER: _ClassVar[int]
    NOISE_TRACE_FIELD_NUMBER: _ClassVar[int]
    NOISE_SCALE_FIELD_NUMBER: _ClassVar[int]
    STEP_SECONDS_FIELD_NUMBER: _ClassVar[int]
    SAMPLES_PER_SECOND_FIELD_NUMBER: _ClassVar[int]
    FRACTION_DONE_FIELD_NUMBER: _ClassVar[int]
    ETA_SECONDS_FIELD_NUMBER: _ClassVar[int]
    STEPS_LEFT_OUT_FIELD_NUMBER: _ClassVar[int]
    NOISE_NORM_SQUARED_FIELD_NUMBER: _ClassVar[int]
    NOISE_SCALE_LOW_FIELD_NUMBER: _ClassVar[int]
    NOISE_SCALE_HIGH_FIELD_NUMBER: _ClassVar[int]
    GAIN_FIELD_NUMBER: _ClassVar[int]
    step: int
    epoch: int
    loss: float
    learning_rate: float
    gradient_norm: float
    noise_trace: float
    noise_scale: float
    step_seconds: float
    samples_per_second: float
    fraction_done: float
    eta_seconds: float
    steps_left_out: int
    noise_norm_squared: float
    noise_scale_low: float
    noise_scale_high: float
    gain: float
    def __init__(self, step: _Optional[int] = ..., epoch: _Optional[int] = ..., loss: _Optional[float] = ..., learning_rate: _Optional[float] = ..., gradient_norm: _Optional[float] = ..., noise_trace: _Optional[float] = ..., noise_scale: _Optional[float] = ..., step_seconds: _Optional[float] = ..., samples_per_second: _Optional[float] = ..., fraction_done: _Optional[float] = ..., eta_seconds: _Optional[float] = ..., steps_left_out: _Optional[int] = ..., noise_norm_squared: _Optional[float] = ..., noise_scale_low: _Optional[float] = ..., noise_scale_high: _Optional[float] = ..., gain: _Optional[float] = ...) -> None: ...

class Validation(_message.Message):
    __slots__ = ("step", "epoch", "loss", "accuracy")
    STEP_FIELD_NUMBER: _ClassVar[int]
    EPOCH_FIELD_NUMBER: _ClassVar[int]
    LOSS_FIELD_NUMBER: _ClassVar[int]
    ACCURACY_FIELD_NUMBER: _ClassVar[int]
    step: int
    epoch: int
    loss: float
    accuracy: float
    def __init__(self, step: _Optional[int] = ..., epoch: _Optional[int] = ..., loss: _Optional[float] = ..., accuracy: _Optional[float] = ...) -> None: ...

class Incident(_message.Message):
    __slots__ = ("step", "kind", "worker", "reason", "leaves", "seconds")
    STEP_FIELD_NUMBER: _ClassVar[int]
    KIND_FIELD_NUMBER: _ClassVar[int]
    WORKER_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    LEAVES_FIELD_NUMBER: _ClassVar[int]
    SECONDS_FIELD_NUMBER: _ClassVar[int]
    step: int
    kind: str
    worker: int
    reason: str
    leaves: int
    seconds: float
    def __init__(self, step: _Optional[int] = ..., kind: _Optional[str] = ..., worker: _Optional[int] = ..., reason: _Optional[str] = ..., leaves: _Optional[int] = ..., seconds: _Optional[float] = ...) -> None: ...

class Summary(_message.Message):
    __slots__ = ("reason", "steps", "epochs", "train_loss", "validation_loss", "validation_accuracy", "parameters_sha256", "seconds", "samples_per_second", "workers", "recoveries", "noise_trace", "gradient_norm_squared", "noise_scale", "json", "noise_scale_low", "noise_scale_high")
    REASON_FIELD_NUMBER: _ClassVar[int]
    STEPS_FIELD_NUMBER: _ClassVar[int]
    EPOCHS_FIELD_NUMBER: _ClassVar[int]
    TRAIN_LOSS_FIELD_NUMBER: _ClassVar[int]
    VALIDATION_LOSS_FIELD_NUMBER: _ClassVar[int]
    VALIDATION_ACCURACY_FIELD_NUMBER: _ClassVar[int]
    PARAMETERS_SHA256_FIELD_NUMBER: _ClassVar[int]
    SECONDS_FIELD_NUMBER: _ClassVar[int]
    SAMPLES_PER_SECOND_FIELD_NUMBER: _ClassVar[int]
    WORKERS_FIELD_NUMBER: _ClassVar[int]
    RECOVERIES_FIELD_NUMBER: _ClassVar[int]
    NOISE_TRACE_FIELD_NUMBER: _ClassVar[int]
    GRADIENT_NORM_SQUARED_FIELD_NUMBER: _ClassVar[int]
    NOISE_SCALE_FIELD_NUMBER: _ClassVar[int]
    JSON_FIELD_NUMBER: _ClassVar[int]
    NOISE_SCALE_LOW_FIELD_NUMBER: _ClassVar[int]
    NOISE_SCALE_HIGH_FIELD_NUMBER: _ClassVar[int]
    reason: str
    steps: int
    epochs: float
    train_loss: float
    validation_loss: float
    validation_accuracy: float
    parameters_sha256: str
    seconds: float
    samples_per_second: float
    workers: int
    recoveries: int
    noise_trace: float
    gradient_norm_squared: float
    noise_scale: float
    json: str
    noise_scale_low: float
    noise_scale_high: float
    def __init__(self, reason: _Optional[str] = ..., steps: _Optional[int] = ..., epochs: _Optional[float] = ..., train_loss: _Optional[float] = ..., validation_loss: _Optional[float] = ..., validation_accuracy: _Optional[float] = ..., parameters_sha256: _Optional[str] = ..., seconds: _Optional[float] = ..., samples_per_second: _Optional[float] = ..., workers: _Optional[int] = ..., recoveries: _Optional[int] = ..., noise_trace: _Optional[float] = ..., gradient_norm_squared: _Optional[float] = ..., noise_scale: _Optional[float] = ..., json: _Optional[str] = ..., noise_scale_low: _Optional[float] = ..., noise_scale_high: _Optional[float] = ...) -> None: ...

class CreateJobRequest(_message.Message):
    __slots__ = ("spec", "request_id", "priority")
    SPEC_FIELD_NUMBER: _ClassVar[int]
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    PRIORITY_FIELD_NUMBER: _ClassVar[int]
    spec: JobSpec
    request_id: str
    priority: int
    def __init__(self, spec: _Optional[_Union[JobSpec, _Mapping]] = ..., request_id: _Optional[str] = ..., priority: _Optional[int] = ...) -> None: ...

class CreateJobResponse(_message.Message):
    __slots__ = ("job",)
    JOB_FIELD_NUMBER: _ClassVar[int]
    job: Job
    def __init__(self, job: _Optional[_Union[Job, _Mapping]] = ...) -> None: ...

class GetJobRequest(_message.Message):
    __slots__ = ("job_id",)
    JOB_ID_FIELD_NUMBER: _ClassVar[int]
    job_id: str
    def __init__(self, job_id: _Optional[str] = ...) -> None: ...

class GetJobResponse(_message.Message):
    __slots__ = ("job",)
    JOB_FIELD_NUMBER: _ClassVar[int]
    job: Job
    def __init__(self, job: _Optional[_Union[Job, _Mapping]] = ...) -> None: ...

class ListJobsRequest(_message.Message):
    __slots__ = ("page_size", "page_token", "states")
    PAGE_SIZE_FIELD_NUMBER: _ClassVar[int]
    PAGE_TOKEN_FIELD_NUMBER: _ClassVar[int]
    STATES_FIELD_NUMBER: _ClassVar[int]
    page_size: int
    page_token: str
    states: _containers.RepeatedScalarFieldContainer[JobState]
    def __init__(self, page_size: _Optional[int] = ..., page_token: _Optional[str] = ..., states: _Optional[_Iterable[_Union[JobState, str]]] = ...) -> None: ...

class ListJobsResponse(_message.Message):
    __slots__ = ("jobs", "next_page_token")
    JOBS_FIELD_NUMBER: _ClassVar[int]
    NEXT_PAGE_TOKEN_FIELD_NUMBER: _ClassVar[int]
    jobs: _containers.RepeatedCompositeFieldContainer[Job]
    next_page_token: str
    def __init__(self, jobs: _Optional[_Iterable[_Union[Job, _Mapping]]] = ..., next_page_token: _Optional[str] = ...) -> None: ...

class WatchJobRequest(_message.Message):
    __slots__ = ("job_id", "after_sequence")
    JOB_ID_FIELD_NUMBER: _ClassVar[int]
    AFTER_SEQUENCE_FIELD_NUMBER: _ClassVar[int]
    job_id: str
    after_sequence: int
    def __init__(self, job_id: _Optional[str] = ..., after_sequence: _Optional[int] = ...) -> None: ...

class WatchJobResponse(_message.Message):
    __slots__ = ("sequence", "time", "state_change", "metrics", "validation", "incident", "log_line", "thinned")
    SEQUENCE_FIELD_NUMBER: _ClassVar[int]
    TIME_FIELD_NUMBER: _ClassVar[int]
    STATE_CHANGE_FIELD_NUMBER: _ClassVar[int]
    METRICS_FIELD_NUMBER: _ClassVar[int]
    VALIDATION_FIELD_NUMBER: _ClassVar[int]
    INCIDENT_FIELD_NUMBER: _ClassVar[int]
    LOG_LINE_FIELD_NUMBER: _ClassVar[int]
    THINNED_FIELD_NUMBER: _ClassVar[int]
    sequence: int
    time: _timestamp_pb2.Timestamp
    state_change: StateChange
    metrics: Metrics
    validation: Validation
    incident: Incident
    log_line: LogLine
    thinned: Thinned
    def __init__(self, sequence: _Optional[int] = ..., time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., state_change: _Optional[_Union[StateChange, _Mapping]] = ..., metrics: _Optional[_Union[Metrics, _Mapping]] = ..., validation: _Optional[_Union[Validation, _Mapping]] = ..., incident: _Optional[_Union[Incident, _Mapping]] = ..., log_line: _Optional[_Union[LogLine, _Mapping]] = ..., thinned: _Optional[_Union[Thinned, _Mapping]] = ...) -> None: ...

class StateChange(_message.Message):
    __slots__ = ("state", "reason", "summary")
    STATE_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    SUMMARY_FIELD_NUMBER: _ClassVar[int]
    state: JobState
    reason: str
    summary: Summary
    def __init__(self, state: _Optional[_Union[JobState, str]] = ..., reason: _Optional[str] = ..., summary: _Optional[_Union[Summary, _Mapping]] = ...) -> None: ...

class LogLine(_message.Message):
    __slots__ = ("text",)
    TEXT_FIELD_NUMBER: _ClassVar[int]
    text: str
    def __init__(self, text: _Optional[str] = ...) -> None: ...

class Thinned(_message.Message):
    __slots__ = ("first_sequence", "count")
    FIRST_SEQUENCE_FIELD_NUMBER: _ClassVar[int]
    COUNT_FIELD_NUMBER: _ClassVar[int]
    first_sequence: int
    count: int
    def __init__(self, first_sequence: _Optional[int] = ..., count: _Optional[int] = ...) -> None: ...

class PauseJobRequest(_message.Message):
    __slots__ = ("job_id",)
    JOB_ID_FIELD_NUMBER: _ClassVar[int]
    job_id: str
    def __init__(self, job_id: _Optional[str] = ...) -> None: ...

class PauseJobResponse(_message.Message):
    __slots__ = ("job",)
    JOB_FIELD_NUMBER: _ClassVar[int]
    job: Job
    def __init__(self, job: _Optional[_Union[Job, _Mapping]] = ...) -> None: ...

class ResumeJobRequest(_message.Message):
    __slots__ = ("job_id",)
    JOB_ID_FIELD_NUMBER: _ClassVar[int]
    job_id: str
    def __init__(self, job_id: _Optional[str] = ...) -> None: ...

class ResumeJobResponse(_message.Message):
    __slots__ = ("job",)
    JOB_FIELD_NUMBER: _ClassVar[int]
    job: Job
    def __init__(self, job: _Optional[_Union[Job, _Mapping]] = ...) -> None: ...

class CancelJobRequest(_message.Message):
    __slots__ = ("job_id",)
    JOB_ID_FIELD_NUMBER: _ClassVar[int]
    job_id: str
    def __init__(self, job_id: _Optional[str] = ...) -> None: ...

class CancelJobResponse(_message.Message):
    __slots__ = ("job",)
    JOB_FIELD_NUMBER: _ClassVar[int]
    job: Job
    def __init__(self, job: _Optional[_Union[Job, _Mapping]] = ...) -> None: ...

class ScaleJobRequest(_message.Message):
    __slots__ = ("job_id", "workers")
    JOB_ID_FIELD_NUMBER: _ClassVar[int]
    WORKERS_FIELD_NUMBER: _ClassVar[int]
    job_id: str
    workers: int
    def __init__(self, job_id: _Optional[str] = ..., workers: _Optional[int] = ...) -> None: ...

class ScaleJobResponse(_message.Message):
    __slots__ = ("job",)
    JOB_FIELD_NUMBER: _ClassVar[int]
    job: Job
    def __init__(self, job: _Optional[_Union[Job, _Mapping]] = ...) -> None: ...

class DeleteJobRequest(_message.Message):
    __slots__ = ("job_id",)
    JOB_ID_FIELD_NUMBER: _ClassVar[int]
    job_id: str
    def __init__(self, job_id: _Optional[str] = ...) -> None: ...

class DeleteJobResponse(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class UploadDatasetRequest(_message.Message):
    __slots__ = ("header", "chunk")
    HEADER_FIELD_NUMBER: _ClassVar[int]
    CHUNK_FIELD_NUMBER: _ClassVar[int]
    header: DatasetHeader
    chunk: bytes
    def __init__(self, header: _Optional[_Union[DatasetHeader, _Mapping]] = ..., chunk: _Optional[bytes] = ...) -> None: ...

class DatasetHeader(_message.Message):
    __slots__ = ("sha256", "size_bytes", "format")
    SHA256_FIELD_NUMBER: _ClassVar[int]
    SIZE_BYTES_FIELD_NUMBER: _ClassVar[int]
    FORMAT_FIELD_NUMBER: _ClassVar[int]
    sha256: str
    size_bytes: int
    format: DatasetFormat
    def __init__(self, sha256: _Optional[str] = ..., size_bytes: _Optional[int] = ..., format: _Optional[_Union[DatasetFormat, str]] = ...) -> None: ...

class UploadDatasetResponse(_message.Message):
    __slots__ = ("source", "existed")
    SOURCE_FIELD_NUMBER: _ClassVar[int]
    EXISTED_FIELD_NUMBER: _ClassVar[int]
    source: str
    existed: bool
    def __init__(self, source: _Optional[str] = ..., existed: _Optional[bool] = ...) -> None: ...

class DownloadParametersRequest(_message.Message):
    __slots__ = ("job_id", "offset_bytes")
    JOB_ID_FIELD_NUMBER: _ClassVar[int]
    OFFSET_BYTES_FIELD_NUMBER: _ClassVar[int]
    job_id: str
    offset_bytes: int
    def __init__(self, job_id: _Optional[str] = ..., offset_bytes: _Optional[int] = ...) -> None: ...

class DownloadParametersResponse(_message.Message):
    __slots__ = ("header", "chunk")
    HEADER_FIELD_NUMBER: _ClassVar[int]
    CHUNK_FIELD_NUMBER: _ClassVar[int]
    header: ParametersHeader
    chunk: bytes
    def __init__(self, header: _Optional[_Union[ParametersHeader, _Mapping]] = ..., chunk: _Optional[bytes] = ...) -> None: ...

class ParametersHeader(_message.Message):
    __slots__ = ("size_bytes", "sha256", "parameters_sha256")
    SIZE_BYTES_FIELD_NUMBER: _ClassVar[int]
    SHA256_FIELD_NUMBER: _ClassVar[int]
    PARAMETERS_SHA256_FIELD_NUMBER: _ClassVar[int]
    size_bytes: int
    sha256: str
    parameters_sha256: str
    def __init__(self, size_bytes: _Optional[int] = ..., sha256: _Optional[str] = ..., parameters_sha256: _Optional[str] = ...) -> None: ...

class GetServerInfoRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class GetServerInfoResponse(_message.Message):
    __slots__ = ("version", "jaxlib_version", "workers_total", "workers_free", "jobs_queued", "jobs_running", "owner", "limits", "uptime")
    VERSION_FIELD_NUMBER: _ClassVar[int]
    JAXLIB_VERSION_FIELD_NUMBER: _ClassVar[int]
    WORKERS_TOTAL_FIELD_NUMBER: _ClassVar[int]
    WORKERS_FREE_FIELD_NUMBER: _ClassVar[int]
    JOBS_QUEUED_FIELD_NUMBER: _ClassVar[int]
    JOBS_RUNNING_FIELD_NUMBER: _ClassVar[int]
    OWNER_FIELD_NUMBER: _ClassVar[int]
    LIMITS_FIELD_NUMBER: _ClassVar[int]
    UPTIME_FIELD_NUMBER: _ClassVar[int]
    version: str
    jaxlib_version: str
    workers_total: int
    workers_free: int
    jobs_queued: int
    jobs_running: int
    owner: str
    limits: Limits
    uptime: _duration_pb2.Duration
    def __init__(self, version: _Optional[str] = ..., jaxlib_version: _Optional[str] = ..., workers_total: _Optional[int] = ..., workers_free: _Optional[int] = ..., jobs_queued: _Optional[int] = ..., jobs_running: _Optional[int] = ..., owner: _Optional[str] = ..., limits: _Optional[_Union[Limits, _Mapping]] = ..., uptime: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ...) -> None: ...

class Limits(_message.Message):
    __slots__ = ("open_jobs", "workers", "dataset_bytes", "upload_bytes")
    OPEN_JOBS_FIELD_NUMBER: _ClassVar[int]
    WORKERS_FIELD_NUMBER: _ClassVar[int]
    DATASET_BYTES_FIELD_NUMBER: _ClassVar[int]
    UPLOAD_BYTES_FIELD_NUMBER: _ClassVar[int]
    open_jobs: int
    workers: int
    dataset_bytes: int
    upload_bytes: int
    def __init__(self, open_jobs: _Optional[int] = ..., workers: _Optional[int] = ..., dataset_bytes: _Optional[int] = ..., upload_bytes: _Optional[int] = ...) -> None: ...
