"""Time the models of OpenMMLab configs, for example a detector with SAN against the same detector with ResNet-50.

A config is a file, or a config of an installed toolbox such as mmdet::faster_rcnn/faster-rcnn_r50_fpn_1x_coco.py.
Models have random parameters and predict from random images, including preprocessing and postprocessing. Each model is
timed in both memory layouts. Ratios are relative to the faster layout of the first config.
"""

from __future__ import annotations

import argparse
import importlib
import importlib.util
import logging
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from torch import nn

from ..command_line import integer, number
from ..openmmlab_configs import build_model, read_config
from . import machine
from .errors import BenchmarkError
from .measure import Run, time_interleaved
from .report import Column, Report, Row, duration, ratio

LAYOUTS = {"": torch.contiguous_format, ", channels last": torch.channels_last}
SAMPLES = ("DetDataSample", "SegDataSample", "DataSample")  # data sample classes of mmdet, mmseg and mmpretrain
COLUMNS = [
    Column("model", "model"),
    Column("median_s", "median", duration),
    Column("fastest_s", "fastest", duration),
    Column("ratio", "ratio", ratio),
]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of this benchmark."""
    parser.add_argument(
        "configs",
        nargs="+",
        metavar="CONFIG",
        help="config file, or TOOLBOX::FILE for a config of an installed toolbox",
    )
    parser.add_argument(
        "--size",
        nargs=2,
        type=integer(1, 2**14),
        default=(800, 1333),
        metavar=("H", "W"),
        help="image size (default: 800 1333)",
    )
    parser.add_argument("--batch", type=integer(1, 2**16), default=1, metavar="N", help="batch size (default: 1)")
    parser.add_argument("--seconds", type=number(0), default=60, metavar="S", help="time limit (default: 60)")


def run(arguments: argparse.Namespace) -> int:
    """Time the models of all configs."""
    device = machine.prepare(arguments)
    if arguments.dtype != "float32":
        raise BenchmarkError(f"--dtype must be float32 for models of configs, got {arguments.dtype}")
    height, width = (min(side, 128) if arguments.quick else side for side in arguments.size)
    described = machine.describe(device) | {"image": f"{height} x {width}", "batch": arguments.batch}
    notes = ["ratio: time relative to the first model in its faster layout, median of the rounds."]
    calls: dict[str, Run] = {}
    failure: Exception | None = None
    for config in arguments.configs:
        for layout, memory_format in LAYOUTS.items():
            name = f"{find(config).stem}{layout}"
            model = build(config).to(device, memory_format=memory_format)  # type: ignore[call-overload]
            call = prediction(model, height, width, arguments.batch)
            try:
                call()
            except Exception as error:  # some operators of mmcv accept only contiguous tensors
                reason = str(error).strip().partition("\n")[0] or type(error).__name__
                notes.append(f"{name} is missing because it failed: {reason}")
                failure = failure or error
                continue
            calls[name] = call
    first = find(arguments.configs[0]).stem
    if not any(first + layout in calls for layout in LAYOUTS):
        raise BenchmarkError(notes[1]) from failure
    report = Report("Models", described, COLUMNS, [], tuple(notes))
    report.rows += measure(calls, first, device, arguments)
    report.print()
    if arguments.json:
        report.write_json(arguments.json)
    return 0


def build(config: str) -> nn.Module:
    """Build the model of a config in evaluation mode, with random instead of pretrained parameters.

    Raises:
        BenchmarkError: If there is no such config.
        ConfigError: If it cannot be read, or its model cannot be built.
        MissingPackageError: If OpenMMLab is not installed.
    """
    path = find(config)
    if not path.is_file():
        raise BenchmarkError(f"CONFIG must be a file, or TOOLBOX::FILE of an installed toolbox, got {config!r}")
    settings = read_config(path)
    if isinstance(settings.model.get("backbone"), dict):
        settings.model.backbone.init_cfg = None
    torch.manual_seed(0)  # same parameters in both layouts: the time of a head depends on the number of detections
    logging.disable(logging.INFO)  # init_weights logs a line for every parameter
    try:
        model = build_model(settings, initialise=True)
    finally:
        logging.disable(logging.NOTSET)
    return model.eval()


def find(config: str) -> Path:
    """Return the path of a config, given as a path or as TOOLBOX::FILE."""
    toolbox, separator, name = config.rpartition("::")
    if not separator:
        return Path(config)
    specification = importlib.util.find_spec(toolbox) if toolbox.isidentifier() else None
    if specification is None or specification.origin is None:
        raise BenchmarkError(f"CONFIG {config!r} needs {toolbox!r}, which is not installed")
    return Path(specification.origin).parent / ".mim" / "configs" / name


def prediction(model: Any, height: int, width: int, batch: int) -> Callable[[], object]:
    """Return a function that predicts from random images, as the toolbox's test loop does."""
    structures = importlib.import_module(f"{type(model).__module__.partition('.')[0]}.structures")
    sample_type = next(getattr(structures, name) for name in SAMPLES if hasattr(structures, name))
    shape = {"ori_shape": (height, width), "img_shape": (height, width), "scale_factor": (1.0, 1.0)}
    generator = torch.Generator().manual_seed(0)
    images = [torch.randint(256, (3, height, width), dtype=torch.uint8, generator=generator) for _ in range(batch)]

    def predict() -> object:
        with torch.no_grad():
            return model.test_step({"inputs": images, "data_samples": [sample_type(metainfo=shape) for _ in images]})

    return predict


def measure(calls: dict[str, Run], first: str, device: torch.device, arguments: argparse.Namespace) -> Iterator[Row]:
    """Yield a row for every model in every layout."""
    seconds, min_rounds = (0.0, 2) if arguments.quick else (arguments.seconds, 5)
    timings = time_interleaved(calls, device, seconds=seconds, min_rounds=min_rounds)
    first_timings = [timings[name] for name in (first + layout for layout in LAYOUTS) if name in timings]
    baseline = min(first_timings, key=lambda timing: timing.median)
    for name, timing in timings.items():
        yield {
            "model": name,
            "median_s": timing.median,
            "fastest_s": timing.fastest,
            "turns": timing.rounds,
            "ratio": timing.ratio_to(baseline),
        }
