"""One of two processes that train together: ``python -m tests.fused.training.ranks FOLDER RANK [CASE ...]``.

Each case trains a copy of the same module on this rank's half of every batch, and writes what is then found in it, or
the traceback of an error, to ``FOLDER/CASE.RANK.pt``.
"""

from __future__ import annotations

import contextlib
import datetime
import random
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import FullyShardedDataParallel, fully_shard
from torch.distributed.nn.functional import all_reduce
from torch.distributed.tensor import DTensor
from torch.nn.parallel import DistributedDataParallel

from sa_layers.models import SelfAttentionNetwork

from .problem import randomise

RANKS, STEPS, RATE = 2, 2, 0.01
Found = dict[str, Any]


def network(
    attention: str = "pairwise", norm_layer: Callable[[int], nn.Module] = nn.BatchNorm2d, **options: Any
) -> nn.Module:
    """The same on all ranks, in float64, with a head that needs no gradient of its own."""
    torch.manual_seed(0)
    small: dict[str, Any] = {"depth": (1, 2, 1, 1, 1), "widths": (16, 32, 32, 32, 32), "kernel_sizes": (3,) * 5}
    module = SelfAttentionNetwork(
        attention=attention, norm_layer=norm_layer, act_layer=nn.ReLU, num_stages=2, share=4, **small | options
    )
    randomise(module, random.Random(0))
    return module.double()


def images(step: int) -> Tensor:
    """The batch of a step, for all ranks."""
    return torch.randn(2 * RANKS, 3, 13, 10, generator=torch.Generator().manual_seed(step)).double()


def loss_of(outputs: Any) -> Tensor:
    """A mean over images."""
    output = outputs[-1] if isinstance(outputs, tuple | list) else outputs
    weights = torch.linspace(-1, 1, output[0].numel(), dtype=torch.float64).view_as(output[0])
    return (output * weights).flatten(1).sum(1).mean()


def train(module: nn.Module, rank: int | None, *, accumulate: bool = False, averaged: bool = False) -> list[Tensor]:
    """A few steps of gradient descent.

    Args:
        module: Is trained.
        rank: On whose share of the batches; None for whole ones.
        accumulate: Whether to add up the gradients of two halves of a batch, the first without an exchange.
        averaged: Whether to average the gradients of all ranks here, since nothing else does.

    Returns:
        The loss of each step.
    """
    optimizer = torch.optim.SGD(module.parameters(), lr=RATE)
    losses = []
    for step in range(STEPS):
        batch = images(step) if rank is None else images(step).chunk(RANKS)[rank]
        if accumulate:  # the first half of the images without an exchange of gradients
            first, batch = batch.chunk(2)
            unsynchronised: Any = getattr(module, "no_sync", contextlib.nullcontext)
            with unsynchronised():
                loss_of(module(first)).backward()
        loss = loss_of(module(batch))
        loss.backward()
        for parameter in module.parameters() if averaged else ():
            assert parameter.grad is not None
            dist.all_reduce(parameter.grad)
            parameter.grad /= RANKS
        optimizer.step()
        optimizer.zero_grad()
        losses.append(loss.detach())
    return losses


def state_of(module: nn.Module) -> Found:
    """Parameters, whole ones, and buffers."""
    return {
        key: value.full_tensor() if isinstance(value, DTensor) else value.detach().clone()
        for key, value in module.state_dict().items()
    }


class Skipping(nn.Module):
    """Every other call leaves out the last block, whose parameters then receive no gradient."""

    def __init__(self, module: Any) -> None:
        super().__init__()
        self.network, self.calls = module, 0

    def forward(self, image: Tensor) -> Tensor:
        features = self.network.stem(image)
        features = self.network.stages[0](features)
        stage = self.network.stages[1]
        features = stage.transition(stage.pool(features))
        features = stage.blocks[0](features)
        self.calls += 1
        if self.calls % 2 == 0:
            features = stage.blocks[1](features)
        return stage.act(stage.norm(features))


class SyncedNorm(nn.BatchNorm2d):
    """What a SyncBatchNorm computes, by an all-reduce that autograd knows: it shows that the tests of those hold."""

    def forward(self, input: Tensor) -> Tensor:
        values = input.transpose(0, 1).flatten(1)
        count = values.shape[1] * RANKS
        mean = all_reduce(values.sum(1)) / count
        centred = values - mean.unsqueeze(1)
        var = all_reduce(centred.square().sum(1)) / count
        with torch.no_grad():
            self.num_batches_tracked.add_(1)
            self.running_mean.lerp_(mean, self.momentum)
            self.running_var.lerp_(var * count / (count - 1), self.momentum)
        scale = self.weight * (var + self.eps).rsqrt()
        shape = (1, -1, 1, 1)
        return (input - mean.view(shape)) * scale.view(shape) + self.bias.view(shape)


