"""Properties that only the compiled CPU kernels have: instruction sets, threads, refusal of unfit memory."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from sa_layers.ops import extension

pytestmark = pytest.mark.skipif(not extension.is_available(), reason=str(extension.why_not()))

# (channels, weight channels, height, width, kernel size, stride, dilation): full and part-filled vectors, pairs of rows
# and single ones, blocks of eight channels and rests.
GEOMETRIES = [
    (16, 2, 20, 37, (7, 7), (1, 1), (1, 1)),
    (11, 2, 7, 7, (3, 5), (1, 1), (2, 2)),
    (9, 1, 3, 40, (7, 3), (2, 3), (1, 1)),
]

RUN = """
import sys, torch
from sa_layers.ops import extension
assert extension.is_available(), extension.why_not()
sys.path.insert(0, sys.argv[1])
from test_cpu_kernels import GEOMETRIES, every_operator
results = [every_operator(*geometry, torch.float32) for geometry in GEOMETRIES]
torch.save((torch.ops.sa_layers.cpu_capability(), results), sys.argv[2])
"""


def every_operator(channels, weight_channels, height, width, kernel_size, stride, dilation, dtype):
    """Every kernel's result on seeded input. A softmax is also computed of integers with a large offset."""
    operators, generator = torch.ops.sa_layers, torch.Generator().manual_seed(0)
    output_size = (height - 1) // stride[0] + 1, (width - 1) // stride[1] + 1
    taps, pixels = kernel_size[0] * kernel_size[1], output_size[0] * output_size[1]

    def normal(*shape):
        return torch.randn(*shape, generator=generator, dtype=torch.float64).to(dtype)

    value, query = normal(2, channels, height, width), normal(2, channels, height, width)
    weight, grad = normal(2, weight_channels, taps, pixels), normal(2, channels, *output_size)
    footprint = (kernel_size, stride, dilation, "reflect", "interleaved")
    results = [
        operators.aggregation(value, weight, *footprint),
        operators.aggregation_value_gradient(grad, weight, height, width, *footprint),
        operators.aggregation_weight_gradient(grad, value, weight_channels, *footprint),
    ]
    for logits in (weight, (4 * weight).round() + (1e4 if dtype == torch.float16 else 1e7)):
        output, *softmax = operators.softmax_aggregation(value, logits, *footprint)
        results += [
            output,
            softmax[0] - logits.amax(2),
            softmax[1],
            operators.softmax_aggregation_value_gradient(grad, logits, *softmax, height, width, *footprint),
            operators.softmax_aggregation_logits_gradient(grad, value, logits, *softmax, *footprint),
        ]
    for relation in ("subtraction", "summation", "hadamard", "dot", "concatenation"):
        geometry = (kernel_size, relation, stride, dilation, "reflect")
        result = operators.pairwise_relation(query, value, *geometry)
        results += [
            result,
            operators.pairwise_relation_query_gradient(result, value, height, width, *geometry),
            operators.pairwise_relation_key_gradient(result, query, height, width, *geometry),
        ]
    return results


@pytest.mark.parametrize("capability", ["default", "avx2", "avx512"])
def test_instruction_sets_agree(capability, tmp_path):
    file = tmp_path / "results.pt"
    environment = os.environ | {"SA_LAYERS_CPU_CAPABILITY": capability}
    command = [sys.executable, "-c", RUN, os.path.dirname(__file__), str(file)]
    subprocess.run(command, env=environment, check=True)
    chosen, results = torch.load(file)
    if chosen != capability:
        pytest.skip(f"this processor has no more than {chosen}")
    for geometry, single in zip(GEOMETRIES, results, strict=True):
        for expected, result in zip(every_operator(*geometry, torch.float64), single, strict=True):
            scale = max(1.0, expected.abs().max().item())
            torch.testing.assert_close(result.double(), expected, rtol=0, atol=5e-6 * scale)


@pytest.mark.skipif(shutil.which("objdump") is None, reason="no objdump is here")
def test_only_the_namespaces_of_avx_use_its_instructions():
    # The linker keeps one copy of an inline function for the whole library: a copy that was compiled for AVX would end
    # the program on an older processor.
    library = Path(extension.__file__).parent.parent / "kernels.so"
    command = ["objdump", "--disassemble", "--demangle", "--no-show-raw-insn", str(library)]
    avx_instruction = re.compile(r"%[yz]mm|\tv[a-z]")
    name, is_avx_function, functions, offenders = "", False, 0, set()
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        for line in process.stdout:
            if line.endswith(">:\n"):
                name, is_avx_function = line, re.search(r"sa_layers::cpu::avx(2|512)::", line) is not None
                functions += is_avx_function
            elif not is_avx_function and avx_instruction.search(line):
                offenders.add(name)
    if not functions:
        pytest.skip("the library has no symbols, or this is no x86-64 processor")
    assert not offenders


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("geometry", GEOMETRIES)
def test_results_do_not_depend_on_the_number_of_threads(geometry, dtype):
    threads = torch.get_num_threads()
    try:
        torch.set_num_threads(1)
        alone = every_operator(*geometry, dtype)
        torch.set_num_threads(3)
        together = every_operator(*geometry, dtype)
    finally:
        torch.set_num_threads(threads)
    assert all(torch.equal(a, b) for a, b in zip(alone, together, strict=True))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"weight": torch.zeros(1, 2, 9, 24)}, r"weight must have the shape \(1, 2, 9, 25\), got \(1, 2, 9, 24\)"),
        ({"weight": torch.zeros(1, 2, 9, 25).double()}, "weight must have the dtype of value"),
        ({"weight": torch.zeros(1, 0, 9, 25)}, "weight must have at least one channel"),
        ({"value": torch.zeros(4, 5, 5)}, "value must have 4 dimensions"),
        ({"kernel_size": (4, 3)}, r"kernel_size must be two positive odd numbers, got \(4, 3\)"),
        ({"stride": (0, 1)}, "stride must be two positive numbers"),
        ({"padding_mode": "same"}, "padding_mode must be 'reflect', 'zeros' or 'clamp', got 'same'"),
        ({"groups": "depthwise"}, "groups must be 'interleaved' or 'contiguous', got 'depthwise'"),
    ],
)
def test_a_direct_call_cannot_read_out_of_bounds(change, message):
    arguments = {
        "value": torch.zeros(1, 4, 5, 5),
        "weight": torch.zeros(1, 2, 9, 25),
        "kernel_size": (3, 3),
        "stride": (1, 1),
        "dilation": (1, 1),
        "padding_mode": "reflect",
        "groups": "interleaved",
    }
    with pytest.raises(RuntimeError, match=message):
        torch.ops.sa_layers.aggregation(**arguments | change)
