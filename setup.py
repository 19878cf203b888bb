"""Builds sa_layers: csrc/ into one extension, three source folders into one installed package.

Environment:
    SA_LAYERS_KERNELS: 'auto' (default: compile when torch and a C++ compiler are there, otherwise install without),
        'required' (fail when they cannot be compiled), 'off'.
    MAX_JOBS: how many files are compiled at once.
"""

import json
import os
import shlex
import shutil
import sysconfig
from pathlib import Path

from setuptools import Command, Extension, setup
from setuptools.command.bdist_wheel import bdist_wheel
from setuptools.command.build_py import build_py

ROOT = Path(__file__).parent.resolve()
MODE = os.environ.get("SA_LAYERS_KERNELS", "auto")
# Nothing newer than this release's stable ABI is called, so one binary runs on it and on every later torch.
TORCH_FLOOR, TORCH_TARGET = "2.10", "0x020a000000000000"

if MODE not in ("auto", "required", "off"):
    raise SystemExit(f"SA_LAYERS_KERNELS must be 'auto', 'required' or 'off', got {MODE!r}")


def missing_for_kernels() -> str | None:
    """Why the kernels cannot be compiled here, or None."""
    if MODE == "off":
        return "they were switched off by SA_LAYERS_KERNELS=off when sa_layers was installed"
    compiler = shlex.split(os.environ.get("CXX") or sysconfig.get_config_var("CXX") or "c++")[0]
    if shutil.which(compiler) is None:
        return f"no C++ compiler was found ({compiler!r}) when sa_layers was installed"
    try:
        import torch.utils.cpp_extension  # noqa: F401
    except ImportError as error:
        return f"torch could not be imported when sa_layers was installed ({error})"
    return None


def kernel_extension() -> Extension:
    """The one extension: schemas, bindings and CPU kernels."""
    from torch.utils.cpp_extension import CppExtension

    return CppExtension(
        "sa_layers.kernels",
        sources=sorted(str(path.relative_to(ROOT)) for path in (ROOT / "csrc").rglob("*.cpp")),
        include_dirs=[str(ROOT / "csrc")],
        depends=sorted(str(path.relative_to(ROOT)) for path in (ROOT / "csrc").rglob("*.[hi]*")),
        extra_compile_args=["-O3", "-std=c++17", "-Wall", "-Wextra", f"-DTORCH_TARGET_VERSION={TORCH_TARGET}"],
        py_limited_api=True,  # it uses no Python API at all: a plain shared library loaded by torch.ops.load_library
    )


def record(folder: Path, problem: str | None) -> None:
    """Writes beside the package's modules what was built, or why not: sa_layers.ops.extension reads it."""
    info: dict = {"kernels": problem is None, "reason": problem}
    if problem is None:
        import torch

        info |= {"built_with_torch": torch.__version__, "needs_torch": TORCH_FLOOR}
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "build_info.json").write_text(json.dumps(info, indent=2) + "\n")
    if problem:
        print(f"sa_layers: installing without native kernels, since {problem}")


def build_ext_command() -> type:
    """torch's build_ext, except that a failed compilation is recorded instead of failing the installation."""
    from torch.utils.cpp_extension import BuildExtension

    class BuildKernels(BuildExtension):
        def run(self) -> None:
            try:
                super().run()
            except Exception as error:
                if MODE == "required":
                    raise
                self.extensions.clear()  # or setuptools looks for their files
                reason = " ".join(str(error).split())[:300]
                record(package_folder(self), f"compiling them failed when sa_layers was installed ({reason})")

        def get_ext_filename(self, fullname: str) -> str:
            return os.path.join(*fullname.split(".")) + ".so"  # no Python API, so no Python version in the name

    return BuildKernels


def package_folder(command: Command) -> Path:
    """Where the installed sa_layers lies: the source tree for editable installs."""
    build = command.get_finalized_command("build_py")
    return ROOT / "sa_layers" if build.editable_mode else Path(build.build_lib) / "sa_layers"


class BuildPackage(build_py):
    """Adds mm_configs/ as sa_layers/.mim/configs, where mim and mmengine look for a package's configs."""

    def run(self) -> None:
        super().run()
        record(package_folder(self), problem)
        configs, target = ROOT / "mm_configs", package_folder(self) / ".mim" / "configs"
        target.parent.mkdir(parents=True, exist_ok=True)
        if target.is_symlink():
            target.unlink()
        if self.editable_mode:
            target.symlink_to(os.path.relpath(configs, target.parent), target_is_directory=True)
        else:
            shutil.copytree(configs, target, dirs_exist_ok=True, ignore=shutil.ignore_patterns("__pycache__"))


class PlatformWheel(bdist_wheel):
    """No Python API inside: one wheel for every Python, tied to the platform only when kernels were built."""

    def get_tag(self) -> tuple[str, str, str]:
        _, _, platform = super().get_tag()
        return ("py3", "none", platform if self.distribution.has_ext_modules() else "any")


problem = missing_for_kernels()
if problem and MODE == "required":
    raise SystemExit(f"sa_layers: SA_LAYERS_KERNELS=required, but {problem}")

packages = ["sa_layers"] + [
    ".".join(("sa_layers", *path.parent.relative_to(ROOT / "sa_layers").parts))
    for path in sorted((ROOT / "sa_layers").glob("*/**/__init__.py"))
]
setup(
    packages=[*packages, "sa_layers.backbones"],
    package_dir={"sa_layers": "sa_layers", "sa_layers.backbones": "backbones"},
    package_data={"sa_layers": ["py.typed"]},
    ext_modules=[] if problem else [kernel_extension()],
    cmdclass={"build_py": BuildPackage, "bdist_wheel": PlatformWheel}
    | ({} if problem else {"build_ext": build_ext_command()}),
)
