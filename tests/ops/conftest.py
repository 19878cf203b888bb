"""Where the operators' tests run: every backend on every device of this machine."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch

from sa_layers.ops.backend import backend, why_not
from tests.sampling import sample


@pytest.fixture
def place(request: pytest.FixtureRequest) -> Iterator[torch.device]:
    """The device of a (device, backend) pair, with that backend chosen; skips where one is missing."""
    device, name = torch.device(request.param[0]), request.param[1]
    if device.type == "cuda" and not torch.cuda.is_available():
        pytest.skip("no GPU")
    if obstacle := why_not(name, device):
        pytest.skip(obstacle)
    with backend(name):
        yield device


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Parametrises by the tester's options, and by the places that a test names with ``@pytest.mark.backends``."""
    if "options" in metafunc.fixturenames:
        options = metafunc.cls.options
        if mark := metafunc.definition.get_closest_marker("variants"):
            options = sample(options, mark.args[0])
        names = ["-".join(str(value) for value in item.values() if value is not None) for item in options]
        metafunc.parametrize("options", options, ids=[name or "plain" for name in names])
    if "place" in metafunc.fixturenames:
        mark = metafunc.definition.get_closest_marker("backends")
        names = mark.args if mark else ("native", "torch", "reference")
        places = [(device, name) for device in ("cpu", "cuda") for name in names]
        places = [place for place in places if place != ("cuda", "reference")]
        metafunc.parametrize("place", places, indirect=True, ids="-".join)


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "backends(*names): the backends that a test of an operator runs on")
    config.addinivalue_line("markers", "variants(count): how many of an operator's options a test runs with by default")
