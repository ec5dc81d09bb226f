"""A cluster of Ray nodes on one machine: each node in its own network namespace, joined by links whose bytes are counted."""
