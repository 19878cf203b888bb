"""Errors that a command reports in one sentence."""

from __future__ import annotations


class ReportedError(Exception):
    """Base of the errors that a command reports as ``error: <message>.``, without a traceback.

    The message names what cannot be used and the reason. It has no full stop.

    Attributes:
        exit_status: Exit status of the command. Defaults to 1; 2 is for arguments that are not allowed.
    """

    exit_status = 1
