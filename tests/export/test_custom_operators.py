"""Custom operators in onnxruntime and OpenVINO: equal to their definition in float64, for options and odd sizes."""

from __future__ import annotations

import copy
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from sa_layers.export import ExportError, export, load, verify
from sa_layers.export.__main__ import main
from sa_layers.export.custom_operators import (
    custom_operators_library,
    has_custom_operators,
    register_custom_operators,
    runtimes,
    why_not_custom,
)
from sa_layers.layers import PairwiseSelfAttention, PatchwiseSelfAttention
from tests.conftest import MakeOnce
from tests.sampling import exhaustive

from .test_band_graphs import LAYERS, SIZES, SideBySide, randomize_norms

onnx = pytest.importorskip("onnx")
pytest.importorskip("onnxscript")
Run = Callable[[Tensor], list[np.ndarray]]
DISTINCT = (
    "subtraction",
    "concatenation, zeros",
    "hadamard",
    "dot, no position",
    "position_size, zeros",
    "one layer",
    "all",
    "patchwise, zeros",
    "patchwise, one layer",
    "star, zeros",
    "block",
    "patchwise block",
)
"""One of each option that the nodes describe. All of them are exported with --exhaustive."""
TESTED = {name: make for name, make in LAYERS.items() if exhaustive() or name in DISTINCT}
LEFT = {"patchwise, one layer", "patchwise, three layers", "decomposed"}


def in_onnxruntime(path: Path, threads: int) -> Run:
    onnxruntime = pytest.importorskip("onnxruntime")
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    register_custom_operators(options)
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    return lambda image: session.run(None, {"image": image.numpy()})


def in_openvino(path: Path, threads: int) -> Run:
    openvino = pytest.importorskip("openvino")
    core = openvino.Core()
    register_custom_operators(core)
    settings = {"INFERENCE_NUM_THREADS": threads, "INFERENCE_PRECISION_HINT": "f32"}
    compiled = core.compile_model(core.read_model(path), "CPU", settings)
    return lambda image: list(compiled.create_infer_request().infer(image.numpy()).values())


RUNTIMES = {"onnxruntime": in_onnxruntime, "openvino": in_openvino}


def library(name: str) -> None:
    """Compile the library of a runtime, or skip the test where that cannot be done."""
    try:
        custom_operators_library(name)
    except ExportError as error:
        pytest.skip(str(error))


@pytest.fixture(scope="module", params=RUNTIMES)
def runtime(request: pytest.FixtureRequest) -> str:
    """A runtime whose library can be compiled here."""
    name: str = request.param
    pytest.importorskip(name)
    library(name)
    return name


@pytest.fixture(scope="module")
def model() -> SideBySide:
    torch.manual_seed(0)
    return SideBySide(
        {name: randomize_norms(make(), "7" in name or "identity" in name) for name, make in TESTED.items()}
    )


@pytest.fixture(scope="module")
def path(model: SideBySide, make_once: MakeOnce) -> Path:
    """The file of all layers."""
    write = partial(export, model, in_channels=16, stride=4, custom_operators=True)
    return make_once("custom_operators", lambda folder: write(folder / "layers.onnx")) / "layers.onnx"


@pytest.mark.slow
def test_equal_to_the_definition(runtime: str, model: SideBySide, path: Path) -> None:
    """At several sizes in one session, also by several threads at once."""
    run, double = RUNTIMES[runtime](path, 2), copy.deepcopy(model).double()
    images = [torch.randn(batch, 16, height, width, dtype=torch.float64) for batch, height, width in SIZES * 2]
    with torch.no_grad():
        expected = [double(image) for image in images]
    for image, results in zip(images, expected, strict=True):
        check(model.names, run(image.float()), results)
    with ThreadPoolExecutor(3) as pool:
        for computed, results in zip(pool.map(run, [image.float() for image in images]), expected, strict=True):
            check(model.names, computed, results)


def check(names: list[str], computed: list[np.ndarray], expected: tuple[Tensor, ...]) -> None:
    for name, ours, theirs in zip(names, computed, expected, strict=True):
        difference = torch.from_numpy(ours).double() - theirs
        assert difference.abs().max() < 2e-5, name


@pytest.mark.slow
def test_nodes(path: Path, model: SideBySide) -> None:
    """A layer is two custom operators, a block three; an attention without one is a band graph or decomposed."""
    assert {model.names[int(name.split(".")[1])] for name in why_not_custom(model)} == LEFT & set(model.names)
    names = [node.op_type for node in onnx.load(path).graph.node if node.domain == "sa_layers"]
    attentions = names.count("PairwiseAttention") + names.count("PatchwiseAttention")
    assert attentions == len(set(model.names) - LEFT)
    assert names.count("Projection") == attentions + sum("block" in name and "hook" not in name for name in model.names)
    assert has_custom_operators(path)
    assert not any("forward" in vars(module) for module in model.modules()), "the model is as before"


@pytest.mark.slow
def test_load_and_verify(path: Path, model: SideBySide) -> None:
    """Both register the operators by themselves; results do not depend on the number of threads."""
    library("onnxruntime")
    assert verify(model, path, sizes=[(9, 14), (20, 6)], in_channels=16) < 1e-5
    image = torch.randn(2, 16, 25, 32)
    for ours, theirs in zip(load(path, threads=1)(image), load(path, threads=2)(image), strict=True):
        assert torch.equal(ours, theirs)


