"""The check of commit subjects, as a hook and in CI."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest


@pytest.mark.parametrize(("length", "code"), [(72, 0), (73, 1)])
def test_length(length: int, code: int, repository: Path, tmp_path: Path) -> None:
    tool = [sys.executable, "-I", "-S", repository / "tools" / "check_subjects.py"]
    (tmp_path / "message").write_text(f"{'x' * length}\n\n{'A long line of the body. ' * 9}\n")
    done = subprocess.run([*tool, tmp_path / "message"], capture_output=True, text=True)
    assert done.returncode == code, done.stderr

    git = ["git", "-c", "user.name=n", "-c", "user.email=e", "-C", tmp_path]
    subprocess.run([*git, "init", "--quiet"], check=True)
    for subject in ("x" * 99, "x" * length):
        subprocess.run([*git, "commit", "--quiet", "--allow-empty", "--message", subject], check=True)
    done = subprocess.run([*tool, "--since", "HEAD~1"], capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == code, done.stderr
    assert done.stderr.count("characters") == code
