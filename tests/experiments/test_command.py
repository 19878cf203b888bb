"""``python -m experiments run --quick``: all of it, and again after SIGKILL with the same ledger."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from experiments.__main__ import main
from experiments.ledger import Ledger
from tests.conftest import REPOSITORY, MakeOnce, clean_environment

NETWORK = "san10-pairwise"


def command(folder: Path, *options: str) -> list[str]:
    return [
        "run",
        "--quick",
        "--threads=1",
        f"--out={folder / 'work'}",
        f"--ledger={folder / 'runs.jsonl'}",
        *options,
    ]


def start(folder: Path, *options: str) -> subprocess.Popen[str]:
    arguments = [sys.executable, "-m", "experiments", *command(folder, *options)]
    return subprocess.Popen(
        arguments, cwd=REPOSITORY, env=clean_environment(OMP_NUM_THREADS="1"), text=True, stdout=subprocess.PIPE
    )


def results(folder: Path) -> list[dict[str, Any]]:
    """What is the same whenever and however a run is done, in an order of its own."""
    records = Ledger(folder / "runs.jsonl").read()
    return sorted(({k: v for k, v in each.items() if k != "measured"} for each in records), key=json.dumps)


@pytest.fixture(scope="module")
def uninterrupted(make_once: MakeOnce) -> Path:
    """The whole quick suite, in one process."""

    def make(folder: Path) -> None:
        assert main(command(folder, "--jobs=1")) == 0

    return make_once("quick", make)


@pytest.mark.slow
def test_quick(uninterrupted: Path, capsys: pytest.CaptureFixture[str]) -> None:
    records = Ledger(uninterrupted / "runs.jsonl").read()
    assert [record["purpose"] for record in records] == 3 * ["learning rate"] + 3 * ["result"]
    assert {record["measured"]["threads"] for record in records} == {1}
    assert len(list((uninterrupted / "work" / "weights").iterdir())) == 3
    assert list((uninterrupted / "work" / "runs").iterdir()) == []  # the states of finished runs
    before = (uninterrupted / "runs.jsonl").read_bytes()
    assert main(command(uninterrupted, "--jobs=1")) == 0
    assert "6 of 6 runs are in" in capsys.readouterr().out
    assert (uninterrupted / "runs.jsonl").read_bytes() == before


@pytest.mark.slow
def test_killed(uninterrupted: Path, tmp_path: Path) -> None:
    """Killed in an epoch while two processes work: they end too, and another start goes on to the same results."""
    process = start(tmp_path, f"--networks={NETWORK}", "--jobs=2")
    assert process.stdout is not None
    for line in process.stdout:
        if "seed 0: epoch 1 of 2" in line:
            break
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert list((tmp_path / "work" / "runs").glob("*/training.pt"))
    assert "result" not in {record["purpose"] for record in results(tmp_path)}
    again = start(tmp_path, f"--networks={NETWORK}", "--jobs=1")
    output, _ = again.communicate()
    assert again.returncode == 0
    assert "1 of 2 runs are in" in output
    assert "seed 0: epoch 1 of 2" not in output
    assert "seed 0: epoch 2 of 2" in output
    expected = [record for record in results(uninterrupted) if record["network"] == NETWORK]
    assert results(tmp_path) == expected


def test_budget(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Without time nothing is done, and the command says what is left."""
    assert main(command(tmp_path, "--jobs=1", "--minutes=0", f"--networks={NETWORK}")) == 0
    output = capsys.readouterr().out
    assert "left for the next time, 2 of 2: SAN10 pairwise, learning rate 0.01; " in output
    assert "SAN10 pairwise, seed 0" in output
    assert not (tmp_path / "runs.jsonl").exists()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--suite=two-core", "--data=nowhere"], "there is no folder nowhere"),
        (["--quick", "--networks", "san19-pairwise"], "the suite quick has none of the networks of --networks"),
        (["--quick", "--device=cuda:7"], "--device cuda:7 is not available"),
    ],
)
def test_wrong_arguments(options: list[str], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["run", f"--out={tmp_path}", f"--ledger={tmp_path / 'runs.jsonl'}", *options]) != 0
    assert message in capsys.readouterr().err


@pytest.mark.slow
def test_saved_weights(uninterrupted: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """They are attacked and looked at, once."""
    pytest.importorskip("pyautoattack")
    records = Ledger(uninterrupted / "runs.jsonl").read()
    ledger = Ledger(tmp_path / "runs.jsonl")
    for record in records:
        ledger.append(record)
    arguments = [f"--out={uninterrupted / 'work'}", f"--ledger={ledger.path}", f"--networks={NETWORK}", "--threads=1"]
    assert main(["attack", "--quick", *arguments]) == 0
    attacked = ledger.read()[-1]
    assert attacked["purpose"] == "autoattack"
    assert attacked["results"]["labels"] == "0123456789"
    assert attacked["results"]["clean"] == records[-2]["results"]["attack"]["clean"]
    assert [(row["attack"], row["epsilon"]) for row in attacked["results"]["attacks"]] == [
        ("apgd", 8),
        ("square", 8),
    ]
    assert main(["attention", "--quick", *arguments]) == 0
    looked_at = ledger.read()[-1]["results"]
    for time in ("before", "after"):
        assert [row["stage"] for row in looked_at[time]] == [f"network.stages.{index}" for index in range(5)]
        assert all(0.5 < row["entropy at edges"] <= 1 for row in looked_at[time])
        differences = [row["difference"] for row in looked_at[time]]
        assert all(0 < difference < 2 for difference in differences[:4])
        assert differences[4] == 0  # a map of one pixel
    assert looked_at["before"] != looked_at["after"]
    length = len(ledger.read())
    capsys.readouterr()
    for command_name in ("attack", "attention"):
        assert main([command_name, "--quick", *arguments]) == 0
        assert f"in {ledger.path} already" in capsys.readouterr().out
    assert len(ledger.read()) == length == len(records) + 2
    arguments[0] = f"--out={tmp_path}"
    assert main(["attack", "--quick", f"--data={uninterrupted / 'work' / 'drawn'}", *arguments]) != 0
    assert "has no weights of a finished run on these images" in capsys.readouterr().err
