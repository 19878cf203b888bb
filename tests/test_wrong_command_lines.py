"""Wrong command lines of every command: a sentence and an exit status, never a traceback."""

from __future__ import annotations

import importlib
import shlex
import warnings
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from tests.conftest import RunPrograms, RunPython
from tests.sampling import sample

LONG = "n" * 300
SAN = 'backbone=dict(type="sa_layers.SAN", depth=(1,) * 5, widths=(32,) * 5, kernel_sizes=(3,) * 5)'
SEGMENTOR = f"""default_scope = "mmseg"
model = dict(type="EncoderDecoder", {SAN}, test_cfg=dict(mode="whole"),
    data_preprocessor=dict(type="SegDataPreProcessor", mean=[0, 0, 0], std=[1, 1, 1], bgr_to_rgb=True),
    decode_head=dict(type="FCNHead", in_channels=32, channels=8, num_convs=1, num_classes=3))
"""
PRETRAINED = 'depth=(1,) * 5, init_cfg=dict(type="Pretrained", checkpoint="{}")'
CONFIGS = {
    "good": SEGMENTOR,
    "syntax": "model = dict(",
    "undefined": "model = nothing",
    "division": "model = dict(type=1 / 0)",
    "import": "import package_that_is_nowhere\nmodel = dict(type='EncoderDecoder')",
    "base": "_base_ = './nowhere.py'\nmodel = dict(type='EncoderDecoder')",
    "loop": "_base_ = './loop.py'\nmodel = dict(type='EncoderDecoder')",
    "empty": "",
    "no_model": "default_scope = 'mmseg'",
    "number": "default_scope = 'mmseg'\nmodel = 3",
    "none": "default_scope = 'mmseg'\nmodel = None",
    "list": "default_scope = 'mmseg'\nmodel = [dict(type='EncoderDecoder')]",
    "no_type": "default_scope = 'mmseg'\nmodel = dict(backbone=dict(type='SAN'))",
    "unknown_type": "default_scope = 'mmseg'\nmodel = dict(type='ModelThatIsNowhere')",
    "numeric_type": "default_scope = 'mmseg'\nmodel = dict(type=3)",
    "no_head": 'default_scope = "mmseg"\nmodel = dict(type="EncoderDecoder", ' + SAN + ")",
    "no_backbone": 'default_scope = "mmseg"\nmodel = dict(type="EncoderDecoder", decode_head=dict(type="FCNHead"))',
    "depth": SEGMENTOR.replace("depth=(1,) * 5", "depth=11"),
    "keyword": SEGMENTOR.replace("depth=(1,) * 5", "depht=10"),
    "widths": SEGMENTOR.replace("widths=(32,) * 5", "widths=(32,) * 4"),
    "kernel": SEGMENTOR.replace("kernel_sizes=(3,) * 5", "kernel_sizes=(4,) * 5"),
    "norm": SEGMENTOR.replace("depth=(1,) * 5", "depth=(1,) * 5, norm_cfg=dict(type='GN', num_groups=32)"),
    "no_checkpoint": SEGMENTOR.replace("depth=(1,) * 5", PRETRAINED.format("nowhere.pth")),
    "no_server": SEGMENTOR.replace("depth=(1,) * 5", PRETRAINED.format("http://127.0.0.1:9/san10.pth")),
    "no_attention": SEGMENTOR.replace(SAN, 'backbone=dict(type="ResNetV1c", depth=18, out_indices=(3,))'),
    "grey": SEGMENTOR.replace("depth=(1,) * 5", "depth=(1,) * 5, in_channels=1"),
    "mean": SEGMENTOR.replace("mean=[0, 0, 0]", "mean=[0, 0]"),
    "preprocessor": SEGMENTOR.replace("SegDataPreProcessor", "PreProcessorThatIsNowhere"),
    "scope": SEGMENTOR.replace('"mmseg"', '"mmnowhere"'),
    "numeric_scope": SEGMENTOR.replace('"mmseg"', "3"),
}
CHECKPOINTS = (
    "empty.pth garbage.pth text.pth folder.pth zip.pth half.pth list.pth numbers.pth integer_keys.pth nothing.pth "
    "other.pth nested.pth nowhere.pth " + LONG
).split()
IMAGE_CONFIG = "visualize photograph.png"
NETWORK = "export --depth 10 --attention patchwise --format torch-export"
BENCHMARKS = ("operators", "attentions", "networks", "deployments", "calls", "configs good.py")

