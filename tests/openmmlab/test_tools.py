"""mmseg's own tools on a small network: interrupted and distributed training, testing, counting."""

from __future__ import annotations

import json
import signal
from pathlib import Path

import pytest

pytest.importorskip("mmseg")

import torch

from tests.conftest import MakeOnce, programs_in

from .conftest import make_workspace
from .toolboxes import modules, tool_program

pytestmark = [pytest.mark.openmmlab, pytest.mark.slow]

# Only the order of the images is random: mmengine restores it when it resumes, but neither flips nor dropout.
CONFIG = """
_base_ = './mm_configs/segmentation/san10-patchwise_fpn_1xb8-1k_shapes-64x64.py'
model = dict(
    backbone=dict(
        depth=(1, 1, 1, 1, 1), widths=(32, 32, 32, 32, 32), kernel_sizes=(3, 3, 3, 3, 3), norm_eval={norm_eval}),
    neck=dict(in_channels=[32] * 4),
    decode_head=dict(
        dropout_ratio=0, norm_cfg=dict(type='GN', num_groups=4), loss_decode=dict(class_weight=None)))
train_pipeline = [
    dict(type='LoadImageFromFile'), dict(type='LoadAnnotations', reduce_zero_label=False), dict(type='PackSegInputs')]
train_dataloader = dict(batch_size={batch_size}, dataset=dict(pipeline=train_pipeline))
optim_wrapper = dict(_delete_=True, type='OptimWrapper', optimizer=dict(type='SGD', lr=0.05, momentum=0.9))
train_cfg = dict(max_iters={iterations}, val_interval=100)
default_hooks = dict(logger=dict(interval=1), checkpoint=dict(interval=2, max_keep_ckpts=2))
env_cfg = dict(dist_cfg=dict(backend='gloo'))
model_wrapper_cfg = dict(type='MMDistributedDataParallel', device_ids=None)  # on CPUs, or mmengine names GPUs
"""

# The process is killed, as by the kernel, when half of the checkpoint of iteration 4 is on the disk.
KILL = """
import os, signal
from mmengine.fileio import LocalBackend

put = LocalBackend.put


def half(self, obj, filepath):
    if str(filepath).endswith('killed/iter_4.pth'):
        put(self, obj[:len(obj) // 2], filepath)
        os.kill(os.getpid(), signal.SIGKILL)
    put(self, obj, filepath)


LocalBackend.put = half
"""


# mmengine sets the CUDA device for every backend, even where there is no GPU. The group is destroyed lest its threads
# outlive the interpreter.
TWO_PROCESSES = """
import os, signal, socket, torch

torch.cuda.set_device = lambda device: None
with socket.socket() as free:
    free.bind(("127.0.0.1", 0))
    os.environ |= {{"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free.getsockname()[1]), "WORLD_SIZE": "2"}}
other = os.fork()
signal.alarm(300)  # a process waits for ever for one that has failed
os.environ["RANK"] = os.environ["LOCAL_RANK"] = "0" if other else "1"
{train}
torch.distributed.barrier()
torch.distributed.destroy_process_group()
if other:
    assert os.waitpid(other, 0)[1] == 0
"""


def write_config(workspace: Path, name: str, batch_size: int = 2, iterations: int = 6, norm_eval: bool = False) -> Path:
    """Writes a config beside the workspace's mm_configs."""
    path = workspace / f"{name}.py"
    path.write_text(CONFIG.format(batch_size=batch_size, iterations=iterations, norm_eval=norm_eval))
    return path


def weights(path: Path) -> dict[str, torch.Tensor]:
    """Load the state dict of a checkpoint."""
    return torch.load(path, weights_only=False)["state_dict"]


@pytest.fixture(scope="module")
def done(make_once: MakeOnce, shapes: Path, repository: Path) -> Path:
    """The workspace after all tools have run, each in a fork of one process, and what each printed."""

    def make(folder: Path) -> None:
        make_workspace(folder, shapes, repository)
        work = folder / "work_dirs"
        resumed = write_config(folder, "resumed")
        one = write_config(folder, "one", batch_size=4, iterations=2, norm_eval=True)
        two = write_config(folder, "two", batch_size=2, iterations=2, norm_eval=True)
        official = folder / "official.pth"
        torch.save({"state_dict": {"module.conv_in.weight": torch.ones(32, 3, 1, 1)}}, official)

        def tool(name: str, *arguments: object) -> str:
            return tool_program(folder, "mmseg", name, arguments)

        programs = {
            "whole": tool("train.py", resumed, "--work-dir", work / "whole"),
            "killed": KILL + tool("train.py", resumed, "--work-dir", work / "killed"),
            "resumed": tool("train.py", resumed, "--work-dir", work / "killed", "--resume"),
            "tested": tool("test.py", resumed, work / "killed/iter_6.pth", "--work-dir", work / "tested"),
            "counted": tool(
                "analysis_tools/get_flops.py",
                folder / "mm_configs/segmentation/san10-patchwise_fpn_1xb8-1k_shapes-64x64.py",
                *("--shape", 64, 64, "--cfg-options", "model.backbone.depth=19"),
            ),
            "one": tool("train.py", one, "--work-dir", work / "one"),
            "two": TWO_PROCESSES.format(
                train=tool("train.py", two, "--work-dir", work / "two", "--launcher", "pytorch")
            ),
            "official": tool("test.py", resumed, official),
        }
        failing = {"killed": -signal.SIGKILL, "official": 1}
        printed = programs_in(folder)(programs, imported=modules("mmseg"), failing=failing)
        (folder / "printed.json").write_text(json.dumps(printed))

    return make_once("mmseg_tools", make)


def printed(done: Path, name: str) -> str:
    """What a program printed."""
    text: str = json.loads((done / "printed.json").read_text())[name]
    return text


def test_killed_and_resumed(done: Path) -> None:
    """Killed while it writes a checkpoint and resumed from the one before, a training ends as if uninterrupted."""
    whole, killed = done / "work_dirs/whole", done / "work_dirs/killed"
    assert "resumed epoch: 0, iter: 2" in printed(done, "resumed")
    expected, actual = weights(whole / "iter_6.pth"), weights(killed / "iter_6.pth")
    assert all(expected[name].equal(actual[name]) for name in expected)


def test_tested(done: Path) -> None:
    assert list((done / "work_dirs/tested").glob("*/*.json"))
    assert "mIoU" in printed(done, "tested")


def test_counted(done: Path) -> None:
    """get_flops.py counts the parameters, with the depth given on the command line.

    It does not know our operators, nor those of any attention.
    """
    assert "Params: 18.9" in printed(done, "counted")


def test_two_processes(done: Path) -> None:
    """Two processes with two images each make the steps of one with four: SGD's steps are its gradients."""
    one, two = (weights(done / "work_dirs" / name / "iter_2.pth") for name in ("one", "two"))
    for name, values in one.items():
        torch.testing.assert_close(
            two[name], values, rtol=1e-4, atol=1e-6, msg=lambda text, name=name: f"{name}: {text}"
        )


def test_checkpoint_of_another_layout(done: Path) -> None:
    """test.py ends with an error that says what to do, and prints no mIoU of random weights."""
    text = printed(done, "official")
    assert "MismatchError: the checkpoint has no tensor of this backbone" in text
    assert "python -m sa_layers.convert SRC DST" in text
    assert "mIoU" not in text.partition("Traceback")[2]
