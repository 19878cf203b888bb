"""mmseg's own tools on a small network: interrupted and distributed training, testing, counting."""

from __future__ import annotations

import json
import signal
from collections.abc import Callable
from pathlib import Path
from subprocess import CompletedProcess

import pytest

pytest.importorskip("mmseg")

import torch

from .toolboxes import toolbox

pytestmark = [pytest.mark.openmmlab, pytest.mark.slow]

RunPython = Callable[..., CompletedProcess[str]]
TOOLS = toolbox("mmseg") / "tools"

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

# Runs tools one after the other in one process: importing mmseg takes longer than what they do.
RUN = """
import json, runpy, sys

for command in json.loads(sys.argv.pop()):
    sys.argv = command
    runpy.run_path(command[0], run_name='__main__')
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
ON_CPU = """
import runpy, sys, torch

torch.cuda.set_device = lambda device: None
sys.argv = sys.argv[1:]
runpy.run_path(sys.argv[0], run_name='__main__')
torch.distributed.barrier()
torch.distributed.destroy_process_group()
"""


def write_config(workspace: Path, name: str, batch_size: int = 2, iterations: int = 6, norm_eval: bool = False) -> Path:
    """Writes a config beside the workspace's mm_configs."""
    path = workspace / f"{name}.py"
    path.write_text(CONFIG.format(batch_size=batch_size, iterations=iterations, norm_eval=norm_eval))
    return path


def weights(path: Path) -> dict[str, torch.Tensor]:
    """Load the state dict of a checkpoint."""
    return torch.load(path, weights_only=False)["state_dict"]


def run_tools(
    run_python: RunPython, workspace: Path, *commands: tuple[object, ...], before: str = "", **options: bool
) -> CompletedProcess[str]:
    """Runs mmseg's tools in one process."""
    arguments = json.dumps([[str(TOOLS / name), *map(str, rest)] for name, *rest in commands])
    return run_python(before + RUN, arguments, cwd=workspace, **options)


def test_killed_resumed_tested_counted(workspace: Path, run_python: RunPython) -> None:
    """Killed while it writes a checkpoint and resumed from the one before, a training ends as if uninterrupted.

    Its checkpoint is tested. get_flops.py counts the parameters, with the depth given on the command line; it does not
    know our operators, nor those of any attention.
    """
    config = write_config(workspace, "resumed")
    whole, killed = workspace / "work_dirs/whole", workspace / "work_dirs/killed"
    commands = [("train.py", config, "--work-dir", folder) for folder in (whole, killed)]
    process = run_tools(run_python, workspace, *commands, before=KILL, check=False)
    assert process.returncode == -signal.SIGKILL, process.stdout[-6000:]
    assert (killed / "iter_4.pth").stat().st_size < (whole / "iter_4.pth").stat().st_size
    assert (killed / "last_checkpoint").read_text().endswith("iter_2.pth")
    demo = workspace / "mm_configs/segmentation/san10-patchwise_fpn_1xb8-1k_shapes-64x64.py"
    printed = run_tools(
        run_python,
        workspace,
        (*commands[1], "--resume"),
        ("test.py", config, killed / "iter_6.pth", "--work-dir", workspace / "work_dirs/tested"),
        ("analysis_tools/get_flops.py", demo, "--shape", 64, 64, "--cfg-options", "model.backbone.depth=19"),
    ).stdout
    assert "resumed epoch: 0, iter: 2" in printed
    expected, actual = weights(whole / "iter_6.pth"), weights(killed / "iter_6.pth")
    assert all(expected[name].equal(actual[name]) for name in expected)
    assert list((workspace / "work_dirs/tested").glob("*/*.json"))
    assert "mIoU" in printed
    assert "Params: 18.9" in printed


def test_two_processes(workspace: Path, run_python: RunPython) -> None:
    """Two processes with two images each make the steps of one with four: SGD's steps are its gradients."""
    folders = [workspace / "work_dirs" / name for name in ("one", "two")]
    configs = [
        write_config(workspace, folder.name, batch_size, iterations=2, norm_eval=True)
        for folder, batch_size in zip(folders, (4, 2), strict=True)
    ]
    run_tools(run_python, workspace, ("train.py", configs[0], "--work-dir", folders[0]))
    on_cpu = workspace / "on_cpu.py"
    on_cpu.write_text(ON_CPU)
    launcher = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    options = (configs[1], "--work-dir", folders[1], "--launcher", "pytorch")
    run_python(None, *launcher, on_cpu, TOOLS / "train.py", *options, cwd=workspace)
    one, two = (weights(folder / "iter_2.pth") for folder in folders)
    for name, values in one.items():
        torch.testing.assert_close(
            two[name], values, rtol=1e-4, atol=1e-6, msg=lambda text, name=name: f"{name}: {text}"
        )


def test_checkpoint_of_another_layout(workspace: Path, run_python: RunPython) -> None:
    """test.py ends with an error that says what to do, and prints no mIoU of random weights."""
    config, checkpoint = write_config(workspace, "official"), workspace / "official.pth"
    torch.save({"state_dict": {"module.conv_in.weight": torch.ones(32, 3, 1, 1)}}, checkpoint)
    process = run_tools(run_python, workspace, ("test.py", config, checkpoint), check=False)
    assert process.returncode == 1
    assert "MismatchError: the checkpoint has no tensor of this backbone" in process.stdout
    assert "python -m sa_layers.convert SRC DST" in process.stdout
    assert "mIoU" not in process.stdout.partition("Traceback")[2]
