"""The choice of a backend, by context and by environment, and the errors where it cannot be used."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch

from sa_layers.ops import BACKENDS, aggregation, backend, extension
from sa_layers.ops.backend import decide, why_not

CPU = torch.device("cpu")
OPERANDS = torch.ones(1, 8, 5, 5), torch.ones(1, 1, 9, 25)
# Prints the chosen backend and which of two modules were imported, or the error.
PROGRAM = """
import os, sys
os.environ |= {environment}
sys.modules |= {modules}
try:
    import torch
    from sa_layers.ops import aggregation
    from sa_layers.ops.backend import decide
    aggregation(torch.ones(1, 8, 5, 5), torch.ones(1, 1, 9, 25), 3)
    print(decide(torch.device("cpu")), *(name for name in ("numba", "sa_layers.reference") if name in sys.modules))
except (RuntimeError, ValueError) as error:
    print(error)
"""


def test_contexts_nest_and_restore() -> None:
    default = decide(CPU)
    with backend("torch"):
        with backend("reference"):
            assert decide(CPU) == "reference"
            with backend(None):
                assert decide(CPU) == default
        assert decide(CPU) == "torch"
        with pytest.raises(ZeroDivisionError), backend("reference"):
            raise ZeroDivisionError
        assert decide(CPU) == "torch"
    assert decide(CPU) == default


def test_refuses_unknown_names() -> None:
    with (
        pytest.raises(ValueError, match="backend must be one of native, torch, reference, got 'cupy'"),
        backend("cupy"),
    ):
        pass


def test_choice_by_environment(run_programs: Callable[..., dict[str, str]]) -> None:
    """The reference is imported on request only."""

    def program(name: str | None, **modules: None) -> str:
        return PROGRAM.format(environment={} if name is None else {"SA_LAYERS_BACKEND": name}, modules=modules)

    available = [name for name in BACKENDS if why_not(name, CPU) is None]
    programs = {name: program(name) for name in [*available, "cupy"]}
    printed = run_programs(programs | {"default": program(None), "no numba": program("reference", numba=None)})
    last = {name: text.splitlines()[-1] for name, text in printed.items()}
    assert last["reference"] == "reference numba sa_layers.reference"
    assert [last[name] for name in available if name != "reference"] == [n for n in available if n != "reference"]
    assert last["default"] == available[0]
    assert last["cupy"] == "SA_LAYERS_BACKEND must be one of native, torch, reference, got 'cupy'"
    assert last["no numba"].startswith("backend 'reference' cannot be used: numba could not be imported")
    assert last["no numba"].endswith("install it with pip install 'sa-layers[reference]'")


def test_refuses_the_reference_on_another_device() -> None:
    message = (
        r"backend 'reference' cannot be used: .* NumPy arrays, and the tensors are on meta; move them with .cpu\(\)"
    )
    with backend("reference"), pytest.raises(RuntimeError, match=message):
        aggregation(*(item.to("meta") for item in OPERANDS), 3)


def test_the_reference_is_not_compiled() -> None:
    compiled = torch.compile(lambda *operands: aggregation(*operands, 3), fullgraph=True, backend="eager")
    with backend("reference"), pytest.raises(Exception, match="NumPy arrays, which torch cannot compile or export"):
        compiled(*OPERANDS)


def test_the_reference_is_differentiated_once() -> None:
    value, weight = (item.clone().requires_grad_() for item in OPERANDS)
    with backend("reference"):
        (gradient,) = torch.autograd.grad(aggregation(value, weight, 3).square().sum(), value, create_graph=True)
        with pytest.raises(RuntimeError, match="differentiate twice"):
            gradient.sum().backward()


@pytest.mark.skipif(not extension.is_available(), reason=str(extension.why_not()))
def test_refuses_native_kernels_on_another_device() -> None:
    with (
        backend("native"),
        pytest.raises(RuntimeError, match=r"backend 'native' cannot be used: .* not built for meta"),
    ):
        aggregation(*(item.to("meta") for item in OPERANDS), 3)


def test_meta_tensors() -> None:
    assert aggregation(*(item.to("meta") for item in OPERANDS), 3).shape == (1, 8, 5, 5)


def test_exported_programs_are_plain_torch() -> None:
    class Aggregation(torch.nn.Module):
        def forward(self, value: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
            return aggregation(value, weight, 3)

    program = torch.export.export(Aggregation(), OPERANDS)
    assert not any("sa_layers" in str(node.target) for node in program.graph.nodes)
    torch.testing.assert_close(program.module()(*OPERANDS), aggregation(*OPERANDS, 3))
