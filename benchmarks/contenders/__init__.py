"""Processes that obey the harness: `python -m benchmarks.contenders.NAME FOLDER`, started by it alone."""
