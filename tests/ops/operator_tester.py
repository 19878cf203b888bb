"""The tests of every operator. Each operator's test file derives a class from `OperatorTester`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from torch import Tensor
from torch._dynamo.testing import CompileCounterWithBackend

from sa_layers import ops, reference

from .problem import CORNERS, LAYOUTS, Problem, arguments, lay_out, problems

Options = dict[str, Any]
# Relative to the largest expected number.
TOLERANCES = {torch.float64: 1e-11, torch.float32: 1e-5, torch.float16: 5e-3, torch.bfloat16: 4e-2}

# Derandomised, so that two runs test the same; without a deadline, because the first example compiles the reference.
# The two suppressed health checks are about a test that several classes inherit, and a fixture shared by all examples.
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
    """The name of the operator in ``sa_layers.ops`` and in ``sa_layers.reference``."""
    options: tuple[Options, ...] = ({},)
    """The variants of the operator, such as its relations."""
    kernel_sizes: tuple[int, ...] = (1, 3, 5, 7)
    padding_modes: tuple[str, ...] = ops.PADDING_MODES
    autocast_tolerance: float = 0
    """How much autocast may differ from operands that are rounded in advance, relative to the largest number."""

    def operands(self, problem: Problem) -> tuple[Tensor, ...]:
        """Its tensors for a problem, float64 on the CPU."""
        raise NotImplementedError

    def linear_in(self, options: Options) -> tuple[tuple[int, ...], ...]:
        """Sets of operands in which it is linear while the others are fixed; each gives an adjoint identity."""
        raise NotImplementedError

    def schemas(self, problem: Problem, device: torch.device, options: Options) -> dict[str, tuple]:
        """Arguments for each operator of the extension that it calls; a last dict holds keyword arguments."""
        raise NotImplementedError

    def function(self, problem: Problem, options: Options) -> Callable[..., Tensor]:
        """The operator as a function of its operands."""
        operator = getattr(ops, self.name)
        return lambda *tensors: operator(*tensors, **problem.arguments, **options)

    def expected(self, problem: Problem, options: Options, operands: list[NDArray]) -> NDArray:
        """The output according to the reference."""
        return getattr(reference, self.name)(*operands, **problem.arguments, **options)

    def expected_gradients(
        self, problem: Problem, options: Options, grad: NDArray, operands: list[NDArray]
    ) -> tuple[NDArray, ...]:
        """The gradients of the operands according to the reference."""
        return getattr(reference, f"{self.name}_backward")(grad, *operands, **problem.arguments, **options)

    def place_operands(
        self, problem: Problem, device: torch.device, dtype: torch.dtype = torch.float64
    ) -> tuple[Tensor, ...]:
        """Its operands on a device, requiring gradients."""
        return tuple(item.to(device, dtype).requires_grad_() for item in self.operands(problem))

    def check(self, problem: Problem, options: Options, operands: tuple[Tensor, ...], grad_layout: str) -> None:
        """Compares the output and the gradients with the reference's."""
        operands = tuple(item.detach().requires_grad_() for item in operands)
        output = self.function(problem, options)(*operands)
        grad = lay_out(problem.normal(*output.shape).to(output), grad_layout)
        gradients = torch.autograd.grad(output, operands, grad)
        grad_array, *arrays = [item.detach().cpu().double().numpy() for item in (grad, *operands)]
        self.compare(output, operands[0], self.expected(problem, options, arrays))
        for gradient, operand, array in zip(
            gradients, operands, self.expected_gradients(problem, options, grad_array, arrays), strict=True
        ):
            self.compare(gradient, operand, array)

    def compare(self, result: Tensor, like: Tensor, array: NDArray) -> None:
        """Checks a result, which must have the dtype and the device of ``like``."""
        expected = torch.from_numpy(array)
        scale = max(1.0, expected.abs().max().item()) if expected.numel() else 1.0
        assert result.dtype == like.dtype
        assert result.device == like.device
        found = result.detach().cpu().double()
        torch.testing.assert_close(found, expected, rtol=0, atol=TOLERANCES[result.dtype] * scale)

    @given(data=st.data())
    @some_examples
    def test_agrees_with_reference(self, place: torch.device, options: Options, data: st.DataObject) -> None:
        problem = data.draw(problems(self.kernel_sizes, self.padding_modes))
        operands = [item.to(place) for item in self.operands(problem)]
        *layouts, grad_layout = data.draw(st.tuples(*[st.sampled_from(LAYOUTS)] * (len(operands) + 1)))
        operands = [lay_out(item, layout) for item, layout in zip(operands, layouts, strict=True)]
        self.check(problem, options, tuple(operands), grad_layout)

    @pytest.mark.parametrize("padding_mode", ops.ALL_PADDING_MODES)
    @pytest.mark.parametrize("problem", CORNERS, ids=str)
    def test_corners(self, place: torch.device, options: Options, problem: Problem, padding_mode: str) -> None:
        if padding_mode not in self.padding_modes:
            pytest.skip(f"{self.name} has no padding mode {padding_mode!r}")
        problem = problem.with_padding_mode(padding_mode)
        self.check(problem, options, self.place_operands(problem, place), "contiguous")

    @pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16], ids=str)
    def test_dtypes(self, place: torch.device, options: Options, dtype: torch.dtype) -> None:
        for problem in CORNERS[1], CORNERS[6]:
            self.check(problem, options, self.place_operands(problem, place, dtype), "contiguous")

    @pytest.mark.parametrize("layout", LAYOUTS)
    def test_layouts_do_not_matter(self, place: torch.device, options: Options, layout: str) -> None:
        """Forward or backward, up to the order of a sum."""
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
        """Where f is linear, <f(x), g> = <x, gradient of x>: a check of gradients without finite differences."""
        for problem in CORNERS:
            operands = self.place_operands(problem, place)
            output = self.function(problem, options)(*operands)
            grad = problem.normal(*output.shape).to(place)
            gradients = torch.autograd.grad(output, operands, grad)
            for group in self.linear_in(options):
                inner = sum((operands[index] * gradients[index]).sum() for index in group)
                torch.testing.assert_close((output * grad).sum(), inner, rtol=1e-10, atol=1e-10)

    @pytest.mark.variants(3)
    @pytest.mark.backends("native", "torch")
    @pytest.mark.parametrize("padding_mode", ops.PADDING_MODES)
    def test_derivatives_of_both_orders(self, place: torch.device, options: Options, padding_mode: str) -> None:
        problem = Problem(1, 1, 2, (2, 3), arguments(3, (2, 1), padding_mode=padding_mode))
        function, operands = self.function(problem, options), self.place_operands(problem, place)
        assert torch.autograd.gradcheck(function, operands)
        assert torch.autograd.gradgradcheck(function, operands)

    @pytest.mark.variants(3)
    @pytest.mark.backends("native")
    def test_registration(self, place: torch.device, options: Options) -> None:
        """Schema, autograd, fake kernel with its strides, and tracing with symbolic shapes."""
        calls = self.schemas(Problem(2, 2, 2, (5, 4), arguments(3, 2)), place, options)
        registered = {schema.name.removeprefix("sa_layers::") for schema in torch._C._jit_get_all_schemas()}
        gradients = {name for name in registered if name.startswith(self.name) and name.endswith("_gradient")}
        assert set(calls) == registered & {self.name} | gradients
        for name, inputs in calls.items():
            *inputs, keywords = inputs if isinstance(inputs[-1], dict) else (*inputs, {})
            torch.library.opcheck(getattr(torch.ops.sa_layers, name).default, tuple(inputs), keywords)

    @pytest.mark.variants(1)
    @pytest.mark.backends("torch")
    def test_traces_without_a_graph_break(self, place: torch.device, options: Options) -> None:
        torch.compiler.reset()
        function, operands = self.function(CORNERS[0], options), self.place_operands(CORNERS[0], place)
        compiled = torch.compile(function, fullgraph=True, backend="eager", dynamic=True)
        outputs = [item(*operands) for item in (compiled, function)]
        torch.testing.assert_close(*outputs)
        torch.testing.assert_close(*(torch.autograd.grad(item.square().sum(), operands) for item in outputs))

    @pytest.mark.variants(1)
    @pytest.mark.backends("native")
    def test_compiles_once_for_all_shapes(self, place: torch.device, options: Options) -> None:
        """Without a graph break; the gradients too."""
        counter = CompileCounterWithBackend("aot_eager")
        torch.compiler.reset()
        compiled: Any = None
        # torch takes sizes that are equal in the first call for one size: 11, 13 and 14 are those of no parameter
        for size in (13, 14), (9, 8), (5, 12):
            problem = Problem(size[0] - 2, 2, 2, size, arguments(3))
            function, operands = self.function(problem, options), self.place_operands(problem, place)
            compiled = compiled or torch.compile(function, fullgraph=True, backend=counter, dynamic=True)
            outputs = [item(*operands) for item in (compiled, function)]
            gradients = [torch.autograd.grad(item.square().sum(), operands) for item in outputs]
            torch.testing.assert_close(*outputs)
            torch.testing.assert_close(*gradients)
        assert counter.frame_count == 1

    @pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
    def test_autocast_takes_mixed_dtypes(self, place: torch.device, options: Options, dtype: torch.dtype) -> None:
        """As under AMP: one operand from a convolution, in half precision, the others from a softmax, in float32."""
        problem = CORNERS[1]
        function, operands = self.function(problem, options), self.place_operands(problem, place, torch.float32)
        first, *others = (item.detach() for item in operands)
        for mixed in (
            (first.to(dtype).requires_grad_(), *(item.clone().requires_grad_() for item in others)),
            (first.clone().requires_grad_(), *(item.to(dtype) for item in others)),
        ):
            with torch.autocast(place.type, dtype):
                output = function(*mixed)
            assert output.dtype == dtype
            rounded = function(*(item.to(dtype) for item in mixed))
            tolerance = self.autocast_tolerance * max(1.0, rounded.abs().max().item())
            torch.testing.assert_close(output, rounded, rtol=0, atol=tolerance)
            required = [item for item in mixed if item.requires_grad]
            gradients = torch.autograd.grad(output.float().sum(), required)
            assert [item.dtype for item in gradients] == [item.dtype for item in required]
        with torch.autocast(place.type, dtype):
            assert function(*(item.detach().double() for item in operands)).dtype == torch.float64
        with pytest.raises(TypeError, match="must have the same dtype"):
            function(first.to(dtype), *others)

    @pytest.mark.variants(3)
    @pytest.mark.backends("native", "torch")
    @pytest.mark.filterwarnings("error")  # torch warns where a rule for vmap is missing
    def test_function_transforms(self, place: torch.device, options: Options) -> None:
        """vmap over any of two operands, in any dimension, and gradients of single samples."""
        problem = CORNERS[1]
        whole = self.function(problem, options)
        first, second, *rest = (item.detach() for item in self.place_operands(problem, place))

        def function(first: Tensor, second: Tensor) -> Tensor:
            return whole(first, second, *rest)

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
            expected = [gradients(one[index], two[:, index])[argnums] for index in range(2)]
            torch.testing.assert_close(torch.func.grad(loss, argnums)(first, second), expected[0])
            per_sample = torch.vmap(torch.func.grad(loss, argnums), in_dims=(0, 1))(one, two)
            torch.testing.assert_close(per_sample, torch.stack(expected))

    @pytest.mark.variants(3)
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
        """To the bit, and torch's deterministic mode raises no error."""
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

    @pytest.mark.variants(3)
    def test_output_may_be_changed_in_place(self, place: torch.device, options: Options) -> None:
        """Before the backward pass, as a convolution's may; an attention that ends with a ReLU keeps its output."""
        options = options | {"epilogue": False} if "epilogue" in options else options
        function, operands = self.function(CORNERS[1], options), self.place_operands(CORNERS[1], place)
        gradients = [
            torch.autograd.grad(change(function(*operands)).square().sum(), operands)
            for change in (lambda output: output.mul_(2).add_(1).relu_(), lambda output: output.mul(2).add(1).relu())
        ]
        assert all(torch.equal(one, other) for one, other in zip(*gradients, strict=True))

    @pytest.mark.backends("native")
    def test_threads_change_no_bit(self, place: torch.device, options: Options) -> None:
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
            ({"kernel_size": 4}, ValueError, "kernel_size must be odd, so that there is a centre tap, got 4"),
            ({"kernel_size": (3, 2)}, ValueError, "kernel_size must be odd, so that there is a centre tap, got"),
            ({"kernel_size": 3.0}, TypeError, "kernel_size must be an integer or a pair of integers, got 3.0"),
            ({"kernel_size": (3, 3, 3)}, TypeError, "kernel_size must be an integer or a pair of integers, got"),
            ({"stride": 0}, ValueError, "stride must be at least 1, got 0"),
            ({"dilation": (1, -1)}, ValueError, r"dilation must be at least 1, got \(1, -1\)"),
        ],
    )
    def test_refuses_footprints(self, changes: dict, error: type[Exception], message: str) -> None:
        with pytest.raises(error, match=message):
            self.call_with(*self.operands(CORNERS[0]), **changes)

    def test_refuses_padding_modes(self) -> None:
        words = f"padding_mode must be one of {', '.join(self.padding_modes)}, got 'circular'"
        self.refuses(ValueError, words, *self.operands(CORNERS[0]), padding_mode="circular")
        if "clamp" in self.padding_modes:
            words = r"padding_mode 'clamp' needs a map of at least .* \(6, 9\) pixels, got \(6, 7\)"
            self.refuses(
                ValueError, words, *self.operands(CORNERS[0]), padding_mode="clamp", kernel_size=3, dilation=(2, 3)
            )

    def call_with(self, *operands: Any, **changes: Any) -> Tensor:
        """Calls the operator for the first corner and the first options, with some arguments changed."""
        return getattr(ops, self.name)(*operands, **CORNERS[0].arguments | self.options[0] | changes)

    def refuses(self, error: type[Exception], message: str, *operands: Any, **changes: Any) -> None:
        """Checks that `call_with` raises this error."""
        with pytest.raises(error, match=message):
            self.call_with(*operands, **changes)

    def refuses_tensors(self, *names: str) -> None:
        """Checks what every operator refuses: other objects than tensors, wrong dtypes, shapes, devices."""
        operands = self.operands(CORNERS[0])
        first, *others = operands
        for index, name in enumerate(names):
            changed: list[Any] = list(operands)
            changed[index] = [1.0]
            self.refuses(TypeError, f"{name} must be a tensor, got list", *changed)
        name = names[0]
        self.refuses(TypeError, f"{name} must be float64, .* got torch.int64", first.long(), *others)
        self.refuses(ValueError, rf"{name} must have the shape \(N, C, H, W\), got \(4, 6, 7\)", first[0], *others)
        self.refuses(ValueError, f"{name} must have at least one channel and one pixel, got", first[:, :0], *others)
        words = f"{name} and {names[1]} must"
        message = f"{words} have the same dtype, got torch.float32 and torch.float64"
        self.refuses(TypeError, message, first.float(), *others)
        moved = [others[0].to("meta"), *others[1:]]
        self.refuses(ValueError, f"{words} be on the same device, got cpu and meta", first, *moved)
