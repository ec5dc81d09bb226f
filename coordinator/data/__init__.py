"""Data: reads every accepted source into a `Table`, and prepares a table into the `Dataset` that training uses."""

from shardsgd.coordinator.data.dataset import Dataset, Table
from shardsgd.coordinator.data.load import load_dataset
from shardsgd.coordinator.data.prepare import prepare
from shardsgd.coordinator.data.source import read_table

__all__ = ["Dataset", "Table", "load_dataset", "prepare", "read_table"]
