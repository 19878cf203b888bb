"""Trains, tests and pictures a SAN10 segmenter on the shapes data set, with mmseg's own tools; run by `make demo`.

An interrupted training continues from its last checkpoint; a finished one starts anew.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import mmseg
from side_by_side import write_pictures

from sa_layers.command_line import INTERRUPTED, command
from sa_layers.datasets import LABELS, PALETTE, make_shapes
from sa_layers.errors import ReportedError

ROOT = Path(__file__).parent.parent
CONFIG = ROOT / "mm_configs" / "segmentation" / "san10-patchwise_fpn_1xb8-1k_shapes-64x64.py"
CONFIG_PARTS = (CONFIG, *sorted((ROOT / "mm_configs" / "_base_").rglob("*.py")))
DATA = ROOT / "data" / "shapes"
WORK = ROOT / "work_dirs" / "demo"
TOOLS = Path(mmseg.__file__).parent / ".mim" / "tools"
EXPECTED_MIOU = 0.60  # over the three classes and the background
PICTURES = 24


@command("segmentation")
def main() -> int:
    """Data, training, test, pictures, and the closing line."""
    start = time.monotonic()
    data = make_shapes(DATA, train=1500, val=100, verbose=True)
    WORK.mkdir(parents=True, exist_ok=True)
    checkpoint = train()
    miou = test(checkpoint)
    images = sorted((data.path / "images" / "val").iterdir())[:PICTURES]
    pictures = WORK / "pictures"
    write_pictures(pictures, images, data.path / "label_maps" / "val", WORK / "predictions", LABELS, PALETTE)
    minutes = (time.monotonic() - start) / 60
    print(
        f"demo: validation mIoU {miou:.3f} after {minutes:.1f} minutes; "
        f"pictures in {pictures.relative_to(ROOT)}, overview.png first"
    )
    if miou < EXPECTED_MIOU:
        raise ReportedError(f"that is less than the {EXPECTED_MIOU:.2f} it should reach; please report it")
    return 0


def train() -> Path:
    """Trains with mmseg's tools/train.py and returns the last checkpoint."""
    settings = hashlib.sha256(b"".join(path.read_bytes() for path in CONFIG_PARTS)).hexdigest()
    unfinished = WORK / "unfinished"  # there from the start of a training to its end
    if unfinished.exists() and unfinished.read_text() == settings and (checkpoint := last_checkpoint()):
        print(f"demo: going on from {checkpoint.relative_to(ROOT)}, where the last run was interrupted")
        options = ["--resume", "--cfg-options", f"load_from={checkpoint}"]
    else:
        shutil.rmtree(WORK)
        WORK.mkdir()
        options = []
    unfinished.write_text(settings)
    run("train.py", [str(CONFIG), "--work-dir", str(WORK / "training"), *options])
    unfinished.unlink()
    trained = last_checkpoint()
    assert trained is not None, "mmseg's tools/train.py ended well but left no checkpoint"
    return trained


def test(checkpoint: Path) -> float:
    """Tests with mmseg's tools/test.py, which also writes the predictions, and returns the mIoU."""
    shutil.rmtree(WORK / "test", ignore_errors=True)
    run(
        "test.py",
        [str(CONFIG), str(checkpoint), "--work-dir", str(WORK / "test"), "--out", str(WORK / "predictions")],
    )
    (scores,) = (WORK / "test").glob("*/*.json")
    return json.loads(scores.read_text())["mIoU"] / 100


def last_checkpoint() -> Path | None:
    """The newest checkpoint that is whole: the one being written when the process died is not."""
    from sa_layers.checkpoints import CheckpointError, read_state_dict

    paths = (WORK / "training").glob("iter_*.pth")
    for path in sorted(paths, key=lambda path: int(path.stem.removeprefix("iter_")), reverse=True):
        try:
            read_state_dict(path)
        except CheckpointError:
            continue
        return path
    return None


def run(tool: str, arguments: Sequence[str]) -> None:
    """Runs one of mmseg's tools: its progress to the terminal, all it prints to a log file."""
    log = WORK / f"{Path(tool).stem}.log"
    command = [sys.executable, str(TOOLS / tool), *arguments]
    print(f"demo: mmseg's tools/{tool} is at work, in full in {log.relative_to(ROOT)}", flush=True)
    with (
        log.open("w") as file,
        subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as process,
    ):
        assert process.stdout is not None
        lines = []
        for line in process.stdout:
            file.write(line)
            lines.append(line)
            if "Iter(" in line:
                print(line.rstrip().split(" - ")[-1], flush=True)
    if process.returncode:
        print(*lines[-15:], sep="", file=sys.stderr)
        raise ReportedError(f"mmseg's tools/{tool} failed with exit code {process.returncode}; see {log}")


if __name__ == "__main__":
    status = main()
    if status == INTERRUPTED:
        print("`make demo` goes on from the last checkpoint", file=sys.stderr)
    sys.exit(status)
