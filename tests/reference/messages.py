"""How a test asks for an error message."""

from __future__ import annotations

import re


def exactly(message: str) -> str:
    """Return the pattern that this message matches, and no longer one."""
    return f"^{re.escape(message)}$"
