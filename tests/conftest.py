"""What all tests share: the repository, Python processes, things made once, and which tests may be skipped."""

import fcntl
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType

import pytest

from tests.processes import starts_processes
from tests.sampling import VARIABLE as EXHAUSTIVE
from tests.sampling import cover_pairs, exhaustive

# Tests compute little: several threads would slow them down, above all when test runs share a machine.
os.environ.setdefault("OMP_NUM_THREADS", "1")
# torch.compile writes scalar code, as choosing vectors and tiles takes it a minute for a single layer. It compiles that
# code here, not in processes that import torch first, and without optimising it, which takes longer than running it.
os.environ.setdefault("TORCHINDUCTOR_VEC_ISA_OK", "0")
os.environ.setdefault("TORCHINDUCTOR_COMPILE_THREADS", "1")
os.environ.setdefault("TORCHINDUCTOR_DEBUG_COMPILE", "1")

REPOSITORY = Path(__file__).resolve().parents[1]
REQUIRE_ALL = bool(os.environ.get("SA_LAYERS_REQUIRE_ALL"))  # set by `make test`
RunPython = Callable[..., subprocess.CompletedProcess[str]]
RunPrograms = Callable[..., dict[str, str]]
MakeOnce = Callable[[str, Callable[[Path], object]], Path]


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


@pytest.fixture(scope="session")
def make_once(tmp_path_factory: pytest.TempPathFactory) -> MakeOnce:
    """``make_once(name, make)`` calls ``make(folder)`` in one of pytest-xdist's workers; all get the folder."""
    root = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        root = root.parent

    def make_once(name: str, make: Callable[[Path], object]) -> Path:
        folder, complete = root / name, root / f"{name}.complete"
        with (root / f"{name}.lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if not complete.exists():
                shutil.rmtree(folder, ignore_errors=True)
                folder.mkdir()
                make(folder)
                complete.touch()
        return folder

    return make_once


@pytest.fixture(autouse=True)
def no_default_scope() -> Iterator[None]:
    """Resets mmengine's default scope, which reading a config sets, so that the order of tests does not matter."""
    yield
    if scopes := sys.modules.get("mmengine.registry.default_scope"):
        scopes.DefaultScope._instance_dict.clear()


@pytest.fixture
def run_python(tmp_path: Path) -> RunPython:
    """Runs code, or ``arguments``, in a new Python process outside the source tree; stderr is part of stdout."""
    return python_in(tmp_path)


def python_in(folder: Path) -> RunPython:
    """``run_python`` for fixtures that are made once."""

    def run(
        code: str | None = None,
        *arguments: object,
        python: str | Path = sys.executable,
        cwd: str | Path = folder,
        check: bool = True,
        stdin: str | None = None,
        **environment: str,
    ) -> subprocess.CompletedProcess[str]:
        command = [str(python), *([] if code is None else ["-c", code]), *map(str, arguments)]
        process = subprocess.run(
            command,
            cwd=cwd,
            env=clean_environment(**environment),
            input=stdin,
            text=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            check=False,
        )
        if check and process.returncode:
            pytest.fail(f"{' '.join(command)}\nexit code {process.returncode}\n{process.stdout[-6000:]}")
        return process

    return run


# Imports modules once, then runs each program in a fork of its own with a folder of its own.
RUN_PROGRAMS = """
import importlib, json, os, sys, traceback
modules, programs = json.loads(sys.stdin.read())
for module in modules:
    importlib.import_module(module)
results = {}
for number, (name, program) in enumerate(programs.items()):
    folder = os.path.abspath(f"program{number}")
    os.mkdir(folder)
    if not (child := os.fork()):
        os.chdir(folder)
        output = os.open("../output", os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        os.dup2(output, 1)
        os.dup2(output, 2)
        status = 1
        try:
            exec(compile(program, name, "exec"), {"__name__": "__main__"})
            status = 0
        except BaseException:
            traceback.print_exc()
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    results[name] = status, open("output").read()
json.dump(results, open("results.json", "w"))
"""


@pytest.fixture
def run_programs(tmp_path: Path) -> RunPrograms:
    """Runs programs, each as if in a new process in which ``imported`` is imported; returns what each printed.

    Those that ``failing`` names must end with the exit code that it gives.
    """
    return programs_in(tmp_path)


def programs_in(folder: Path) -> RunPrograms:
    """``run_programs`` for fixtures that are made once."""

    def run(
        programs: Mapping[str, str],
        imported: Sequence[str] = ("torch",),
        failing: Mapping[str, int] = MappingProxyType({}),
    ) -> dict[str, str]:
        python_in(folder)(RUN_PROGRAMS, stdin=json.dumps((imported, programs)))
        results = json.loads((folder / "results.json").read_text())
        failed = [
            f"{name}: exit code {status}\n{text[-3000:]}"
            for name, (status, text) in results.items()
            if status != failing.get(name, 0)
        ]
        if failed:
            pytest.fail("\n".join(failed))
        return {name: text for name, (_, text) in results.items()}

    return run


def clean_environment(**changes: str) -> dict[str, str]:
    """The environment without what would change how sa_layers is found, built or computed."""
    kept = {k: v for k, v in os.environ.items() if not k.startswith("SA_LAYERS_") and k not in ("PYTHONPATH", "CXX")}
    return kept | {"PYTHONWARNINGS": "default"} | changes


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leaves out combinations, marks the tests that start processes, and orders the rest.

    Of a test with several ``parametrize``, enough combinations are run for every pair of values on every device and
    with every backend. Slow tests are first, lest a worker begin one when others are done.
    """
    if not exhaustive():
        chosen = set(choose(items))
        config.hook.pytest_deselected(items=[item for item in items if item not in chosen])
        items[:] = [item for item in items if item in chosen]
    for item in items:
        if isinstance(item, pytest.Function) and starts_processes(item):
            item.add_marker("process")
    slow = {item.path for item in items if item.get_closest_marker("slow")}
    items.sort(key=lambda item: item.path not in slow)


def choose(items: list[pytest.Item]) -> Iterator[pytest.Item]:
    """Cases with every pair of values; ``name``, ``device`` and ``place`` are those of a backend or a subject."""
    groups: dict[tuple[str, str], list[pytest.Item]] = {}
    for item in items:
        parameters = item.callspec.params if hasattr(item, "callspec") else {}
        where = str([parameters.get(key) for key in ("name", "device", "place")])
        groups.setdefault((item.nodeid.partition("[")[0], where), []).append(item)
    for cases in groups.values():
        values = [item.callspec._idlist if hasattr(item, "callspec") else () for item in cases]
        yield from (cases[index] for index in cover_pairs(values))


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report() -> Generator[None, pytest.CollectReport, pytest.CollectReport]:
    """Fails modules that ``pytest.importorskip`` skips although every package should be installed."""
    report = yield
    return refuse_skip(report)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Fails tests that ``pytest.importorskip`` skips although every package should be installed."""
    report = yield
    return refuse_skip(report)


def refuse_skip(report: pytest.CollectReport | pytest.TestReport) -> pytest.CollectReport | pytest.TestReport:
    """Turns the skip of a test whose package is missing into a failure under SA_LAYERS_REQUIRE_ALL."""
    if REQUIRE_ALL and report.skipped and "could not import" in str(report.longrepr):
        report.outcome = "failed"
        report.longrepr = f"skipped although SA_LAYERS_REQUIRE_ALL is set: {report.longrepr}"
    return report
