"""The choice of a backend: by context, by environment, and what is said when it cannot serve."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch

from sa_layers.ops import BACKENDS, aggregation, backend, extension
from sa_layers.ops.backend import decide, why_not

CPU = torch.device("cpu")
OPERANDS = torch.ones(1, 8, 5, 5), torch.ones(1, 1, 9, 25)
COMPUTE = """
import torch
from sa_layers.ops import aggregation
aggregation(torch.ones(1, 8, 5, 5), torch.ones(1, 1, 9, 25), 3)
"""


def test_contexts_nest_and_end() -> None:
    free = decide(CPU)
    with backend("torch"):
        with backend("reference"):
            assert decide(CPU) == "reference"
            with backend(None):
                assert decide(CPU) == free
        assert decide(CPU) == "torch"
        with pytest.raises(ZeroDivisionError), backend("reference"):
            raise ZeroDivisionError
        assert decide(CPU) == "torch"
    assert decide(CPU) == free


def test_unknown_names() -> None:
    with (
        pytest.raises(ValueError, match="backend must be one of native, torch, reference, got 'cupy'"),
        backend("cupy"),
    ):
        pass


@pytest.mark.parametrize("name", BACKENDS)
def test_chosen_by_environment(run_python: Callable, name: str) -> None:
    if obstacle := why_not(name, CPU):
        pytest.skip(obstacle)
    code = f"{COMPUTE}\nfrom sa_layers.ops.backend import decide\nprint(decide(torch.device('cpu')))"
    assert run_python(code, SA_LAYERS_BACKEND=name).stdout.splitlines()[-1] == name


def test_unknown_environment(run_python: Callable) -> None:
    process = run_python("import sa_layers.ops", check=False, SA_LAYERS_BACKEND="cupy")
    assert process.returncode
    assert "SA_LAYERS_BACKEND must be one of native, torch, reference, got 'cupy'" in process.stdout


def test_the_reference_is_imported_only_on_request(run_python: Callable) -> None:
    code = f"{COMPUTE}\nimport sys\nprint([name for name in ('numba', 'sa_layers.reference') if name in sys.modules])"
    assert run_python(code).stdout.splitlines()[-1] == "[]"
    assert "'sa_layers.reference'" in run_python(code, SA_LAYERS_BACKEND="reference").stdout.splitlines()[-1]


def test_the_reference_without_numba(run_python: Callable) -> None:
    process = run_python(
        f"import sys\nsys.modules['numba'] = None\n{COMPUTE}", check=False, SA_LAYERS_BACKEND="reference"
    )
    last = process.stdout.splitlines()[-1]
    assert last.startswith("RuntimeError: backend 'reference' cannot be used: numba could not be imported")
    assert last.endswith("install it with pip install 'sa-layers[reference]'")


def test_the_reference_on_another_device() -> None:
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
def test_native_on_another_device() -> None:
    with (
        backend("native"),
        pytest.raises(RuntimeError, match=r"backend 'native' cannot be used: .* not built for meta"),
    ):
        aggregation(*(item.to("meta") for item in OPERANDS), 3)


def test_shapes_without_memory() -> None:
    """On torch's meta device, where models are planned before they are allocated."""
    assert aggregation(*(item.to("meta") for item in OPERANDS), 3).shape == (1, 8, 5, 5)


def test_exported_programs_are_plain_torch() -> None:
    class Aggregation(torch.nn.Module):
        def forward(self, value: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
            return aggregation(value, weight, 3)

    program = torch.export.export(Aggregation(), OPERANDS)
    assert not any("sa_layers" in str(node.target) for node in program.graph.nodes)
    torch.testing.assert_close(program.module()(*OPERANDS), aggregation(*OPERANDS, 3))
