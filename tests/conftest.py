"""What all tests share: the repository, fresh processes, and the rule on what may be skipped."""

import os
import subprocess
import sys
from collections.abc import Callable, Generator, Iterator
from pathlib import Path

import pytest

from tests.sampling import VARIABLE as EXHAUSTIVE

# Tests compute little: threads would cost more than they give, most of all when several test runs share a machine.
os.environ.setdefault("OMP_NUM_THREADS", "1")

REPOSITORY = Path(__file__).resolve().parents[1]
REQUIRE_ALL = bool(os.environ.get("CI") or os.environ.get("SA_LAYERS_REQUIRE_ALL"))
RunPython = Callable[..., subprocess.CompletedProcess[str]]


def pytest_addoption(parser: pytest.Parser) -> None:
    """Adds ``--exhaustive``."""
    parser.addoption(
        "--exhaustive", action="store_true", help="run every case of the parametrisations that are otherwise sampled"
    )


def pytest_configure(config: pytest.Config) -> None:
    """Tells ``tests.sampling``, which is asked while modules are imported and so knows no ``config``."""
    if config.getoption("exhaustive"):
        os.environ[EXHAUSTIVE] = "1"


@pytest.fixture(scope="session")
def repository() -> Path:
    """The root of the source tree."""
    return REPOSITORY


@pytest.fixture(autouse=True)
def no_default_scope() -> Iterator[None]:
    """mmengine's default scope, which reading a config sets, does not outlive a test: their order must not matter."""
    yield
    if scopes := sys.modules.get("mmengine.registry.default_scope"):
        scopes.DefaultScope._instance_dict.clear()


@pytest.fixture
def run_python(tmp_path: Path) -> RunPython:
    """Runs code, or ``arguments``, in a fresh Python outside the source tree; stderr is appended to stdout."""

    def run(
        code: str | None = None,
        *arguments: object,
        python: str | Path = sys.executable,
        cwd: str | Path = tmp_path,
        check: bool = True,
        **environment: str,
    ) -> subprocess.CompletedProcess[str]:
        command = [str(python), *([] if code is None else ["-c", code]), *map(str, arguments)]
        process = subprocess.run(
            command, cwd=cwd, env=clean_environment(**environment), text=True, stdout=-1, stderr=-2, check=False
        )
        if check and process.returncode:
            pytest.fail(f"{' '.join(command)}\nexit code {process.returncode}\n{process.stdout[-6000:]}")
        return process

    return run


def clean_environment(**changes: str) -> dict[str, str]:
    """The environment without what would change how sa_layers is found, built or computed."""
    kept = {k: v for k, v in os.environ.items() if not k.startswith("SA_LAYERS_") and k not in ("PYTHONPATH", "CXX")}
    return kept | {"PYTHONWARNINGS": "default"} | changes


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Files with slow tests first: a worker that began one last would end long after the others."""
    slow = {item.path for item in items if item.get_closest_marker("slow")}
    items.sort(key=lambda item: item.path not in slow)


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report() -> Generator[None, pytest.CollectReport, pytest.CollectReport]:
    """Fails a module that ``pytest.importorskip`` skips where everything is said to be installed."""
    report = yield
    return refuse_skip(report)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Fails a test that ``pytest.importorskip`` skips where everything is said to be installed."""
    report = yield
    return refuse_skip(report)


def refuse_skip(report: pytest.CollectReport | pytest.TestReport) -> pytest.CollectReport | pytest.TestReport:
    """Turns a skip for want of a package into a failure under CI or SA_LAYERS_REQUIRE_ALL."""
    if REQUIRE_ALL and report.skipped and "could not import" in str(report.longrepr):
        report.outcome = "failed"
        report.longrepr = f"skipped although CI or SA_LAYERS_REQUIRE_ALL is set: {report.longrepr}"
    return report
