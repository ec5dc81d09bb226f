"""The coordinator: data and shards, the plan, the step loop, checkpoints and what a run leaves behind."""