def test_reasons() -> None:
    """A sentence for each attention that has no custom operator."""
    hooked = PatchwiseSelfAttention(16, 16, 3)
    hooked.value.register_forward_hook(lambda *_: None)
    layers = {
        "plain": PairwiseSelfAttention(16, 16, 3),
        "float64": PairwiseSelfAttention(16, 16, 3).double(),
        "one layer": PatchwiseSelfAttention(16, 16, 3, mapping_layers=1),
        "hook": hooked,
    }
    model = nn.ModuleDict(layers).eval()
    model.add_module("trained", PairwiseSelfAttention(16, 16, 3))
    assert why_not_custom(model) == {
        "float64": "its parameters are torch.float64",
        "one layer": "the mapping does not consist of two linear layers, each after a norm and an activation",
        "hook": "a linear layer has a forward hook or an overridden forward",
        "trained": "mapping.0 is in training mode",
    }


def node(name: str, inputs: dict[str, tuple[int, ...]], path: Path, **attributes: Any) -> None:
    """Write a model of one node."""
    float32, values = onnx.TensorProto.FLOAT, list(inputs)
    given = [onnx.helper.make_tensor_value_info(value, float32, shape) for value, shape in inputs.items()]
    made = onnx.helper.make_node(name, values, ["output"], domain="sa_layers", **attributes)
    output = onnx.helper.make_tensor_value_info("output", float32, [None] * 4)
    opsets = [onnx.helper.make_opsetid("", 20), onnx.helper.make_opsetid("sa_layers", 1)]
    graph = onnx.helper.make_graph([made], "graph", given, [output])
    onnx.save(onnx.helper.make_model(graph, opset_imports=opsets, ir_version=9), path)


PROJECTION = {"channels": 3, "normed": 0, "residual": 0}
MAPS = {"relation": "subtraction", "padding_mode": "reflect", "channels": [2, 4], "starts": [0, 2, 4], "normed": 0}
SIZE = {"kernel_size": [3, 3], "stride": [1, 1], "dilation": [1, 1], "positioned": 0, "position_size": [0, 0]}
WRONG_NODES = {
    "weights must have": ("Projection", {"a": (1, 2, 2, 5), "b": (3, 4), "c": (3,)}, PROJECTION),
    "features must have 4 dimensions": ("Projection", {"a": (2, 5), "b": (3, 5), "c": (3,)}, PROJECTION),
    "the node must have more inputs, got 2": ("Projection", {"a": (1, 2, 2, 5), "b": (3, 5)}, PROJECTION),
    "starts and channels must be in 7 channels": ("PairwiseAttention", {"a": (1, 2, 2, 7)}, MAPS | SIZE),
    "every layer of the mapping must have four": ("PairwiseAttention", {"a": (1, 2, 2, 8), "b": (2,)}, MAPS | SIZE),
    "must be lists of one to 3 tensors, got 0": ("PairwiseAttention", {"a": (1, 2, 2, 8)}, MAPS | SIZE),
    "relation must be": ("PairwiseAttention", {"a": (1, 2, 2, 8)}, MAPS | SIZE | {"relation": "sum"}),
}


@pytest.mark.parametrize("message", WRONG_NODES)
def test_wrong_nodes(message: str, tmp_path: Path) -> None:
    """The bindings' checks reach whoever writes such a node by hand."""
    onnxruntime = pytest.importorskip("onnxruntime")
    name, inputs, attributes = WRONG_NODES[message]
    node(name, inputs, tmp_path / "node.onnx", **attributes)
    library("onnxruntime")
    options = onnxruntime.SessionOptions()
    register_custom_operators(options)
    session = onnxruntime.InferenceSession(tmp_path / "node.onnx", options, providers=["CPUExecutionProvider"])
    with pytest.raises(Exception, match=message):
        session.run(None, {value: np.zeros(shape, np.float32) for value, shape in inputs.items()})


def test_header_is_found_or_asked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(runtimes.VARIABLE, str(tmp_path))
    with pytest.raises(ExportError, match="pip install --no-deps amd-quark"):
        runtimes.onnxruntime()
    (tmp_path / "core").mkdir()
    (tmp_path / "core" / runtimes.HEADER).write_text("")
    assert runtimes.onnxruntime().headers == tmp_path / "core"


def test_what_is_missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / runtimes.HEADER).write_text("#error unknown\n")
    monkeypatch.setenv(runtimes.VARIABLE, str(tmp_path))
    monkeypatch.setenv("SA_LAYERS_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("CXX", "/nonexistent/c++")
    with pytest.raises(ExportError, match=r"no C\+\+ compiler was found \('/nonexistent/c\+\+'\)"):
        custom_operators_library()
    with pytest.raises(TypeError, match=r"target must be an onnxruntime\.SessionOptions or an openvino\.Core, got 1"):
        register_custom_operators(1)


def test_formats_without_custom_operators(tmp_path: Path) -> None:
    with pytest.raises(ExportError, match="custom operators are a part of ONNX, got the format 'torch-export'"):
        export(PairwiseSelfAttention(8, 8, 3).eval(), tmp_path / "a.pt2", "torch-export", custom_operators=True)


def test_command_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    options = ["--depth", "10", "--attention", "pairwise", "--custom-ops", "--format", "torch-export"]
    with pytest.raises(SystemExit):
        main([*options, str(tmp_path / "a.pt2")])
    assert "--custom-ops cannot be used with --format torch-export" in capsys.readouterr().err
