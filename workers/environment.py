"""Environment of a process that computes leaves; jax reads it when it is imported."""

from collections.abc import Mapping

# One XLA thread a worker is what makes its sums the same everywhere: with more, one compiled program over the same buffers may
# give different bits (jax-ml/jax#39741). PJRT reads its own name first. Without JAX_PLATFORMS a jax with CUDA takes a GPU.
WORKER_ENVIRONMENT: Mapping[str, str] = {"NPROC": "1", "PJRT_NPROC": "1", "JAX_PLATFORMS": "cpu"}
