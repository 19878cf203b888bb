"""Reproducibility, interruption, concurrency and protection of other files when a folder is generated."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

import sa_layers.datasets.shapes as shapes_module
from sa_layers.datasets import ShapesError, ShapesFolder, checks, make_shapes, verify
from sa_layers.datasets.shapes import (
    BrokenFolderError,
    ForeignFolderError,
    MissingPackageError,
    ShapesArgumentError,
    main,
)

REPOSITORY = Path(__file__).resolve().parents[2]
SMALL = {"train": 10, "val": 5, "size": 48, "seed": 7, "crop_size": 24}
Fingerprint = Callable[[Path], dict[str, str]]
Start = Callable[..., "subprocess.Popen[str]"]
SMALL_OPTIONS = [text for name, value in SMALL.items() for text in (f"--{name.replace('_', '-')}", str(value))]


@pytest.fixture
def small(tmp_path: Path) -> ShapesFolder:
    return make_shapes(tmp_path / "small", **SMALL)


def test_same_arguments_same_bytes_in_another_process(
    small: ShapesFolder, tmp_path: Path, start: Start, fingerprint: Fingerprint
) -> None:
    process = start(tmp_path / "again", *SMALL_OPTIONS)
    output, errors = process.communicate(timeout=60)
    assert process.returncode == 0, errors
    assert output.count("\n") == 1
    assert f"{tmp_path / 'again'} was generated: 10 training and 5 validation scenes of 48 px" in output
    assert fingerprint(small.path) == fingerprint(tmp_path / "again")


def test_another_seed_gives_other_scenes(small: ShapesFolder, tmp_path: Path, fingerprint: Fingerprint) -> None:
    other = make_shapes(tmp_path / "other", **{**SMALL, "seed": 8})
    first, second = fingerprint(small.path / "images"), fingerprint(other.path / "images")
    assert first.keys() == second.keys()
    assert not set(first.values()) & set(second.values())
    assert len(set(first.values())) == len(first)


def test_more_scenes_begin_with_the_same_ones(small: ShapesFolder, tmp_path: Path, fingerprint: Fingerprint) -> None:
    more = make_shapes(tmp_path / "more", **{**SMALL, "train": 12})
    few, many = fingerprint(small.path / "images"), fingerprint(more.path / "images")
    assert few.items() < many.items()


def test_complete_folder_is_left_as_it_is(
    small: ShapesFolder, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sa_layers.datasets.shapes._build", lambda *_: pytest.fail("nothing is to be made"))
    again = make_shapes(small, **SMALL)
    assert again == small
    assert again.already_there
    assert not small.already_there
    assert main([str(small.path), *SMALL_OPTIONS]) == 0
    assert f"{small.path} already exists" in capsys.readouterr().out


def lose_an_image(root: Path) -> None:
    (root / "images/train/000003.png").unlink()


def lose_a_folder(root: Path) -> None:
    shutil.rmtree(root / "classification/val/star")


def lose_the_manifest(root: Path) -> None:
    (root / "manifest.json").unlink()


def cut_an_image_short(root: Path) -> None:
    with (root / "label_maps/val/000001.png").open("r+b") as file:
        file.truncate(10)


def cut_the_manifest_short(root: Path) -> None:
    with (root / "manifest.json").open("r+b") as file:
        file.truncate(300)


def cut_the_annotations_short(root: Path) -> None:
    with (root / "coco/instances_train.json").open("r+b") as file:
        file.truncate(300)


def change_the_manifest(root: Path, **changes: object) -> None:
    path = root / "manifest.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def age_the_format(root: Path) -> None:
    change_the_manifest(root, format_version=0)


def confuse_the_manifest(root: Path) -> None:
    change_the_manifest(root, arguments=[1, 2])


DAMAGE = {
    lose_an_image: "images.train contains 9 files of .* but the manifest lists 10 files",
    lose_a_folder: "has no folder classification/val/star",
    lose_the_manifest: "has no manifest.json",
    cut_an_image_short: "label_maps.val contains 5 files of .* but the manifest lists 5 files of",
    cut_the_manifest_short: "manifest.json is damaged",
    cut_the_annotations_short: "coco contains 2 files of",
    age_the_format: "has format version 0, but this version is 1",
    confuse_the_manifest: "manifest.json is damaged",
}


@pytest.mark.parametrize("damage", DAMAGE, ids=lambda damage: damage.__name__)
def test_broken_folder_is_found_and_rebuilt(
    small: ShapesFolder,
    damage: Callable[[Path], None],
    fingerprint: Fingerprint,
    capsys: pytest.CaptureFixture[str],
) -> None:
    before = fingerprint(small.path)
    damage(small.path)
    with pytest.raises(BrokenFolderError, match=DAMAGE[damage]) as caught:
        verify(small.path)
    assert "\n" not in str(caught.value)
    assert main([str(small.path), *SMALL_OPTIONS]) == 0
    assert f"{caught.value}: regenerating the data set." in capsys.readouterr().err
    assert fingerprint(small.path) == before
    assert [path.name for path in small.path.parent.iterdir()] == ["small"]


def test_other_arguments_rebuild(small: ShapesFolder, capsys: pytest.CaptureFixture[str]) -> None:
    made = make_shapes(small, **{**SMALL, "val": 6, "seed": 9}, verbose=True)
    assert (
        "was generated with val 5 instead of 6, seed 7 instead of 9: regenerating the data set."
        in capsys.readouterr().err
    )
    assert verify(small) == made
    assert made.arguments.val == 6


def test_killed_run_leaves_nothing_that_looks_complete(tmp_path: Path, start: Start) -> None:
    out = tmp_path / "shapes"
    process = start(out, "--train", 100_000, "--size", 32)
    try:
        deadline = time.monotonic() + 30
        while not list(tmp_path.glob(".shapes.partial-*/images/train/00002*.png")):
            assert process.poll() is None, process.communicate()[1]
            assert time.monotonic() < deadline
            time.sleep(0.02)
        # A second run leaves the files of one that is still running alone.
        make_shapes(out, **SMALL)
        assert len(list(tmp_path.glob(".shapes.partial-*"))) == 1
        shutil.rmtree(out)
    finally:
        process.kill()
        process.communicate()
    assert not out.exists()
    assert list(tmp_path.glob(".shapes.partial-*")), "killed, it cannot have tidied up"
    assert verify(make_shapes(out, **SMALL)).arguments.train == SMALL["train"]
    if sys.platform != "win32":
        assert [path.name for path in tmp_path.iterdir()] == ["shapes"], "the next run clears away what is left"


@pytest.mark.skipif(sys.platform == "win32", reason="no SIGINT to send")
def test_interrupted_run_tidies_up(tmp_path: Path, start: Start) -> None:
    process = start(tmp_path / "shapes", "--train", 100_000, "--size", 32)
    deadline = time.monotonic() + 30
    while not list(tmp_path.glob(".shapes.partial-*/images/train/00000*.png")):
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.02)
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=30)
    assert process.returncode == 130
    assert "interrupted" in errors
    assert "Traceback" not in errors
    assert not list(tmp_path.iterdir())


def test_old_folder_is_restored_when_replacing_it_fails(
    small: ShapesFolder, monkeypatch: pytest.MonkeyPatch, fingerprint: Fingerprint
) -> None:
    lose_an_image(small.path)
    before = fingerprint(small.path)
    rename = Path.rename

    def fail_for_the_new(self: Path, target: Path) -> Path:
        if target == small.path and (self / "images/train/000003.png").exists():
            raise OSError(28, "No space left on device")
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", fail_for_the_new)
    with pytest.raises(ShapesError, match=r"small cannot be written: No space left on device$"):
        make_shapes(small, **SMALL)
    assert fingerprint(small.path) == before
    assert [path.name for path in small.path.parent.iterdir()] == ["small"]


def test_failing_disk_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_bytes = Path.write_bytes

    def fail_late(self: Path, content: bytes) -> int:
        if self.name == "000004.png":
            raise OSError(28, "No space left on device")
        return write_bytes(self, content)

    monkeypatch.setattr(Path, "write_bytes", fail_late)
    with pytest.raises(ShapesError, match="No space left on device"):
        make_shapes(tmp_path / "shapes", **SMALL)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("same", [True, False], ids=["same arguments", "other arguments"])
def test_processes_at_once_do_not_corrupt_the_folder(
    tmp_path: Path, start: Start, same: bool, small: ShapesFolder, fingerprint: Fingerprint
) -> None:
    out = tmp_path / "shapes"
    seeds = [7, 7, 7] if same else [7, 8, 9]
    processes = [start(out, *SMALL_OPTIONS, "--seed", seed) for seed in seeds]
    for process in processes:
        _, errors = process.communicate(timeout=60)
        assert process.returncode == 0, errors
    assert verify(out).arguments.seed in seeds
    if same:
        assert fingerprint(out) == fingerprint(small.path)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["shapes", "small"]


@pytest.mark.parametrize("same", [True, False], ids=["same arguments", "other arguments"])
def test_another_process_finishes_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, same: bool) -> None:
    """Its folder is kept if it has the same arguments, because it may already be in use."""
    out = tmp_path / "shapes"
    build = shapes_module._build

    def build_late(*arguments: object) -> None:
        monkeypatch.setattr(shapes_module, "_build", build)
        make_shapes(out, **{**SMALL, "seed": 7 if same else 8})
        (out / "manifest.json").chmod(0o600)
        build(*arguments)

    monkeypatch.setattr(shapes_module, "_build", build_late)
    assert make_shapes(out, **SMALL) == verify(out)
    assert ((out / "manifest.json").stat().st_mode & 0o777 == 0o600) == same
    assert [path.name for path in tmp_path.iterdir()] == ["shapes"]


@pytest.mark.parametrize("name", ["photo.png", ".hidden", "manifest.json", "images/train/000000.png"])
def test_foreign_folder_is_refused_untouched(
    tmp_path: Path, name: str, fingerprint: Fingerprint, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
    (tmp_path / name).write_text('{"made_by": "somebody else"}')
    before = fingerprint(tmp_path)
    with pytest.raises(ForeignFolderError, match="left untouched"):
        make_shapes(tmp_path, **SMALL)
    assert main([str(tmp_path)]) == 2
    assert capsys.readouterr().err.count("\n") == 1
    assert fingerprint(tmp_path) == before


@pytest.mark.parametrize("name", ["notes.txt", "images/train/mine.png", "classification/train/heart/000000_0.png"])
def test_our_folder_with_a_foreign_file_is_not_rebuilt(
    small: ShapesFolder, name: str, fingerprint: Fingerprint
) -> None:
    (small.path / name).parent.mkdir(exist_ok=True)
    (small.path / name).write_text("precious")
    before = fingerprint(small.path)
    with pytest.raises(ForeignFolderError, match=f"also contains {name}, .*nothing was changed"):
        make_shapes(small, **{**SMALL, "seed": 8})
    assert fingerprint(small.path) == before


@pytest.mark.skipif(sys.platform == "win32", reason="symbolic links need a privilege")
def test_link_to_a_folder_stays_a_link(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to("real")
    assert make_shapes(tmp_path / "link", **SMALL).path == tmp_path / "real"
    assert (tmp_path / "link").is_symlink()
    assert verify(tmp_path / "link") == verify(tmp_path / "real")


def test_empty_folder_and_missing_parents_are_fine(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    assert verify(make_shapes(tmp_path / "empty", **SMALL)).counts["val"]["images"] == 5
    assert verify(make_shapes(tmp_path / "a" / "b", **SMALL)).counts["train"]["images"] == 10


@pytest.mark.parametrize(
    ("name", "value", "allowed"),
    [
        ("train", 2, "from 3 to 1000000"),
        ("train", -1, "from 3 to 1000000"),
        ("val", 0, "from 3 to 1000000"),
        ("val", 2.5, "from 3 to 1000000"),
        ("size", 31, "from 32 to 1024"),
        ("size", 5000, "from 32 to 1024"),
        ("size", "big", "from 32 to 1024"),
        ("seed", -1, "from 0 to 4294967295"),
        ("seed", True, "from 0 to 4294967295"),
        ("crop_size", 3, "from 16 to 1024"),
    ],
)
def test_arguments_out_of_range(
    tmp_path: Path, name: str, value: object, allowed: str, capsys: pytest.CaptureFixture[str]
) -> None:
    message = f"{name} must be an integer {allowed}, got {value!r}"
    with pytest.raises(ShapesArgumentError) as caught:
        make_shapes(tmp_path / "shapes", **{**SMALL, name: value})
    assert str(caught.value) == message
    if not isinstance(value, bool | float):  # on a command line these are text
        assert main([str(tmp_path / "shapes"), f"--{name.replace('_', '-')}", str(value)]) == 2
        assert capsys.readouterr().err == f"error: {message}.\n"
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("inside", ["", "deeper/still"])
def test_out_is_a_file(tmp_path: Path, inside: str, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "file").write_text("text")
    assert main([str(tmp_path / "file" / inside)]) == 2
    assert capsys.readouterr().err == f"error: out must be a folder, but {tmp_path / 'file'} is a file.\n"
    assert (tmp_path / "file").read_text() == "text"


@pytest.mark.parametrize("out", ["", "nul\0l"])
def test_out_is_not_a_path(out: str) -> None:
    with pytest.raises(ShapesArgumentError, match=r"^out must "):
        make_shapes(out, **SMALL)


def test_current_folder_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ShapesArgumentError, match=r"give a folder inside it, such as .*shapes$"):
        make_shapes(".", **SMALL)


def test_out_cannot_be_written(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    if sys.platform == "win32" or os.geteuid() == 0:
        if not Path("/proc/self").exists():
            pytest.skip("everything can be written here")
        out = Path("/proc/shapes")
    else:
        tmp_path.chmod(0o500)
        out = tmp_path / "shapes"
    assert main([str(out), *SMALL_OPTIONS]) == 1
    errors = capsys.readouterr().err
    assert errors.startswith(f"error: out {out} cannot be written: ")
    assert errors.count("\n") == 1


@pytest.mark.parametrize(
    ("module", "package"), [("cv2", "opencv-python"), ("skimage", "scikit-image"), ("rich", "rich")]
)
def test_missing_package(
    tmp_path: Path, module: str, package: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    find_spec = checks.find_spec
    monkeypatch.setattr(checks, "find_spec", lambda name: None if name == module else find_spec(name))
    assert main([str(tmp_path / "shapes")]) == 1
    expected = f"error: {package} must be installed: pip install 'sa-layers[datasets]'.\n"
    assert capsys.readouterr().err == expected
    assert not list(tmp_path.iterdir())


def test_package_that_does_not_load(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # Importing cv2 fails, as it does when a library that OpenCV needs is not installed.
    monkeypatch.setitem(sys.modules, "sa_layers.datasets.scenes", None)
    with pytest.raises(MissingPackageError, match=r"a package cannot be imported .*pip install"):
        make_shapes(tmp_path / "shapes", **SMALL)
    assert not list(tmp_path.iterdir())


def test_importing_the_package_needs_neither_torch_nor_opencv() -> None:
    # The path is extended by hand, because sa_layers itself needs torch.
    code = (
        "import sys, types; package = types.ModuleType('sa_layers'); package.__path__ = ['sa_layers'];"
        "sys.modules['sa_layers'] = package; from sa_layers.datasets import CLASSES, make_shapes, verify;"
        "print(sorted({'torch', 'cv2', 'skimage', 'rich'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=REPOSITORY, capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"
    for path in (REPOSITORY / "sa_layers" / "datasets").glob("*.py"):
        assert "import torch" not in path.read_text(encoding="utf-8")