def parallel(rank: int, module: nn.Module, *, accumulate: bool = False, **options: Any) -> Found:
    """DistributedDataParallel."""
    wrapped = DistributedDataParallel(module, **options)
    losses = train(wrapped, rank, accumulate=accumulate)
    return {"losses": losses, "state": state_of(module), "why": why(module)}


def replicated(rank: int, module: nn.Module) -> Found:
    """Gradients are averaged without DistributedDataParallel, which refuses a SyncBatchNorm on the CPU."""
    losses = train(module, rank, averaged=True)
    return {"losses": losses, "state": state_of(module), "why": why(module)}


def why(module: Any) -> str | None:
    """What keeps a step from the fused path."""
    answer: str | None = module.why_not_fused(images(0)) if hasattr(module, "why_not_fused") else None
    return answer


def frozen(module: nn.Module) -> nn.Module:
    """With all norms in evaluation."""
    for part in module.modules():
        if isinstance(part, nn.BatchNorm2d | nn.SyncBatchNorm):
            part.eval()
    return module


def flat(rank: int, module: nn.Module, **options: Any) -> Found:
    """FullyShardedDataParallel: the parameters of a unit are views of one."""
    wrapped = FullyShardedDataParallel(module, device_id=torch.device("cpu"), **options)
    losses = train(wrapped, rank)
    with FullyShardedDataParallel.summon_full_params(wrapped):
        state = {key.replace("_fsdp_wrapped_module.", ""): value for key, value in state_of(module).items()}
    return {"losses": losses, "state": state, "why": None}


def sharded(rank: int, module: Any, parts: str) -> Found:
    """fully_shard: each parameter is a distributed tensor outside the calls of the part that it belongs to."""
    mesh = init_device_mesh("cpu", (RANKS,))
    for stage in module.stages if parts in ("stages", "blocks") else ():
        for block in stage.blocks if parts == "blocks" else ():
            fully_shard(block, mesh=mesh)
        fully_shard(stage, mesh=mesh)
    fully_shard(module, mesh=mesh)
    losses = train(module, rank)
    return {"losses": losses, "state": state_of(module), "why": None}


def synchronised(module: nn.Module) -> nn.Module:
    return nn.SyncBatchNorm.convert_sync_batchnorm(module)


CASES: dict[str, Callable[[int], Found]] = {
    "ddp pairwise": lambda rank: parallel(rank, network()),
    "ddp patchwise": lambda rank: parallel(rank, network("patchwise")),
    "ddp views": lambda rank: parallel(rank, network(), gradient_as_bucket_view=True, bucket_cap_mb=0.001),
    "ddp static": lambda rank: parallel(rank, network(), static_graph=True),
    "ddp unused": lambda rank: parallel(rank, Skipping(network()), find_unused_parameters=True),
    "ddp accumulation": lambda rank: parallel(rank, network("patchwise"), accumulate=True),
    "ddp recomputation": lambda rank: parallel(rank, network(with_cp=True), static_graph=True),
    "frozen pairwise": lambda rank: parallel(rank, frozen(network())),
    "frozen patchwise": lambda rank: parallel(rank, frozen(network("patchwise"))),
    "frozen sync": lambda rank: replicated(rank, frozen(synchronised(network()))),
    "control pairwise": lambda rank: replicated(rank, network(norm_layer=SyncedNorm)),
    "control patchwise": lambda rank: replicated(rank, network("patchwise", norm_layer=SyncedNorm)),
    "sync pairwise": lambda rank: replicated(rank, synchronised(network())),
    "sync patchwise": lambda rank: replicated(rank, synchronised(network("patchwise"))),
    "fsdp flat": lambda rank: flat(rank, network()),
    "fsdp original parameters": lambda rank: flat(rank, network("patchwise"), use_orig_params=True),
    "fsdp shards": lambda rank: sharded(rank, network(), "network"),
    "fsdp shards of stages": lambda rank: sharded(rank, network("patchwise"), "stages"),
    "fsdp shards of blocks": lambda rank: sharded(rank, network(), "blocks"),
}


def main(folder: Path, rank: int, names: list[str]) -> None:
    """Run all cases, or those that are named."""
    torch.set_num_threads(1)
    store = dist.FileStore(str(folder / "store"), RANKS)
    dist.init_process_group("gloo", store=store, rank=rank, world_size=RANKS, timeout=datetime.timedelta(seconds=60))
    for name in names or CASES:
        torch.manual_seed(0)
        found: Found = {}
        try:
            found = CASES[name](rank)
        except Exception as error:
            found = {"error": f"{type(error).__name__}: {error}", "traceback": traceback.format_exc()}
        torch.save(found, folder / f"{name}.{rank}.pt")
        dist.barrier()
    dist.destroy_process_group()


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]), sys.argv[3:])
