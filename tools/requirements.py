"""Prints the requirements of optional dependency groups: they can be installed without building the package again."""

import re
import sys
from pathlib import Path

# Read as text: Python 3.10 has no tomllib.
TEXT = (Path(__file__).parent.parent / "pyproject.toml").read_text()


def requirements(group: str) -> list[str]:
    """The requirements of a group and of the groups of our own that it names."""
    match = re.search(rf"^{re.escape(group)} = \[(.*?)\](?:\s*#.*)?$", TEXT, flags=re.MULTILINE | re.DOTALL)
    if match is None:
        raise SystemExit(f"pyproject.toml has no optional dependency group {group!r}")
    found: list[str] = []
    for requirement in re.findall(r'"([^"]+)"', match.group(1)):
        own = re.fullmatch(r"sa-layers\[(.+)\]", requirement)
        found += [item for name in own.group(1).split(",") for item in requirements(name)] if own else [requirement]
    return found


if __name__ == "__main__":
    print(*dict.fromkeys(item for group in sys.argv[1:] for item in requirements(group)), sep="\n")
