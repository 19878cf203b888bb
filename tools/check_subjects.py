"""Checks that commit subjects have at most 72 characters: of one message, or of all commits since a revision."""

from __future__ import annotations

import argparse
import subprocess
import sys
from pathlib import Path

LONGEST = 72


def main() -> int:
    """Print the subjects that are too long; the result is the exit status."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("message", nargs="?", type=Path, help="file of a commit message, as in the commit-msg hook")
    parser.add_argument("--since", metavar="REVISION", help="check the commits of HEAD that REVISION does not have")
    arguments = parser.parse_args()
    if (arguments.message is None) == (arguments.since is None):
        parser.error("give either a message or --since")
    try:
        if arguments.message:
            subjects = arguments.message.read_text().splitlines()[:1]
        else:
            command = ["git", "log", "--no-merges", "--format=%s", f"{arguments.since}..HEAD"]
            subjects = subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()
    except (OSError, UnicodeDecodeError) as error:
        parser.error(str(error))
    except subprocess.CalledProcessError as error:
        parser.error(error.stderr.strip().partition("\n")[0])
    too_long = [subject for subject in subjects if len(subject) > LONGEST]
    for subject in too_long:
        print(f"{len(subject)} characters, at most {LONGEST} are allowed: {subject}", file=sys.stderr)
    return bool(too_long)


if __name__ == "__main__":
    sys.exit(main())
