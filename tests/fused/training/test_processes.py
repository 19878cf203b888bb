"""Two processes that train together compute what one process does: DDP, SyncBatchNorm and both kinds of FSDP."""

from __future__ import annotations

import copy
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from sa_layers.ops import extension
from tests.conftest import MakeOnce

from . import ranks
from .conftest import FUSED_TRAINING
from .step import difference, plain_torch

Found = dict[str, Any]


@pytest.fixture(scope="module")
def results(make_once: MakeOnce, repository: Path) -> Path:
    """What both ranks found in all cases, which one pair of processes runs one after the other."""

    def run(folder: Path) -> None:
        command = [sys.executable, "-m", "tests.fused.training.ranks", str(folder)]
        processes = [
            subprocess.Popen(
                [*command, str(rank)], cwd=repository, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
            )
            for rank in range(ranks.RANKS)
        ]
        try:
            texts = [process.communicate(timeout=400)[0] for process in processes]
        finally:
            for process in processes:
                process.kill()
        (folder / "output.txt").write_text("\n".join(texts))

    return make_once("training_ranks", run)


def load(results: Path, name: str) -> list[Found]:
    """The answers of both ranks; a rank that wrote none has ended or waits for the other."""
    answers = []
    for rank in range(ranks.RANKS):
        path = results / f"{name}.{rank}.pt"
        if not path.exists():
            pytest.fail(f"rank {rank} has no answer:\n{(results / 'output.txt').read_text()[-3000:]}")
        answers.append(torch.load(path, weights_only=False))
    return answers


def check(results: Path, name: str, expected: list[nn.Module], losses: list[list[Tensor]], *, fused: bool) -> None:
    """States and losses of the ranks are those of one process that simulates each."""
    start = ranks.network("patchwise" if "patchwise" in name else "pairwise").state_dict()
    for answer, module, wanted in zip(load(results, name), expected, losses, strict=True):
        assert "error" not in answer, answer["traceback"]
        if fused and FUSED_TRAINING and extension.is_available():
            assert answer["why"] is None
        torch.testing.assert_close(answer["losses"], wanted, rtol=1e-9, atol=1e-10)
        state = module.state_dict()
        assert answer["state"].keys() == state.keys()
        for key, value in state.items():
            assert difference(answer["state"][key], value, 0.01) < 1e-9, key
        assert not all(torch.equal(value, start[key.removeprefix("network.")]) for key, value in trained(state).items())


def trained(state: Found) -> Found:
    """The weights of linear layers."""
    return {key: value for key, value in state.items() if value.ndim == 4}


def simulate(
    module: nn.Module, *, accumulate: bool = False, send_buffers: bool = True
) -> tuple[list[nn.Module], list[list[Tensor]]]:
    """Both ranks, one after the other: each has buffers of its own, and gradients are averaged.

    Args:
        module: Is trained as rank 0, and a copy as rank 1.
        accumulate: As of :func:`ranks.train`.
        send_buffers: Whether rank 1 receives the buffers of rank 0 before a step, as with DistributedDataParallel.

    Returns:
        Both modules, and the losses of each.
    """
    copies = [module, copy.deepcopy(module)]
    losses: list[list[Tensor]] = [[], []]
    for step in range(ranks.STEPS):
        for ours, theirs in zip(copies[1].buffers(), copies[0].buffers(), strict=True):
            if send_buffers:
                ours.copy_(theirs)
        for rank, part in enumerate(copies):
            batch = ranks.images(step).chunk(ranks.RANKS)[rank]
            for images in batch.chunk(2) if accumulate else [batch]:
                loss = ranks.loss_of(part(images))
                loss.backward()
            losses[rank].append(loss.detach())
        for first, second in zip(copies[0].parameters(), copies[1].parameters(), strict=True):
            gradients = [parameter.grad for parameter in (first, second) if parameter.grad is not None]
            if gradients:
                mean = torch.stack(gradients).mean(0)
                with torch.no_grad():
                    first -= ranks.RATE * mean
                    second -= ranks.RATE * mean
            first.grad = second.grad = None
    return copies, losses


DDP = {
    "ddp pairwise": {},
    "ddp patchwise": {"attention": "patchwise"},
    "ddp views": {},
    "ddp static": {},
    "ddp recomputation": {},
}


@pytest.mark.parametrize("name", DDP)
def test_ddp(results: Path, name: str) -> None:
    """Hooks of the reducer fire for every parameter, into buckets, in a fixed order, or with recomputed activations."""
    with plain_torch():
        expected = simulate(ranks.network(**DDP[name]))
    check(results, name, *expected, fused=True)


def test_ddp_with_unused_parameters(results: Path) -> None:
    with plain_torch():
        expected = simulate(ranks.Skipping(ranks.network()))
    check(results, "ddp unused", *expected, fused=False)


def test_ddp_with_accumulation(results: Path) -> None:
    """The first half of the images inside ``no_sync``."""
    with plain_torch():
        copies = simulate(ranks.network("patchwise"), accumulate=True)
    check(results, "ddp accumulation", *copies, fused=True)


def whole_batches(module: nn.Module) -> nn.Module:
    """A single process with the images of all ranks."""
    ranks.train(module, None)
    return module


def check_whole(results: Path, name: str, expected: nn.Module) -> None:
    """States of both ranks are those of one process with the whole batch; losses are means of theirs."""
    for answer in load(results, name):
        assert "error" not in answer, answer["traceback"]
        for key, value in expected.state_dict().items():
            assert difference(answer["state"][key], value, 0.01) < 1e-9, key


@pytest.mark.parametrize("name", ["frozen pairwise", "frozen patchwise", "frozen sync"])
def test_frozen_norms(results: Path, name: str) -> None:
    """Images do not depend on one another."""
    with plain_torch():
        expected = whole_batches(ranks.frozen(ranks.network("patchwise" if "patchwise" in name else "pairwise")))
    check_whole(results, name, expected)


@pytest.mark.parametrize("attention", ["pairwise", "patchwise"])
@pytest.mark.parametrize("kind", ["control", "sync"])
def test_synchronised_norms(results: Path, kind: str, attention: str) -> None:
    """Statistics of all ranks; torch's own module has them on GPUs only, and refuses maps on the CPU."""
    name = f"{kind} {attention}"
    if kind == "sync" and not (FUSED_TRAINING and extension.is_available()):
        assert all("expected input tensor to be on GPU" in answer["error"] for answer in load(results, name))
        return
    with plain_torch():
        expected = whole_batches(ranks.network(attention))
    check_whole(results, name, expected)
    if kind == "sync":
        assert all(answer["why"] is None for answer in load(results, name))


FSDP = {
    "fsdp flat": "pairwise",
    "fsdp original parameters": "patchwise",
    "fsdp shards": "pairwise",
    "fsdp shards of stages": "patchwise",
    "fsdp shards of blocks": "pairwise",
}


@pytest.mark.parametrize("name", FSDP)
def test_fsdp(results: Path, name: str) -> None:
    """Parameters that are views of a flat one, or gathered for a call; buffers are those of each rank."""
    with plain_torch():
        expected = simulate(ranks.network(FSDP[name]), send_buffers=False)
    check(results, name, *expected, fused=False)
