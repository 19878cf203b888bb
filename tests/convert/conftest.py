"""Random checkpoints in the layout of the official code."""

from tests.checkpoints.official import official, official_state, save_official

__all__ = ["official", "official_state", "save_official"]
