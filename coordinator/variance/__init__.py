"""The measurement of a gradient's variance against the batch size, at parameters that do not change."""