CASES = [
    # complexity
    *(f"complexity --size {size}" for size in ("0", "-1", "16", "1.5", "x", "64,", "1,2,3", "9" * 30, "''", "0,224")),
    *(f"complexity --depth 10 --classes {classes}" for classes in ("-1", "0", "many", "1e3", "9" * 30)),
    *(
        f"complexity --depth {depth}"
        for depth in ("11", "0", "-10", "1,1", "1,1,1,1,0", "ten", "1,1,1,1,99999999", ",")
    ),
    *(f"complexity --kernel-sizes {sizes}" for sizes in ("3", "3,3,3,3,4", "0,0,0,0,0", "a,b,c,d,e", "3,3,3,3,65535")),
    *(f"complexity --widths {widths}" for widths in ("64", "0,0,0,0,0", "1,1,1,1,1", "30,30,30,30,30", f"{2**60}" * 5)),
    *(f"complexity --share {share}" for share in ("0", "-8", "3", "x", "1048576")),
    *(f"complexity --mapping-layers {layers}" for layers in ("0", "4", "two")),
    "complexity --attention global",
    "complexity --relation nothing",
    "complexity --attention patchwise --relation subtraction",
    "complexity --attention patchwise --position relative",
    "complexity --position sinusoidal",
    "complexity --shared-transforms value",
    "complexity --layer nothing",
    "complexity 10",
    # info
    "info --jsn",
    "info everything",
    # convert
    "convert",
    "convert official.pth",
    "convert official.pth ours.pth more.pth",
    *(f"convert {source} ours.pth" for source in CHECKPOINTS),
    *(f"convert --to-official {source} ours.pth" for source in ("official.pth", "garbage.pth", "integer_keys.pth")),
    *(f"convert official.pth {path}" for path in (".", "official.pth", "nowhere/a.pth", "text.pth/a.pth", LONG, "''")),
    "convert '' ours.pth",
    # export
    "export",
    "export a.onnx",
    "export --depth 10 a.onnx",
    "export --depth 11 --attention pairwise a.onnx",
    "export --depth 10 --attention global a.onnx",
    "export --depth 10 --attention pairwise --format tflite a.onnx",
    "export good.py --depth 10 --attention pairwise a.onnx",
    "export good.py --checkpoint a.pth a.onnx",
    "export good.py a.pth b.pth a.onnx",
    *(
        f"{NETWORK} {out}"
        for out in ("a.onnx", ".", "folder.pt2", "nowhere/a.pt2", "text.pth/a.pt2", f"{LONG}.pt2", "''")
    ),
    *(
        f"{NETWORK} a.pt2 --sizes {sizes}"
        for sizes in ("1x1 64x64", "64x64", "0x64 64x64", "64 64", "axb 64x64", "64x64x64 1x1")
    ),
    *(f"{NETWORK} a.pt2 --checkpoint {path}" for path in CHECKPOINTS),
    *(
        f"export {name}.py a.pt2 --format torch-export"
        for name in CONFIGS
        if name not in ("good", "no_attention", "mean", "no_checkpoint", "no_server")
    ),
    *(f"export good.py {path} a.pt2 --format torch-export" for path in ("garbage.pth", "other.pth", "nowhere.pth")),
    *(f"{NETWORK} --threads {threads} a.pt2" for threads in ("0", "-1", "two")),
    "export nowhere.py a.onnx",
    "export folder.pth a.onnx",
    "export binary.py a.onnx",
    "export config.txt a.onnx",
    "export broken.json a.onnx",
    # visualize
    "visualize",
    IMAGE_CONFIG,
    *(f"{IMAGE_CONFIG} {name}.py" for name in CONFIGS if name not in ("good", "no_head", "no_backbone")),
    *(f"{IMAGE_CONFIG} good.py {path}" for path in (*CHECKPOINTS, "http://127.0.0.1:9/san10.pth")),
    *(f"visualize {image} good.py" for image in ("nowhere.png", "text.pth", "folder.pth", "tiny.png", LONG, "''")),
    *(f"{IMAGE_CONFIG} {config}" for config in ("nowhere.py", "folder.pth", "binary.py", "config.txt", "broken.json")),
    *(
        f"{IMAGE_CONFIG} good.py --pixel {pixel}"
        for pixel in ("1", "a b", "-1 0", "96 0", "0 72", "1.5 0", f"{9**30} 0")
    ),
    *(f"{IMAGE_CONFIG} good.py --out {out}" for out in ("text.pth", "text.pth/pictures", LONG, "/dev/null")),
    # benchmark
    "benchmark",
    "benchmark everything",
    *(f"benchmark {name} --quick --threads {threads}" for name in BENCHMARKS for threads in ("0", "-1", "two", "1e9")),
    *(
        f"benchmark {name} --quick --device {device}"
        for name in BENCHMARKS
        for device in ("nope", "mps", "cuda:99", "''")
    ),
    *(f"benchmark {name} --quick --batch {batch}" for name in BENCHMARKS for batch in ("0", "-1", "x")),
    *(f"benchmark {name} --quick --json {path}" for name in BENCHMARKS for path in (".", "text.pth/a.json", LONG)),
    *(f"benchmark {name} --quick --seconds {seconds}" for name in BENCHMARKS for seconds in ("-1", "nan", "inf", "x")),
    *(
        f"benchmark {name} --quick --size {size}"
        for name in ("networks", "deployments", "calls")
        for size in ("5", "0", "-1", "x", "99999")
    ),
    *(f"benchmark {name} --quick --dtype float8" for name in BENCHMARKS),
    *(
        f"benchmark {name} --plot {path}"
        for name in ("operators", "networks")
        for path in (".", "a.xyz", "text.pth/a.png")
    ),
    "benchmark operators --operator everything",
    "benchmark attentions --attention global",
    "benchmark attentions --quick --task training",
    "benchmark attentions --quick --frozen norms-and-stage1",
    "benchmark networks --quick --frozen stage2",
    "benchmark calls --quick --frozen nothing norms",
    "benchmark networks --depth 11",
    "benchmark networks --quick --task training",
    "benchmark networks --quick --task 'training step' --size 32 --batch 1",
    "benchmark calls --quick --task 'training step' --size 33 --batch 1",
    "benchmark deployments --quick --runtime tflite",
    "benchmark deployments --quick --device cpu --dtype float64",
    "benchmark calls --runs 0",
    "benchmark calls --depth 11",
    "benchmark configs",
    "benchmark configs nowhere.py",
    "benchmark configs mmnowhere::a.py",
    "benchmark configs mmseg::nowhere.py",
    "benchmark configs .::a.py",
    "benchmark configs ::a.py",
    "benchmark configs a::b::c.py",
    "benchmark configs good.py --dtype float16",
    "benchmark configs good.py --size 0 64",
    *(
        f"benchmark configs {name}.py --quick"
        for name in CONFIGS
        if name not in ("good", "no_attention", "no_checkpoint", "no_server")
    ),
    # the shapes data set
    "datasets.shapes",
    *(f"datasets.shapes {out}" for out in ("text.pth", "text.pth/shapes", "folder.pth", LONG, "''", "/dev/null", ".")),
    *(f"datasets.shapes s --train {train}" for train in ("0", "2", "x", "-1", "1e3", "9999999")),
    *(f"datasets.shapes s --size {size}" for size in ("0", "31", "2000", "x")),
    "datasets.shapes s --val 1",
    "datasets.shapes s --seed -1",
    "datasets.shapes s --crop-size 8",
    "datasets.shapes s --more",
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Broken configs, checkpoints and images."""
    cv2 = pytest.importorskip("cv2")
    np = pytest.importorskip("numpy")
    root = tmp_path_factory.mktemp("wrong")
    for name, text in CONFIGS.items():
        (root / f"{name}.py").write_text(text)
    (root / "binary.py").write_bytes(b"\0\xff\xfe model")
    (root / "config.txt").write_text(SEGMENTOR)
    (root / "broken.json").write_text('{"model": ')
    (root / "empty.pth").touch()
    (root / "text.pth").write_text("not a checkpoint")
    (root / "garbage.pth").write_bytes(bytes(range(256)) * 9)
    (root / "folder.pth").mkdir()
    (root / "folder.pth" / "file").touch()
    (root / "folder.pt2").mkdir()
    with zipfile.ZipFile(root / "zip.pth", "w") as archive:
        archive.writestr("a.txt", "a")
    for name, content in {
        "list": [torch.ones(1)],
        "numbers": {"state_dict": {"stem.0.weight": 3}},
        "integer_keys": {0: torch.ones(1), 1: torch.ones(1)},
        "nothing": {},
        "other": {"state_dict": {"weight": torch.ones(1)}},
        "nested": {"state_dict": {"model": {"weight": torch.ones(1)}}},
    }.items():
        torch.save(content, root / f"{name}.pth")
    whole = (root / "other.pth").read_bytes()
    (root / "half.pth").write_bytes(whole[: len(whole) // 2])
    torch.save({"state_dict": {"module.conv_in.weight": torch.ones(64, 3, 1, 1)}}, root / "official.pth")
    cv2.imwrite(str(root / "photograph.png"), np.arange(72 * 96 * 3, dtype=np.uint8).reshape(72, 96, 3))
    cv2.imwrite(str(root / "tiny.png"), np.zeros((16, 40, 3), np.uint8))
    return root


@pytest.fixture
def inside(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    monkeypatch.chdir(folder)
    before = sorted(folder.rglob("*"))
    yield folder
    left = sorted(path.name for path in set(folder.rglob("*")) - set(before) if "__pycache__" not in path.parts)
    assert not left, "the command wrote files"


@pytest.mark.parametrize("line", sample(CASES, 120), ids=lambda line: line.replace(LONG, "nnn"))
def test_one_sentence(line: str, inside: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The last line on standard error is the sentence; a status of 1 or 2."""
    name, *arguments = shlex.split(line)
    if name == "visualize" or any(argument.removesuffix(".py") in CONFIGS for argument in arguments):
        pytest.importorskip("mmseg")
    if name == "benchmark":
        pytest.importorskip("torchvision")
    module = "sa_layers.info" if name == "info" else f"sa_layers.{name}"
    if name not in ("info", "datasets.shapes"):
        module += ".__main__"
    main = importlib.import_module(module).main
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            status = main(arguments)
        except SystemExit as stopped:
            status = stopped.code
    printed = capsys.readouterr()
    assert status in (1, 2), printed.out
    sentence = printed.err.splitlines()[-1]
    assert "error: " in sentence
    assert len(sentence.partition("error: ")[2].split()) >= 3, sentence
    assert "Traceback" not in printed.err


TOOLS = {
    "check_cuda": ["nowhere", "90 --only", "--all"],
    "check_headers": ["nowhere.h", "/dev/null", "--all"],
    "check_wheel": ["", "nowhere.whl", "/dev/null"],
    "check_subjects": ["", "nowhere", "--since nowhere", ".", "a --since b"],
    "gpu_check": ["nowhere", "--output", "build --more"],
    "run_kernels": ["nowhere", "cpu cuda"],
}


def test_tools(repository: Path, run_programs: RunPrograms) -> None:
    """Those of contributors, each as a program: the last line is the sentence."""
    program = "import sys, runpy; sys.argv = {}; runpy.run_path({!r}, run_name='__main__')"
    programs = {
        f"{name} {line}": program.format([name, *line.split()], str(repository / "tools" / f"{name}.py"))
        for name, lines in TOOLS.items()
        for line in lines
    }
    ended = "try:\n    {}\nexcept SystemExit as stopped:\n    print('status', stopped.code, file=sys.stderr)"
    printed = run_programs({line: "import sys\n" + ended.format(program) for line, program in programs.items()})
    for line, text in printed.items():
        *_, sentence, status = text.splitlines()
        assert "error: " in sentence, f"{line}: {text}"
        assert status == "status 2", f"{line}: {text}"


@pytest.mark.parametrize(
    ("line", "status", "end"),
    [
        (
            "complexity --size 0",
            2,
            "error: argument --size: must be 1 or 2 integers from 1 to 65536",
        ),
        ("convert nowhere.pth ours.pth", 1, "error: cannot read nowhere.pth: No such file or directory."),
    ],
)
def test_in_a_process(line: str, status: int, end: str, run_python: RunPython) -> None:
    name, *arguments = line.split()
    process = run_python(None, "-m", f"sa_layers.{name}", *arguments, check=False)
    assert process.returncode == status
    assert end in process.stdout.splitlines()[-1]
