"""Training steps, a forward and a backward pass, of modules of which nothing or a part is frozen."""

from __future__ import annotations

import argparse
import math
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from .errors import BenchmarkError
from .measure import Timing, time_phases
from .memory import peak_memory, peak_resident_memory
from .report import Column, Row, duration, size

# What is frozen in a training step, and how a table calls it.
FROZEN = {
    "nothing": "batch statistics",
    "norms": "frozen norms",
    "norms-and-stage1": "frozen norms and stage 1",
}
# Rounding puts a few values on the other side of a ReLU, and each of them changes the gradients by much more than the
# rounding. In half precision the gradients of random networks may have nothing in common but that they are finite.
GRADIENT_TOLERANCES = {torch.float64: 1e-9, torch.float32: 2e-2, torch.float16: math.inf, torch.bfloat16: math.inf}
COLUMNS = [Column("forward_s", "forward", duration), Column("backward_s", "backward", duration)]
RESIDENT = Column("peak_resident_bytes", "peak RSS", size)


def add_frozen(parser: argparse.ArgumentParser, choices: Collection[str], default: str | None = None) -> None:
    """Add the option for what is frozen in a training step: one answer with a default, otherwise several."""
    what = {
        "nothing": "nothing",
        "norms": "norms, which use running statistics as with norm_eval=True",
        "norms-and-stage1": "norms, stem and stage 1, as with frozen_stages=1",
    }
    answers, shown = "; ".join(what[choice] for choice in choices), default or "each"
    parser.add_argument(
        "--frozen",
        nargs=None if default else "+",
        choices=choices,
        default=default or [*choices],
        help=f"frozen in a training step: {answers} (default: {shown})",
    )


def prepare_training(model: nn.Module, frozen: str, early_layers: Iterable[nn.Module] = ()) -> None:
    """Set the mode of all modules, and which parameters are trained.

    Args:
        model: The module to train.
        frozen: A key of :data:`FROZEN`. The affine parameters of frozen norms are trained, as in mmdet's detectors.
        early_layers: Stem and stage 1, which 'norms-and-stage1' freezes.

    Example:
        >>> model = nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4))
        >>> prepare_training(model, "norms")
        >>> model.training, model[1].training, model[1].weight.requires_grad
        (True, False, True)
    """
    model.train().requires_grad_(True)
    if frozen != "nothing":
        for module in model.modules():
            if isinstance(module, _BatchNorm):
                module.eval()
    if frozen == "norms-and-stage1":
        for module in early_layers:
            module.eval().requires_grad_(False)


class TrainingStep:
    """A training step without the optimizer, in two phases.

    Args:
        forward: Computes a loss, or an output of which ``grad_output`` is the gradient.
        leaves: Tensors whose gradients are computed.
        grad_output: Gradient of the output; None (default) for a loss.

    Example:
        >>> weight = torch.ones(2, requires_grad=True)
        >>> step = TrainingStep(lambda: (3 * weight).sum(), [weight])
        >>> step()
        >>> step.gradients()
        [tensor([3., 3.])]
    """

    def __init__(
        self, forward: Callable[[], Tensor], leaves: Iterable[Tensor], grad_output: Tensor | None = None
    ) -> None:
        self._forward, self._grad_output = forward, grad_output
        self._leaves = [leaf for leaf in leaves if leaf.requires_grad]
        self._output: Tensor | None = None

    def forward(self) -> None:
        """Compute the loss and keep it for the backward pass."""
        self._output = self._forward()

    def backward(self) -> None:
        """Compute all gradients and release them at the end, so that they count towards the peak memory of a step."""
        self._compute_gradients()
        self._release()

    def __call__(self) -> None:
        """Do the whole step."""
        self.forward()
        self.backward()

    def gradients(self) -> list[Tensor]:
        """Do the whole step and return the gradients of all leaves."""
        self.forward()
        self._compute_gradients()
        gradients = [torch.zeros_like(leaf) if leaf.grad is None else leaf.grad for leaf in self._leaves]
        self._release()
        return gradients

    def _compute_gradients(self) -> None:
        assert self._output is not None
        self._output.backward(self._grad_output)
        self._output = None

    def _release(self) -> None:
        for leaf in self._leaves:
            leaf.grad = None


def check_gradients(
    name: str, gradients: list[Tensor], expected_name: str, expected: list[Tensor], tolerance: float
) -> None:
    """Check that all gradients of two implementations agree as a whole.

    Raises:
        BenchmarkError: If the norm of the difference, relative to the norm of the gradients, exceeds the tolerance or
            is NaN.

    Example:
        >>> check_gradients("this", [torch.ones(2)], "that", [torch.ones(2)], 1e-9)
    """
    found, wanted = (torch.cat([tensor.double().flatten() for tensor in each]) for each in (gradients, expected))
    difference = ((found - wanted).norm() / wanted.norm()).item()
    if not difference <= tolerance:  # also catches NaN
        raise BenchmarkError(
            f"the gradients of {name} differ from those of {expected_name}: the norm of the difference is "
            f"{difference:.2g} of theirs"
        )


def measure_steps(
    steps: Mapping[str, TrainingStep], device: torch.device, *, seconds: float, min_rounds: int
) -> tuple[dict[str, Timing], dict[str, Row]]:
    """Return for each step the timing of both phases together, and the values of a row."""
    for step in steps.values():
        step()  # compilation does not count as memory
    rows: dict[str, Row] = {
        name: {
            "peak_bytes": peak_memory(step, device),
            "peak_resident_bytes": peak_resident_memory(step, device),
        }
        for name, step in steps.items()
    }
    phases = {name: (step.forward, step.backward) for name, step in steps.items()}
    timings: dict[str, Timing] = {}
    for name, both in time_phases(phases, device, seconds=seconds, min_rounds=min_rounds).items():
        timings[name] = Timing(tuple(map(sum, zip(*(timing.means for timing in both), strict=True))))
        rows[name] |= {"forward_s": both[0].median, "backward_s": both[1].median}
    return timings, rows


def notes(device: torch.device, frozen: Collection[str]) -> Iterator[str]:
    """Yield explanations of the tables of training steps."""
    yield "training step: forward and backward pass, without the optimizer. Its time is the median of their sums."
    if "norms" in frozen:
        yield "frozen norms: norms use running statistics, as with norm_eval=True; their parameters are trained."
    if "norms-and-stage1" in frozen:
        yield "frozen norms and stage 1: nothing up to stage 1 is trained either, as with frozen_stages=1."
    if device.type == "cpu":
        yield "peak memory of a step: the tensors that exist at once, the same in every run."
        yield "peak RSS: what the process takes from the system, with the workspaces of libraries and gaps in the heap."
