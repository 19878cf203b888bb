"""Where the operators' tests run: every backend on every device that is here."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch

from sa_layers.ops.backend import backend, why_not


@pytest.fixture
def place(request: pytest.FixtureRequest) -> Iterator[torch.device]:
    """The device of a (device, backend) pair, with that backend chosen; skips where one is not here."""
    device, name = torch.device(request.param[0]), request.param[1]
    if device.type == "cuda" and not torch.cuda.is_available():
        pytest.skip("no GPU is here")
    if obstacle := why_not(name, device):
        pytest.skip(obstacle)
    with backend(name):
        yield device


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Each tester's options, and the places that a test asks for with ``@on``."""
    if "options" in metafunc.fixturenames:
        options = metafunc.cls.options
        metafunc.parametrize("options", options, ids=["-".join(item.values()) or "plain" for item in options])
    if "place" in metafunc.fixturenames:
        mark = metafunc.definition.get_closest_marker("backends")
        names = mark.args if mark else ("native", "torch", "reference")
        places = [(device, name) for device in ("cpu", "cuda") for name in names]
        places = [place for place in places if place != ("cuda", "reference")]
        metafunc.parametrize("place", places, indirect=True, ids="-".join)


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "backends(*names): those that a test of an operator runs on")
