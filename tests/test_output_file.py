"""Files are replaced by complete ones or not at all; devices and pipes stay what they are."""

from __future__ import annotations

import errno
import os
import stat
import threading
from pathlib import Path

import pytest

from sa_layers.output_file import OutputError, check_output, output_file


def write(path: Path, text: str = "new") -> None:
    with output_file(path) as partial:
        partial.write_text(text)


def test_replaces_a_file(tmp_path: Path) -> None:
    """Permissions and symbolic links are kept, nothing else is left."""
    path, link = tmp_path / "a.txt", tmp_path / "link.txt"
    path.write_text("old")
    path.chmod(0o640)
    link.symlink_to(path)
    write(link)
    assert link.is_symlink()
    assert path.read_text() == "new"
    assert stat.S_IMODE(path.stat().st_mode) == 0o640
    assert sorted(tmp_path.iterdir()) == [path, link]


def test_new_file_has_the_usual_permissions(tmp_path: Path) -> None:
    write(tmp_path / "a.txt")
    (tmp_path / "b.txt").write_text("new")
    assert (tmp_path / "a.txt").stat().st_mode == (tmp_path / "b.txt").stat().st_mode


def test_relative_path_and_longest_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("a.txt", "n" * 255):
        write(Path(name))
        assert (tmp_path / name).read_text() == "new"


def test_further_files_come_along(tmp_path: Path) -> None:
    """As the weights of ONNX programs above 2 GB."""
    with output_file(tmp_path / "a.onnx") as partial:
        partial.write_text("a")
        partial.with_name("a.onnx.data").write_text("b")
    assert {path.name: path.read_text() for path in tmp_path.iterdir()} == {"a.onnx": "a", "a.onnx.data": "b"}


def test_full_disk(tmp_path: Path) -> None:
    """The old file stays, and nothing of the new one."""
    path = tmp_path / "a.txt"
    path.write_text("old")

    def write_half() -> None:
        with output_file(path) as partial:
            partial.write_text("ne")
            raise OSError(errno.ENOSPC, "No space left on device")

    with pytest.raises(OutputError, match=r"^cannot write .*a\.txt: No space left on device$"):
        write_half()
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_other_errors_are_not_of_the_file(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match="shapes differ"), output_file(tmp_path / "a.txt"):
        raise RuntimeError("shapes differ")
    assert not list(tmp_path.iterdir())


def test_device_is_written_to() -> None:
    before = os.stat("/dev/null")
    write(Path("/dev/null"))
    after = os.stat("/dev/null")
    assert stat.S_ISCHR(after.st_mode)
    assert (after.st_ino, after.st_rdev) == (before.st_ino, before.st_rdev)


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs a device that is always full")
def test_full_device() -> None:
    with pytest.raises(OutputError, match="cannot write /dev/full: No space left on device"):
        write(Path("/dev/full"))
    assert stat.S_ISCHR(os.stat("/dev/full").st_mode)


@pytest.mark.parametrize("linked", [False, True])
def test_pipe_is_written_to(tmp_path: Path, linked: bool) -> None:
    pipe, path = tmp_path / "pipe", tmp_path / ("link" if linked else "pipe")
    os.mkfifo(pipe)
    if linked:
        path.symlink_to(pipe)
    received: list[str] = []
    reader = threading.Thread(target=lambda: received.append(pipe.read_text()), daemon=True)
    reader.start()
    write(path)
    reader.join(10)
    assert received == ["new"]
    assert stat.S_ISFIFO(pipe.stat().st_mode)


def test_open_file_by_its_number(tmp_path: Path) -> None:
    """As /dev/stdout, redirected to a file: what was printed stays, and the descriptor stays that of the file."""
    with (tmp_path / "out.txt").open("w") as file:
        file.write("printed\n")
        file.flush()
        write(Path(f"/dev/fd/{file.fileno()}"), "written\n")
        assert os.fstat(file.fileno()).st_ino == (tmp_path / "out.txt").stat().st_ino
    assert (tmp_path / "out.txt").read_text() == "printed\nwritten\n"


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        (".", "it is a folder"),
        ("nowhere/a.txt", "nowhere is not a folder"),
        ("file/a.txt", "file is not a folder"),
        ("a" * 300, "File name too long"),
        ("loop/a.txt", "loop"),
        ("loop", "loop"),
        ("nul\0.txt", "null"),
    ],
)
def test_refused(name: str, reason: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("file").touch()
    Path("loop").symlink_to("loop")
    before = sorted(tmp_path.iterdir())
    for refuse in (check_output, write):
        with pytest.raises(OutputError) as caught:
            refuse(Path(name))
        assert str(caught.value).startswith(f"cannot write {name}: ")
        assert reason in str(caught.value)
    assert sorted(tmp_path.iterdir()) == before


def test_folder_that_will_be_made(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    check_output(tmp_path / "a/b/c.txt", make_folder=True)
    with pytest.raises(OutputError, match="file is not a folder"):
        check_output(tmp_path / "file/b/c.txt", make_folder=True)
