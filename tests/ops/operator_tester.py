"""What every operator must have. A test file an operator inherits it, with the operator's name and arguments."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch._dynamo.testing import CompileCounterWithBackend

from sa_layers import ops, reference

from .problem import CORNERS, LAYOUTS, Problem, arguments, lay_out, problems

Options = dict[str, str]
# Relative to the largest number.
TOLERANCES = {torch.float64: 1e-11, torch.float32: 1e-5, torch.float16: 5e-3, torch.bfloat16: 4e-2}

# Derandomised, so that two runs test the same; without a deadline, because the first example compiles the reference.
# Several testers inherit one test, and a place is set up once for all examples: both are meant.
some_examples = settings(
    max_examples=15,
    deadline=None,
    derandomize=True,
    database=None,
    suppress_health_check=[
        HealthCheck.differing_executors,
        HealthCheck.function_scoped_fixture,
        HealthCheck.too_slow,
        HealthCheck.data_too_large,
    ],
)


class OperatorTester:
    """The tests of one operator: agreement with the reference, derivatives, registration, transforms, refusals."""

    name: str
    """The operator's, in ``sa_layers.ops`` and in ``sa_layers.reference``."""
    options: tuple[Options, ...] = ({},)
    """What distinguishes its forms, such as the relation."""
    kernel_sizes: tuple[int, ...] = (1, 3, 5, 7)

    def operands(self, problem: Problem) -> tuple[Tensor, Tensor]:
        """Its tensors for a problem, float64 on the CPU."""
        raise NotImplementedError

    def linear_in(self, options: Options) -> tuple[tuple[int, ...], ...]:
        """Sets of operands in which it is linear while the others are kept; each gives an adjoint identity."""
        raise NotImplementedError

    def schemas(self, problem: Problem, device: torch.device, options: Options) -> dict[str, tuple]:
        """Arguments for every operator of the extension that it is made of."""
        raise NotImplementedError

    def function(self, problem: Problem, options: Options) -> Callable[..., Tensor]:
        """It, as a function of tensors."""
        operator = getattr(ops, self.name)
        return lambda *tensors: operator(*tensors, **problem.arguments, **options)

    def place_operands(
        self, problem: Problem, device: torch.device, dtype: torch.dtype = torch.float64
    ) -> tuple[Tensor, ...]:
        """Its tensors there, asking for gradients."""
        return tuple(item.to(device, dtype).requires_grad_() for item in self.operands(problem))

    def check(self, problem: Problem, options: Options, operands: tuple[Tensor, ...], grad_layout: str) -> None:
        """Compares output and gradients with the reference's."""
        operands = tuple(item.detach().requires_grad_() for item in operands)
        output = self.function(problem, options)(*operands)
        grad = lay_out(problem.normal(*output.shape).to(output), grad_layout)
        results = (output, *torch.autograd.grad(output, operands, grad))
        arrays = [item.detach().cpu().double().numpy() for item in (grad, *operands)]
        expected = [getattr(reference, self.name)(*arrays[1:], **problem.arguments, **options)]
        expected += getattr(reference, f"{self.name}_backward")(*arrays, **problem.arguments, **options)
        for result, array in zip(results, expected, strict=True):
            wanted = torch.from_numpy(array)
            scale = max(1.0, wanted.abs().max().item()) if wanted.numel() else 1.0
            assert result.dtype == operands[0].dtype
            assert result.device == operands[0].device
            found = result.detach().cpu().double()
            torch.testing.assert_close(found, wanted, rtol=0, atol=TOLERANCES[result.dtype] * scale)

    @given(data=st.data())
    @some_examples
    def test_agrees_with_reference(self, place: torch.device, options: Options, data: st.DataObject) -> None:
        problem = data.draw(problems(self.kernel_sizes))
        *layouts, grad_layout = data.draw(st.tuples(*[st.sampled_from(LAYOUTS)] * 3))
        operands = [item.to(place) for item in self.operands(problem)]
        operands = [lay_out(item, layout) for item, layout in zip(operands, layouts, strict=True)]
        self.check(problem, options, tuple(operands), grad_layout)

    @pytest.mark.parametrize("padding_mode", ops.PADDING_MODES)
    @pytest.mark.parametrize("problem", CORNERS, ids=str)
    def test_corners(self, place: torch.device, options: Options, problem: Problem, padding_mode: str) -> None:
        problem = problem._replace(arguments=problem.arguments | {"padding_mode": padding_mode})
        self.check(problem, options, self.place_operands(problem, place), "contiguous")

    @pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16], ids=str)
    def test_dtypes(self, place: torch.device, options: Options, dtype: torch.dtype) -> None:
        for problem in CORNERS[1], CORNERS[6]:
            self.check(problem, options, self.place_operands(problem, place, dtype), "contiguous")

    @pytest.mark.parametrize("layout", LAYOUTS)
    def test_layouts_do_not_matter(self, place: torch.device, options: Options, layout: str) -> None:
        """To the bit, forward and backward, and what comes out is contiguous as the fake kernels promise."""
        function, results = self.function(CORNERS[6], options), []
        for contiguous in (False, True):
            operands = [lay_out(item.to(place), layout) for item in self.operands(CORNERS[6])]
            operands = [(item.contiguous() if contiguous else item).requires_grad_() for item in operands]
            output = function(*operands)
            grad = lay_out(CORNERS[6].normal(*output.shape).to(place), layout)
            results.append([output, *torch.autograd.grad(output, operands, grad.contiguous() if contiguous else grad)])
        for strided, plain in zip(*results, strict=True):
            torch.testing.assert_close(strided, plain, rtol=1e-13, atol=1e-13)

    def test_adjoint_identities(self, place: torch.device, options: Options) -> None:
        """Where f is linear, <f(x), g> = <x, gradient of x>: checks gradients without finite differences."""
        for problem in CORNERS:
            operands = self.place_operands(problem, place)
            output = self.function(problem, options)(*operands)
            grad = problem.normal(*output.shape).to(place)
            gradients = torch.autograd.grad(output, operands, grad)
            for group in self.linear_in(options):
                inner = sum((operands[index] * gradients[index]).sum() for index in group)
                torch.testing.assert_close((output * grad).sum(), inner, rtol=1e-10, atol=1e-10)

    @pytest.mark.backends("native", "torch")
    @pytest.mark.parametrize("padding_mode", ops.PADDING_MODES)
    def test_derivatives_of_both_orders(self, place: torch.device, options: Options, padding_mode: str) -> None:
        problem = Problem(1, 1, 2, (2, 3), arguments(3, (2, 1), padding_mode=padding_mode))
        function, operands = self.function(problem, options), self.place_operands(problem, place)
        assert torch.autograd.gradcheck(function, operands)
        assert torch.autograd.gradgradcheck(function, operands)

    @pytest.mark.backends("native")
    def test_registration(self, place: torch.device, options: Options) -> None:
        """Schema, autograd, fake kernel with its strides, and tracing with symbolic shapes, of every operator."""
        calls = self.schemas(Problem(2, 2, 2, (5, 4), arguments(3, 2)), place, options)
        registered = {schema.name.removeprefix("sa_layers::") for schema in torch._C._jit_get_all_schemas()}
        assert set(calls) == {name for name in registered if name == self.name or name.startswith(f"{self.name}_")}
        for name, inputs in calls.items():
            torch.library.opcheck(getattr(torch.ops.sa_layers, name).default, inputs)

    @pytest.mark.backends("torch")
    def test_traces_without_a_break(self, place: torch.device, options: Options) -> None:
        torch.compiler.reset()
        function, operands = self.function(CORNERS[0], options), self.place_operands(CORNERS[0], place)
        compiled = torch.compile(function, fullgraph=True, backend="eager", dynamic=True)
        outputs = [item(*operands) for item in (compiled, function)]
        torch.testing.assert_close(*outputs)
        torch.testing.assert_close(*(torch.autograd.grad(item.square().sum(), operands) for item in outputs))

    @pytest.mark.backends("native")
    def test_compiles_once_for_all_shapes(self, place: torch.device, options: Options) -> None:
        """Without a graph break; the gradients too."""
        counter = CompileCounterWithBackend("aot_eager")
        torch.compiler.reset()
        compiled: Any = None
        for size in (6, 7), (9, 8), (5, 12):
            problem = Problem(size[0] - 3, 2, 2, size, arguments(3))
            function, operands = self.function(problem, options), self.place_operands(problem, place)
            compiled = compiled or torch.compile(function, fullgraph=True, backend=counter, dynamic=True)
            outputs = [item(*operands) for item in (compiled, function)]
            gradients = [torch.autograd.grad(item.square().sum(), operands) for item in outputs]
            torch.testing.assert_close(*outputs)
            torch.testing.assert_close(*gradients)
        assert counter.frame_count == 1

    @pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
    def test_autocast_takes_mixed_dtypes(self, place: torch.device, options: Options, dtype: torch.dtype) -> None:
        """As AMP hands them over: one operand of a convolution, in half precision, one of a softmax, in float32."""
        problem = CORNERS[1]
        function, (first, second) = self.function(problem, options), self.place_operands(problem, place, torch.float32)
        for operands in (first.detach().to(dtype).requires_grad_(), second), (first, second.detach().to(dtype)):
            with torch.autocast(place.type, dtype):
                output = function(*operands)
            assert output.dtype == dtype
            assert torch.equal(output, function(*(item.detach().to(dtype) for item in operands)))
            asking = [item for item in operands if item.requires_grad]
            gradients = torch.autograd.grad(output.float().sum(), asking)
            assert [item.dtype for item in gradients] == [item.dtype for item in asking]
        with torch.autocast(place.type, dtype):
            assert function(first.detach().double(), second.detach().double()).dtype == torch.float64
        with pytest.raises(TypeError, match="must have one dtype"):
            function(first.detach().to(dtype), second)

    @pytest.mark.backends("native", "torch")
    @pytest.mark.filterwarnings("error")  # the slow way around a missing rule warns
    def test_function_transforms(self, place: torch.device, options: Options) -> None:
        problem = CORNERS[1]
        function = self.function(problem, options)
        first, second = (item.detach() for item in self.place_operands(problem, place))
        one, two = torch.stack([first, -first]), torch.stack([second, 2 * second], dim=1)
        in_turn = torch.stack([function(one[index], two[:, index]) for index in range(2)])
        torch.testing.assert_close(torch.vmap(function, in_dims=(0, 1))(one, two), in_turn)
        torch.testing.assert_close(torch.vmap(function, in_dims=(None, 1))(first, two)[0], in_turn[0])
        torch.testing.assert_close(torch.vmap(function, in_dims=(0, None))(one, second)[0], in_turn[0])

        def loss(first: Tensor, second: Tensor) -> Tensor:
            return function(first, second).square().sum()

        def gradients(first: Tensor, second: Tensor) -> tuple[Tensor, ...]:
            operands = (first.clone().requires_grad_(), second.clone().requires_grad_())
            return torch.autograd.grad(loss(*operands), operands)

        for argnums in (0, 1):
            wanted = [gradients(one[index], two[:, index])[argnums] for index in range(2)]
            torch.testing.assert_close(torch.func.grad(loss, argnums)(first, second), wanted[0])
            per_sample = torch.vmap(torch.func.grad(loss, argnums), in_dims=(0, 1))(one, two)
            torch.testing.assert_close(per_sample, torch.stack(wanted))

    @pytest.mark.backends("native", "torch")
    def test_forward_mode(self, place: torch.device, options: Options) -> None:
        """Directional derivatives, and second derivatives by forward over reverse."""
        problem = Problem(1, 1, 2, (2, 3), arguments(3, (2, 1)))
        function, operands = self.function(problem, options), self.place_operands(problem, place)
        assert torch.autograd.gradcheck(function, operands, check_forward_ad=True, check_backward_ad=False)

        def loss(*operands: Tensor) -> Tensor:
            return function(*operands).sin().sum()

        for argnums in (0, 1):
            gradient = torch.func.grad(loss, argnums)
            twice = [mode(gradient, 1 - argnums)(*operands) for mode in (torch.func.jacfwd, torch.func.jacrev)]
            torch.testing.assert_close(*twice)

    @pytest.mark.backends("native", "torch")
    def test_is_deterministic(self, place: torch.device, options: Options) -> None:
        """To the bit, also where torch is told to allow nothing else."""
        problem = Problem(2, 8, 4, (20, 17), arguments(5))
        function, operands = self.function(problem, options), self.place_operands(problem, place, torch.float32)
        runs = []
        torch.use_deterministic_algorithms(True)
        try:
            for _ in range(3):
                output = function(*operands)
                runs.append([output, *torch.autograd.grad(output.square().sum(), operands)])
        finally:
            torch.use_deterministic_algorithms(False)
        assert all(torch.equal(one, other) for run in runs[1:] for one, other in zip(runs[0], run, strict=True))

    @pytest.mark.backends("native")
    def test_threads_agree_to_the_bit(self, place: torch.device, options: Options) -> None:
        problem = Problem(2, 8, 8, (14, 14), arguments(5))
        function, operands = self.function(problem, options), self.place_operands(problem, place, torch.float32)
        before, results = torch.get_num_threads(), []
        try:
            for threads in (1, 2):
                torch.set_num_threads(threads)
                output = function(*operands)
                results.append([output, *torch.autograd.grad(output.square().sum(), operands)])
        finally:
            torch.set_num_threads(before)
        assert all(torch.equal(one, two) for one, two in zip(*results, strict=True))

    @pytest.mark.parametrize(
        ("changes", "error", "message"),
        [
            ({"kernel_size": 4}, ValueError, "kernel_size must be odd, or there is no centre tap, got 4"),
            ({"kernel_size": (3, 2)}, ValueError, r"kernel_size must be odd, or there is no centre tap, got \(3, 2\)"),
            ({"kernel_size": 3.0}, TypeError, "kernel_size must be an integer or a pair of integers, got 3.0"),
            ({"kernel_size": (3, 3, 3)}, TypeError, "kernel_size must be an integer or a pair of integers, got"),
            ({"stride": 0}, ValueError, "stride must be at least 1, got 0"),
            ({"dilation": (1, -1)}, ValueError, r"dilation must be at least 1, got \(1, -1\)"),
            ({"padding_mode": "circular"}, ValueError, "padding_mode must be one of reflect, zeros, got 'circular'"),
        ],
    )
    def test_refuses_footprints(self, changes: dict, error: type[Exception], message: str) -> None:
        operands = self.operands(CORNERS[0])
        with pytest.raises(error, match=message):
            getattr(ops, self.name)(*operands, **CORNERS[0].arguments | changes)

    def refuses(self, error: type[Exception], message: str, *operands: Any, **options: str) -> None:
        """Checks that these operands, for the first corner, are refused in these words."""
        with pytest.raises(error, match=message):
            getattr(ops, self.name)(*operands, **CORNERS[0].arguments, **options)

    def refuses_tensors(self, first_name: str, second_name: str) -> None:
        """What every operator says of tensors that are none, of a wrong dtype, shape or device."""
        first, second = self.operands(CORNERS[0])
        self.refuses(TypeError, f"{first_name} must be a tensor, got list", [1.0], second)
        self.refuses(TypeError, f"{second_name} must be a tensor, got list", first, [1.0])
        self.refuses(TypeError, f"{first_name} must be float64, .* got torch.int64", first.long(), second)
        self.refuses(ValueError, rf"{first_name} must have the shape \(N, C, H, W\), got \(4, 6, 7\)", first[0], second)
        self.refuses(
            ValueError, f"{first_name} must have at least one channel and one pixel, got", first[:, :0], second
        )
        words = f"{first_name} and {second_name} must"
        self.refuses(TypeError, f"{words} have one dtype, got torch.float32 and torch.float64", first.float(), second)
        self.refuses(ValueError, f"{words} be on one device, got cpu and meta", first, second.to("meta"))
