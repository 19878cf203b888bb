"""``python -m sa_layers.convert``: round trips, accepted layouts and rejected files."""

from __future__ import annotations

import os
import shutil
import sys
from argparse import Namespace
from collections.abc import Callable
from pathlib import Path
from subprocess import CompletedProcess
from typing import Any

import pytest
import torch

from sa_layers.convert.__main__ import main
from sa_layers.models import SelfAttentionClassifier, SelfAttentionNetwork

RunPython = Callable[..., CompletedProcess[str]]
Save = Callable[..., dict[str, torch.Tensor]]


@pytest.fixture(scope="module")
def san10(tmp_path_factory: pytest.TempPathFactory, save_official: Save) -> Path:
    """A checkpoint of SAN10 pairwise. Tests must not change it."""
    path = tmp_path_factory.mktemp("san10") / "official.pth"
    save_official(path, 10, "pairwise")
    return path


@pytest.fixture
def source(san10: Path, tmp_path: Path) -> Path:
    """A copy of the checkpoint, which tests may damage."""
    return Path(shutil.copy(san10, tmp_path))


@pytest.mark.parametrize(("depth", "attention"), [(10, "pairwise"), (15, "patchwise")])
def test_round_trip(
    depth: int,
    attention: str,
    tmp_path: Path,
    save_official: Save,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Conversion to our format and back returns bitwise equal tensors in the same order."""
    state = save_official(tmp_path / "official.pth", depth, attention)
    monkeypatch.chdir(tmp_path)
    assert main(["official.pth", "ours.pth"]) == 0
    assert capsys.readouterr().out.splitlines()[-2:] == [
        f"wrote ours.pth: SAN{depth} {attention}, 10 classes.",
        f"backbone=dict(type='sa_layers.SAN', depth={depth}, attention='{attention}')",
    ]
    ours = torch.load(tmp_path / "ours.pth", weights_only=True)
    assert ours["meta"]["backbone"] == {"type": "sa_layers.SAN", "depth": depth, "attention": attention}
    assert ours["meta"]["num_classes"] == 10
    backbone = {
        name.removeprefix("backbone."): values
        for name, values in ours["state_dict"].items()
        if name.startswith("backbone.")
    }
    SelfAttentionNetwork(depth, attention).load_state_dict(backbone)
    assert sorted(set(ours["state_dict"]) - {f"backbone.{name}" for name in backbone}) == [
        "head.fc.bias",
        "head.fc.weight",
    ]

    assert main(["ours.pth", "back.pth", "--to-official"]) == 0
    back = torch.load(tmp_path / "back.pth", weights_only=True)["state_dict"]
    assert list(back) == list(state)
    for name, values in state.items():
        assert back[name].dtype == values.dtype
        assert torch.equal(back[name], values), name


@pytest.mark.parametrize("wrapper", ["module.", ""])
@pytest.mark.parametrize("bare", [False, True])
def test_layouts(wrapper: str, bare: bool, tmp_path: Path, official_state: Save) -> None:
    """With and without 'module.', as a checkpoint or a bare state dict, with and without num_batches_tracked."""
    state = official_state(10, "patchwise", wrapper=wrapper)
    if bare:
        state = {name: values for name, values in state.items() if not name.endswith("num_batches_tracked")}
    torch.save(state if bare else {"state_dict": state}, tmp_path / "official.pth")
    assert main([str(tmp_path / "official.pth"), str(tmp_path / "ours.pth")]) == 0
    converted = torch.load(tmp_path / "ours.pth", weights_only=True)["state_dict"]
    assert all(torch.equal(mine, theirs) for mine, theirs in zip(converted.values(), state.values(), strict=True))


def edited(change: Callable[[dict[str, Any]], Any]) -> Callable[[Path], None]:
    """Return a function that changes the state dict of a checkpoint file."""

    def write(path: Path) -> None:
        checkpoint = torch.load(path, weights_only=True)
        change(checkpoint["state_dict"])
        torch.save(checkpoint, path)

    return write


def replaced(checkpoint: Any) -> Callable[[Path], None]:
    """Return a function that replaces the content of a checkpoint file."""
    return lambda path: torch.save(checkpoint, path)


BROKEN: dict[str, tuple[Callable[[Path], Any], str]] = {
    "truncated": (lambda path: os.truncate(path, path.stat().st_size // 2), "is not an intact checkpoint"),
    "empty": (lambda path: path.write_bytes(b""), "is not an intact checkpoint"),
    "text": (lambda path: path.write_text("<html>quota exceeded</html>"), "is not an intact checkpoint"),
    "absent": (lambda path: path.unlink(), "cannot read"),
    "code": (replaced({"state_dict": {}, "model": torch.nn.ReLU()}), "such as torch.nn.modules.activation.ReLU, and"),
    "number": (replaced(3), "contains no state dict"),
    "no tensors": (replaced({"state_dict": {"conv_in.weight": "1"}}), "contains no state dict"),
    "a ResNet": (
        replaced({"conv1.weight": torch.ones(64, 3, 7, 7), "layer1.0.conv1.weight": torch.ones(64, 64, 1, 1)}),
        "it has no tensor of one: its tensors are conv1.weight, layer1.0.conv1.weight",
    ),
    "two networks": (
        replaced({f"{prefix}.stem.0.weight": torch.ones(64, 3, 1, 1) for prefix in ("student", "teacher")}),
        "it has one under each of the prefixes 'student.', 'teacher.'",
    ),
    "stage missing": (
        edited(lambda state: [state.pop(name) for name in list(state) if ".layer3." in name]),
        "these stages have none: 3",
    ),
    "head missing": (edited(lambda state: state.pop("module.fc.weight")), "fc.weight, the weight of the head"),
    "tensors missing": (
        edited(lambda state: [state.pop(f"module.layer3.{block}.sam.conv1.bias") for block in range(4)]),
        "4 tensor(s) are missing: layer3.0.sam.conv1.bias, layer3.1.sam.conv1.bias, layer3.2.sam.conv1.bias, ...",
    ),
    "unexpected": (
        edited(lambda state: state.update({"module.layer3.0.conv.running_mean": torch.ones(1)})),
        "1 tensor(s) are unexpected: layer3.0.conv.running_mean",
    ),
    "partly wrapped": (
        edited(lambda state: state.update({"fc.bias": state.pop("module.fc.bias")})),
        "1 tensor(s) are missing: fc.bias",
    ),
    "wrong shape": (
        edited(lambda state: state.update({"module.conv2.weight": torch.ones(512, 128, 1, 1)})),
        "1 tensor(s) have the wrong shape: conv2.weight is (512, 128, 1, 1), not (512, 256, 1, 1)",
    ),
}


@pytest.mark.parametrize("kind", BROKEN)
def test_broken_sources(kind: str, source: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """One line with the file and the reason, exit status 1, and an unchanged destination."""
    damage, message = BROKEN[kind]
    damage(source)
    destination = source.with_name("ours.pth")
    destination.write_text("precious")
    before = sorted(source.parent.iterdir())
    assert main([str(source), str(destination)]) == 1
    output = capsys.readouterr()
    assert output.out == ""
    assert len(output.err.splitlines()) == 1
    assert output.err.startswith("error: ")
    assert message in output.err
    assert str(source) in output.err
    assert destination.read_text() == "precious"
    assert sorted(source.parent.iterdir()) == before


def test_broken_in_a_process(source: Path, run_python: RunPython) -> None:
    """The exit status of the process."""
    os.truncate(source, 100_000)
    process = run_python(None, "-m", "sa_layers.convert", source, "ours.pth", check=False)
    assert process.returncode == 1
    assert "error: " in process.stdout
    assert "Traceback" not in process.stdout
    assert [path.name for path in source.parent.iterdir()] == ["official.pth"]


def saved_by_classifier(path: Path, state: dict[str, torch.Tensor]) -> None:
    """Write the state dict of a SelfAttentionClassifier."""
    classifier = SelfAttentionClassifier(10, "pairwise", num_classes=10)
    classifier.load_state_dict(state)
    torch.save(classifier.state_dict(), path)


def saved_by_network(path: Path, state: dict[str, torch.Tensor]) -> None:
    """Write the state dict of a network without a head."""
    network = SelfAttentionNetwork(10, "pairwise")
    network.load_state_dict(state, strict=False)
    torch.save({"model": network.state_dict()}, path)


def saved_by_timm(path: Path, state: dict[str, torch.Tensor]) -> None:
    """Write what timm's train.py writes: the moving average beside the model, and the options."""
    classifier = SelfAttentionClassifier(10, "pairwise", num_classes=10)
    random = classifier.state_dict()
    classifier = SelfAttentionClassifier(10, "pairwise", num_classes=10)
    classifier.load_state_dict(state)
    average = {f"module.{name}": values for name, values in classifier.state_dict().items()}
    torch.save({"state_dict": random, "state_dict_ema": average, "args": Namespace(lr=0.1)}, path)


@pytest.mark.parametrize("save", [saved_by_classifier, saved_by_network, saved_by_timm])
def test_layouts_of_other_programs(save: Callable[..., None], source: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The files of our classes and of timm become the same checkpoint as the official file, but for the dtype."""
    expected, ours = source.with_name("expected.pth"), source.with_name("ours.pth")
    save(source.with_name("other.pth"), torch.load(source, weights_only=True)["state_dict"])
    assert main([str(source), str(expected)]) == main([str(source.with_name("other.pth")), str(ours)]) == 0
    state = torch.load(expected, weights_only=True)["state_dict"]
    converted = torch.load(ours, weights_only=True)
    has_head = save is not saved_by_network
    assert converted["meta"]["num_classes"] == 10 * has_head
    assert converted["state_dict"].keys() == {name for name in state if has_head or not name.startswith("head.")}
    assert all(torch.equal(values, state[name].to(values.dtype)) for name, values in converted["state_dict"].items())
    assert main(["--to-official", str(ours), str(source.with_name("back.pth"))]) == (0 if has_head else 1)
    assert has_head or "head.fc.weight, the weight of the head, is missing" in capsys.readouterr().err


def test_safetensors(source: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """By the ending of the destination; by the content of the source."""
    load_file = pytest.importorskip("safetensors.torch").load_file
    written, back = source.with_name("ours.safetensors"), source.with_name("back.pth")
    assert main([str(source), str(written)]) == main(["--to-official", str(written), str(back)]) == 0
    state = torch.load(source, weights_only=True)["state_dict"]
    assert len(load_file(written)) == len(state)
    again = torch.load(back, weights_only=True)["state_dict"]
    assert all(torch.equal(values, again[name]) for name, values in state.items())
    monkeypatch.setitem(sys.modules, "safetensors", None)
    monkeypatch.setattr("sa_layers.convert.files.find_spec", lambda name: None)
    for arguments in ((written, back), (source, written)):
        assert main([str(path) for path in arguments]) == 1
        assert "safetensors is not installed: pip install 'sa-layers[safetensors]'" in capsys.readouterr().err


def test_trust(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A whole model is read only if it is trusted."""
    torch.save(SelfAttentionClassifier(10, "patchwise", num_classes=7), tmp_path / "whole.pth")
    arguments = [str(tmp_path / "whole.pth"), str(tmp_path / "ours.pth")]
    assert main(arguments) == 1
    assert "use --trust" in capsys.readouterr().err
    assert main(["--trust", *arguments]) == 0
    assert "SAN10 patchwise, 7 classes" in capsys.readouterr().out


def test_converted_twice(source: Path) -> None:
    """A checkpoint that already has the layout keeps its tensors."""
    for destination, options in {"ours.pth": [], "again.pth": [], "official2.pth": ["--to-official"]}.items():
        assert main([*options, str(source), str(source.with_name(destination))]) == 0
        source = source.with_name(destination)
    first = torch.load(source.with_name("ours.pth"), weights_only=True)
    assert list(first["state_dict"]) == list(torch.load(source.with_name("again.pth"), weights_only=True)["state_dict"])


def test_destinations(source: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The source itself, links to it, a folder, a missing parent folder, and a file as parent folder."""
    content = source.read_bytes()
    (source.parent / "link.pth").symlink_to(source)
    (source.parent / "hard.pth").hardlink_to(source)
    for name, message in {
        "official.pth": "is the source",
        "link.pth": "is the source",
        "hard.pth": "is the source",
        ".": "it is a folder",
        "nowhere/ours.pth": "nowhere is not a folder",
        "official.pth/ours.pth": "official.pth is not a folder",
    }.items():
        before = sorted(source.parent.iterdir())
        assert main([str(source), str(source.parent / name)]) == 1
        error = capsys.readouterr().err
        assert message in error
        assert len(error.splitlines()) == 1
        assert sorted(source.parent.iterdir()) == before
    assert source.read_bytes() == content


@pytest.mark.skipif(sys.platform == "win32", reason="limits the size of files by resource")
def test_full_disk(source: Path, run_python: RunPython) -> None:
    """A partly written file is deleted."""
    code = (
        "import resource, sys; resource.setrlimit(resource.RLIMIT_FSIZE, (1_000_000, 1_000_000));"
        "from sa_layers.convert.__main__ import main; sys.exit(main(sys.argv[1:]))"
    )
    process = run_python(code, source, "ours.pth", check=False)
    assert process.returncode == 1
    assert "error: cannot write ours.pth: " in process.stdout
    assert [path.name for path in source.parent.iterdir()] == ["official.pth"]
