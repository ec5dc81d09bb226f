"""What users would pick instead of shardsgd, and shardsgd, measured in one alternating run: `python -m benchmarks`."""
