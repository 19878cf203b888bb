"""FSDP by mmengine's own strategy: two processes, each with its shards, make the steps of one process without them."""

from __future__ import annotations

import pytest

from tests.conftest import RunPython

pytest.importorskip("mmengine")

pytestmark = [pytest.mark.openmmlab, pytest.mark.process]

# The ranks are forks of a process that has imported everything. It then makes the same steps without a runner.
PROGRAM = """
import os, socket, sys

import torch
from mmengine.model import BaseModel
from mmengine.runner import FlexibleRunner
from torch.distributed.fsdp import FullyShardedDataParallel
from torch.distributed.fsdp.wrap import ModuleWrapPolicy

from sa_layers.backbones import SAN
from sa_layers.layers import SelfAttentionBlock

RANKS, RATE = 2, 0.1
SMALL = dict(depth=(1, 1, 1, 1, 1), widths=(16,) * 5, kernel_sizes=(3,) * 5, share=4, norm_eval=True)


class Model(BaseModel):
    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.backbone = SAN(attention="patchwise", out_indices=(4,), **SMALL)

    def forward(self, inputs, mode="loss"):
        (features,) = self.backbone(inputs)
        return {"loss": (features.flatten(1) * torch.linspace(-1, 1, 64)).sum(1).mean()}


def train(rank):
    os.environ.update(RANK=str(rank), LOCAL_RANK=str(rank), WORLD_SIZE=str(RANKS), MASTER_ADDR="localhost")
    torch.cuda.set_device = lambda device: None  # mmengine sets it for every backend, even where there is no GPU
    blocks = ModuleWrapPolicy({SelfAttentionBlock})
    wrapper = dict(type="MMFullyShardedDataParallel", device_id=torch.device("cpu"), auto_wrap_policy=blocks)
    runner = FlexibleRunner(
        Model(),
        work_dir="runs",
        strategy=dict(type="FSDPStrategy", model_wrapper=wrapper),
        train_dataloader=dict(
            dataset=images, sampler=dict(type="DefaultSampler", shuffle=False), batch_size=2, num_workers=0,
            collate_fn=dict(type="default_collate"),
        ),
        train_cfg=dict(by_epoch=True, max_epochs=1),
        optim_wrapper=dict(optimizer=dict(type="SGD", lr=RATE)),
        launcher="pytorch",
        env_cfg=dict(dist_cfg=dict(backend="gloo")),
    )
    runner.train()
    parameters = sum(parameter.numel() for parameter in runner.model.parameters())
    whole = sum(parameter.numel() for parameter in Model().parameters())
    assert 0 < parameters < whole, (parameters, whole)  # the rest is on the other rank
    with FullyShardedDataParallel.summon_full_params(runner.model):
        if rank == 0:  # not state_dict(), in which the ranks wait for each other
            named = [*runner.model.module.named_parameters(), *runner.model.module.named_buffers()]
            torch.save({name: value.detach().clone() for name, value in named}, "gathered.pth")
    torch.distributed.barrier()
    torch.distributed.destroy_process_group()


torch.manual_seed(1)
images = [dict(inputs=image) for image in torch.randn(8, 3, 64, 64)]
with socket.socket() as free:
    free.bind(("localhost", 0))
    os.environ["MASTER_PORT"] = str(free.getsockname()[1])
children = []
for rank in range(RANKS):
    if not (child := os.fork()):
        train(rank)
        sys.exit()
    children.append(child)
assert [os.waitpid(child, 0)[1] for child in children] == [0] * RANKS, "a rank has failed"
assert sorted(os.listdir("runs/epoch_1.pth")) == ["rank0.pth", "rank1.pth"]

model = Model().train()
optimizer = torch.optim.SGD(model.parameters(), lr=RATE)
for first in (0, 4):  # both ranks' batches
    batch = torch.stack([item["inputs"] for item in images[first : first + 4]])
    optimizer.zero_grad()
    model(batch)["loss"].backward()
    optimizer.step()
gathered = {name.replace("_fsdp_wrapped_module.", ""): value for name, value in torch.load("gathered.pth").items()}
expected, start = model.state_dict(), Model().state_dict()
assert gathered.keys() == expected.keys(), gathered.keys() ^ expected.keys()
for name, value in expected.items():
    torch.testing.assert_close(gathered[name], value, rtol=1e-4, atol=1e-5, msg=lambda text: f"{name}: {text}")
assert any((value != start[name]).any() for name, value in expected.items())
"""


def test_two_processes(run_python: RunPython) -> None:
    """A FlexibleRunner with FSDPStrategy ends with the weights of plain SGD on both ranks' images."""
    run_python(PROGRAM, OMP_NUM_THREADS="1")
