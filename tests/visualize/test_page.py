"""The web page: what it stores, what its functions compute, and what a browser shows."""

from __future__ import annotations

import base64
import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from .networks import ATTENTIONS, image, small

pytest.importorskip("cv2")
pytest.importorskip("matplotlib")

from sa_layers.visualize import LayerWeights, Photograph, VisualizationError, attention_weights, write_page
from sa_layers.visualize.page import writer
from sa_layers.visualize.weights import last_of_each_stage

HEIGHT, WIDTH = 64, 96
PIXELS = [(0, 0), (40, 21), (95, 63)]
BROWSERS = ("chromium", "chromium-browser", "google-chrome", "chrome")


def photograph(attention: str, **options: Any) -> Photograph:
    pixels = np.random.default_rng(0).integers(0, 255, (HEIGHT, WIDTH, 3), np.uint8)
    return Photograph("</script>", pixels, attention_weights(small(attention, **options), image(HEIGHT, WIDTH)))


@pytest.fixture(scope="module", params=ATTENTIONS)
def shown(request: pytest.FixtureRequest) -> Photograph:
    return photograph(request.param)


@pytest.fixture(scope="module")
def page(shown: Photograph, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("page") / "index.html"
    write_page(path, [photograph("pairwise"), shown], "Two <networks>")
    return path


def stored(page: Path) -> Any:
    """The photographs in a page."""
    found = re.search(r"^start\(document, (.*)\);$", page.read_text(), re.MULTILINE)
    assert found is not None
    return json.loads(found[1])


def tolerance(layer: LayerWeights) -> float:
    """Half a level of the largest weight."""
    return float(np.abs(layer.weights).max()) * 0.51 / writer.LEVELS


def test_stores_the_weights(page: Path, shown: Photograph) -> None:
    layers = last_of_each_stage(shown.layers)
    kept = stored(page)[1]["layers"]
    assert [layer["name"] for layer in kept] == [layer.name for layer in layers]
    for layer, entry in zip(layers, kept, strict=True):
        channels = [np.abs(layer.weights).mean(0), *layer.weights[entry["channels"]]]
        levels = np.frombuffer(base64.b64decode(entry["levels"]), np.int8)
        levels = levels.reshape(len(channels), *entry["out"], *entry["kernel"]).transpose(0, 3, 4, 1, 2)
        for channel, scale, one in zip(channels, entry["scales"], levels, strict=True):
            assert np.abs(one * (scale / writer.LEVELS) - channel).max() <= tolerance(layer)


def test_title_and_names_cannot_end_the_script(page: Path) -> None:
    text = page.read_text()
    assert "<h1>Two &lt;networks&gt;</h1>" in text
    assert text.count("</script>") == 1


@pytest.mark.parametrize("padding_mode", ["reflect", "zeros"])
@pytest.mark.parametrize("attention", ATTENTIONS)
def test_cells_are_those_that_the_layer_reads(attention: str, padding_mode: str, tmp_path: Path) -> None:
    racer = pytest.importorskip("py_mini_racer")
    drawn = photograph(attention, padding_mode=padding_mode)
    write_page(tmp_path / "page.html", [drawn])
    context = racer.MiniRacer()
    context.eval(writer._source("page.js"))
    for layer, entry in zip(last_of_each_stage(drawn.layers), stored(tmp_path / "page.html")[0]["layers"], strict=True):
        entry["levels"] = np.frombuffer(base64.b64decode(entry["levels"]), np.int8).tolist()
        context.eval(f"var layer = {json.dumps(entry)}; layer.decoded = Int8Array.from(layer.levels);")
        for x, y in PIXELS:
            cells = context.eval(
                f"[row, column] = footprintAt(layer, {x}, {y});"
                "JSON.stringify(cellsOf(layer, row, column, weightsAt(layer, 0, row, column)))"
            )
            on_image = np.zeros((HEIGHT, WIDTH), np.float32)
            for cell in json.loads(cells):
                top, left = cell["row"] * entry["pixels"], cell["column"] * entry["pixels"]
                on_image[top : top + entry["pixels"], left : left + entry["pixels"]] = cell["weight"]
            expected = layer.on_image(np.abs(layer.kernels((x, y))).mean(0), (x, y), (HEIGHT, WIDTH))
            assert np.abs(on_image - expected).max() <= 16 * tolerance(layer)  # reflection adds weights
            assert expected.max() > 100 * tolerance(layer)


@pytest.mark.process
def test_in_a_browser(page: Path, shown: Photograph) -> None:
    browser = next(filter(None, map(shutil.which, BROWSERS)), None)
    if browser is None:
        pytest.skip(f"no browser among {', '.join(BROWSERS)}")
    x, y = PIXELS[1]
    command = [browser, "--headless", "--no-sandbox", "--disable-gpu", "--virtual-time-budget=4000", "--dump-dom"]
    address = f"{page.as_uri()}#photograph=1&x={x}&y={y}"
    result = subprocess.run([*command, address], capture_output=True, text=True, timeout=120, check=True)
    assert f">x {x}, y {y}</output>" in result.stdout
    found = re.search(r'data-strongest="([^"]*)"', result.stdout)
    assert found is not None, result.stdout[-2000:]
    layers = last_of_each_stage(shown.layers)
    for layer, line in zip(layers, found[1].split("; "), strict=True):
        stage, row, column, weight = line.split()
        assert stage == layer.stage
        expected = layer.on_image(np.abs(layer.kernels((x, y))).mean(0), (x, y), (HEIGHT, WIDTH))
        assert float(weight) == pytest.approx(float(expected.max()), abs=16 * tolerance(layer) + 1e-3)
        there = expected[int(row) * layer.image_stride, int(column) * layer.image_stride]
        assert there >= expected.max() - 32 * tolerance(layer)


def test_refuses_an_empty_page(tmp_path: Path) -> None:
    with pytest.raises(VisualizationError, match="photographs must not be empty"):
        write_page(tmp_path / "page.html", [])


def test_refuses_a_negative_number_of_channels(tmp_path: Path, shown: Photograph) -> None:
    with pytest.raises(VisualizationError, match="channels must not be negative, got -1"):
        write_page(tmp_path / "page.html", [shown], channels=-1)
