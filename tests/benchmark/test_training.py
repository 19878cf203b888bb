"""Training steps: what is frozen, what is computed, and the check of gradients."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

import pytest
import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from sa_layers.benchmark.errors import BenchmarkError
from sa_layers.benchmark.training import FROZEN, TrainingStep, check_gradients, measure_steps, prepare_training

pytest.importorskip("torchvision")

from sa_layers.benchmark.candidates import (  # needs torchvision
    Candidate,
    add_amp,
    add_compiled,
    early_layers,
    make_candidates,
    training_step,
    unfused_version,
)

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def candidates() -> dict[str, Candidate]:
    return make_candidates(10, ["patchwise"], torch.randn(2, 3, 64, 64))


def trained(model: nn.Module) -> set[str]:
    return {name for name, parameter in model.named_parameters() if parameter.requires_grad}


def norms_in_training(model: nn.Module) -> Iterator[bool]:
    return (module.training for module in model.modules() if isinstance(module, _BatchNorm))


@pytest.mark.parametrize("network", ["SAN10 patchwise", "ResNet-26"])
def test_frozen_parts(network: str, candidates: dict[str, Candidate]) -> None:
    model = candidates[network].model
    everything = {name for name, _ in model.named_parameters()}
    early = ("network.stem.", "network.stages.0.", "network.stages.1.", "conv1.", "bn1.", "layer1.")
    for frozen, expected in {
        "norms-and-stage1": {name for name in everything if not name.startswith(early)},
        "norms": everything,
        "nothing": everything,
    }.items():
        prepare_training(model, frozen, early_layers(model))
        assert trained(model) == expected
        assert set(norms_in_training(model)) == {frozen == "nothing"}
        assert model.training


def test_frozen_parts_are_those_of_the_backbone(candidates: dict[str, Candidate]) -> None:
    """By its own arguments frozen_stages and norm_eval."""
    pytest.importorskip("mmpretrain")
    from sa_layers.backbones import SAN

    model = candidates["SAN10 patchwise"].model
    prepare_training(model, "norms-and-stage1", early_layers(model))
    backbone = SAN(10, "patchwise", frozen_stages=1, norm_eval=True).train()
    assert {f"network.{name}" for name in trained(backbone)} == trained(model) - {"head.weight", "head.bias"}


@pytest.mark.parametrize("frozen", FROZEN)
def test_a_step_computes_the_gradients_of_what_is_trained(frozen: str, candidates: dict[str, Candidate]) -> None:
    candidate = candidates["SAN10 patchwise"]
    step = training_step(candidate, frozen)
    gradients = step.gradients()
    assert len(gradients) == len(trained(candidate.model))
    assert sum(bool(gradient.any()) for gradient in gradients) > len(gradients) * 0.8
    assert all(parameter.grad is None for parameter in candidate.model.parameters())
    before = {name: value.clone() for name, value in candidate.model.named_parameters()}
    step()  # without an optimizer
    assert all(torch.equal(value, before[name]) for name, value in candidate.model.named_parameters())


def test_autocast(candidates: dict[str, Candidate]) -> None:
    candidates = dict(candidates)
    add_amp(candidates)
    assert {name for name in candidates if name.startswith("AMP")} == {
        f"AMP: {name}" for name in candidates if "AMP" not in name and "plain torch" not in name
    }
    amp = candidates["AMP: SAN10 patchwise"]
    assert amp.classify().dtype == torch.bfloat16
    assert {gradient.dtype for gradient in training_step(amp).gradients()} == {torch.float32}
    assert unfused_version("AMP: SAN10 patchwise") in candidates


def test_compiled_networks(candidates: dict[str, Candidate], monkeypatch: pytest.MonkeyPatch) -> None:
    """By a compiler that takes no time."""
    monkeypatch.setattr(torch, "compile", partial(torch.compile, backend="eager"))
    candidates = {name: candidate for name, candidate in candidates.items() if name.startswith("ResNet")}
    add_compiled(candidates)
    assert [*candidates][2:] == ["compiled: ResNet-26", "compiled: ResNet-26, channels last"]
    gradients = [training_step(candidates[f"{compiled}ResNet-26"]).gradients() for compiled in ("", "compiled: ")]
    torch.testing.assert_close(*gradients)


def test_both_phases_are_measured() -> None:
    weight = torch.ones(1000, requires_grad=True)
    steps = {"twice": TrainingStep(lambda: 2 * weight, [weight], torch.ones(1000))}
    torch.testing.assert_close(steps["twice"].gradients(), [torch.full((1000,), 2.0)])
    timings, rows = measure_steps(steps, CPU, seconds=0, min_rounds=3)
    assert timings["twice"].rounds == 3
    row = rows["twice"]
    assert 0 < row["forward_s"] < timings["twice"].median
    assert 0 < row["backward_s"] < timings["twice"].median
    assert 2 * weight.nbytes <= row["peak_bytes"] < 2 * weight.nbytes + 100
    assert weight.grad is None


def test_gradients_that_differ_are_rejected() -> None:
    one = [torch.ones(3), torch.ones(2)]
    check_gradients("this", [tensor + 1e-3 for tensor in one], "that", one, 1e-2)
    message = "the gradients of this differ from those of that: the norm of the difference is 0.1 of theirs"
    with pytest.raises(BenchmarkError, match=message):
        check_gradients("this", [tensor + 0.1 for tensor in one], "that", one, 1e-2)
    with pytest.raises(BenchmarkError, match="nan of theirs"):
        check_gradients("this", [tensor * torch.nan for tensor in one], "that", one, float("inf"))
