"""What the harness measures: a function a section, from `Options` to its result's records."""
