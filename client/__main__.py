"""`python -m shardsgd`."""

from shardsgd.cli import main

main()
