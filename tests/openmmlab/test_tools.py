"""mmseg's tools in separate processes: resuming, distributed training, testing and counting parameters."""

from __future__ import annotations

import shutil
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

# Nothing random but the order of the images, which mmengine restores; it restores neither flips nor dropout.
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

# Runs a tool that is killed, as by the kernel, when half of the checkpoint of iteration 4 is on the disk.
KILLED = """
import os, runpy, signal, sys
from mmengine.fileio import LocalBackend

put = LocalBackend.put


def half(self, obj, filepath):
    if str(filepath).endswith('iter_4.pth'):
        put(self, obj[:len(obj) // 2], filepath)
        os.kill(os.getpid(), signal.SIGKILL)
    put(self, obj, filepath)


LocalBackend.put = half
sys.argv = sys.argv[1:]
runpy.run_path(sys.argv[0], run_name='__main__')
"""


# mmengine sets the device of CUDA whatever the backend is, even where there is none.
ON_CPU = """
import runpy, sys, torch

torch.cuda.set_device = lambda device: None
sys.argv = sys.argv[1:]
runpy.run_path(sys.argv[0], run_name='__main__')
"""


def write_config(workspace: Path, name: str, batch_size: int = 2, iterations: int = 6, norm_eval: bool = False) -> Path:
    """Write a config next to the workspace's mm_configs."""
    path = workspace / f"{name}.py"
    path.write_text(CONFIG.format(batch_size=batch_size, iterations=iterations, norm_eval=norm_eval))
    return path


def weights(path: Path) -> dict[str, torch.Tensor]:
    """Load the state dict of a checkpoint."""
    return torch.load(path, weights_only=False)["state_dict"]


def test_killed_and_resumed(workspace: Path, run_python: RunPython) -> None:
    """A run killed while writing a checkpoint and resumed from the previous one ends with the same parameters."""
    config = write_config(workspace, "resumed")
    command = (TOOLS / "train.py", config, "--work-dir")
    whole, killed = workspace / "work_dirs/whole", workspace / "work_dirs/killed"
    run_python(None, *command, whole, cwd=workspace)
    process = run_python(KILLED, *command, killed, cwd=workspace, check=False)
    assert process.returncode == -signal.SIGKILL
    assert (killed / "iter_4.pth").stat().st_size < (whole / "iter_4.pth").stat().st_size
    assert (killed / "last_checkpoint").read_text().endswith("iter_2.pth")
    resumed = run_python(None, *command, killed, "--resume", cwd=workspace).stdout
    assert "resumed epoch: 0, iter: 2" in resumed
    expected, actual = weights(whole / "iter_6.pth"), weights(killed / "iter_6.pth")
    assert all(expected[name].equal(actual[name]) for name in expected)

    tested = run_python(None, TOOLS / "test.py", config, killed / "iter_6.pth", cwd=workspace).stdout
    assert "mIoU" in tested
    shutil.rmtree(workspace / "work_dirs")


def test_two_processes(workspace: Path, run_python: RunPython) -> None:
    """Two processes with two images each update parameters like one process with four images."""
    results = []
    on_cpu = workspace / "on_cpu.py"
    on_cpu.write_text(ON_CPU)
    for name, processes, batch_size in (("one", 1, 4), ("two", 2, 2)):
        config = write_config(workspace, name, batch_size, iterations=2, norm_eval=True)
        launcher = ["-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={processes}"]
        folder = workspace / "work_dirs" / name
        options = (config, "--work-dir", folder, "--launcher", "pytorch")
        run_python(None, *launcher, on_cpu, TOOLS / "train.py", *options, cwd=workspace)
        results.append(weights(folder / "iter_2.pth"))
    one, two = results
    for name, values in one.items():
        torch.testing.assert_close(
            two[name], values, rtol=1e-4, atol=1e-6, msg=lambda text, name=name: f"{name}: {text}"
        )
    shutil.rmtree(workspace / "work_dirs")


def test_counts_parameters(workspace: Path, run_python: RunPython) -> None:
    """get_flops.py counts the parameters. It does not support our operators."""
    tool = TOOLS / "analysis_tools" / "get_flops.py"
    config = workspace / "mm_configs/segmentation/san10-patchwise_fpn_1xb8-1k_shapes-64x64.py"
    options = ("--shape", 64, 64, "--cfg-options", "model.backbone.depth=19")
    printed = run_python(None, tool, config, *options, cwd=workspace).stdout
    assert "Params: 18.9" in printed
