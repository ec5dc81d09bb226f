"""The advice, validated by doing it."""
