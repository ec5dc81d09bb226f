"""What can go wrong with a rig."""

from __future__ import annotations


class RigError(Exception):
    """A rig could not be built, or one of its nodes could not do what it was told."""


class RigUnavailableError(RigError):
    """This machine or this user cannot have a rig at all."""
