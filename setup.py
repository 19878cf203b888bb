"""Builds sa_layers: csrc/ into one extension and one more for CUDA, three source folders into one installed package.

The sources of the CPU kernels are installed too, for the custom operators of other runtimes.

Environment:
    SA_LAYERS_KERNELS: 'auto' (default: compile when torch and a C++ compiler are there, otherwise install without),
        'required' (fail when they cannot be compiled), 'off'.
    SA_LAYERS_CUDA: the same for the CUDA kernels, which also need nvcc, of the CUDA release that torch was built for.
        'auto' compiles them only for a GPU of this machine or for a TORCH_CUDA_ARCH_LIST.
    TORCH_CUDA_ARCH_LIST: what the CUDA kernels are compiled for; by default the GPUs of this machine, or without one
        "8.0;9.0+PTX". "7.5;8.0;8.6;9.0;10.0;12.0+PTX" is all that CUDA 13 knows.
    MAX_JOBS: how many files are compiled at once.
"""

import contextlib
import json
import os
import re
import shlex
import shutil
import subprocess
import sysconfig
from pathlib import Path

import setuptools

# pip checks pyproject.toml's requirements only where it isolates the build; older releases fail with a traceback.
if int(setuptools.__version__.split(".")[0]) < 77:
    raise SystemExit(
        f"sa_layers: --no-build-isolation needs setuptools >= 77, and {setuptools.__version__} is installed: "
        "pip install 'setuptools>=77' wheel ninja"
    )

from setuptools import Command, Extension, setup
from setuptools.command.bdist_wheel import bdist_wheel
from setuptools.command.build_py import build_py

ROOT = Path(__file__).parent.resolve()
INDEX = "model-index.yml"
MODE = os.environ.get("SA_LAYERS_KERNELS", "auto")
CUDA_MODE = os.environ.get("SA_LAYERS_CUDA", "auto")
# Nothing newer than this release's stable ABI is called, so one binary runs on it and on every later torch.
TORCH_FLOOR, TORCH_TARGET = "2.10", "0x020a000000000000"
COMPILE_FLAGS = ["-O3", "-std=c++17", "-Wall", "-Wextra", "-Wno-unused-parameter", "-fvisibility=hidden", "-g0"]
COMPILE_FLAGS += [f"-DTORCH_TARGET_VERSION={TORCH_TARGET}"]

for name, mode in (("SA_LAYERS_KERNELS", MODE), ("SA_LAYERS_CUDA", CUDA_MODE)):
    if mode not in ("auto", "required", "off"):
        raise SystemExit(f"{name} must be 'auto', 'required' or 'off', got {mode!r}")


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


def files(*patterns: str) -> list[str]:
    return sorted(str(path.relative_to(ROOT)) for pattern in patterns for path in ROOT.glob(pattern))


def kernel_extension() -> Extension:
    """Schemas, bindings and CPU kernels."""
    from torch.utils.cpp_extension import CppExtension

    return CppExtension(
        "sa_layers.kernels",
        sources=files("csrc/*.cpp", "csrc/cpu/*/*.cpp"),
        include_dirs=[str(ROOT / "csrc")],
        depends=files("csrc/*.h", "csrc/operands/*.h", "csrc/cpu/*/*.h"),
        # -Wextra would find fault with torch's headers.
        extra_compile_args=COMPILE_FLAGS,
        py_limited_api=True,  # it uses no Python API at all: a plain shared library loaded by torch.ops.load_library
    )


def missing_for_cuda() -> str | None:
    """Why the CUDA kernels cannot be compiled here, or None. A GPU is not needed."""
    if CUDA_MODE == "off":
        return "they were switched off by SA_LAYERS_CUDA=off when sa_layers was installed"
    import torch
    from torch.utils.cpp_extension import CUDA_HOME

    if torch.version.cuda is None:
        return f"sa_layers was installed beside torch {torch.__version__}, which is without CUDA"
    if CUDA_MODE == "auto" and not torch.cuda.is_available() and not os.environ.get("TORCH_CUDA_ARCH_LIST"):
        return "there was no GPU when sa_layers was installed; SA_LAYERS_CUDA=required compiles them all the same"
    if not CUDA_HOME or not (nvcc := Path(CUDA_HOME, "bin", "nvcc")).is_file():
        return "no CUDA compiler (nvcc) was found when sa_layers was installed; CUDA_HOME is the folder of its bin"
    version = subprocess.run([nvcc, "--version"], capture_output=True, text=True).stdout
    release = match[1] if (match := re.search(r"release ([\d.]+)", version)) else "unknown"
    if release.split(".")[0] != torch.version.cuda.split(".")[0]:
        return f"torch {torch.__version__} needs nvcc {torch.version.cuda}, and {nvcc} is {release}"
    return None


def nvcc_folders(flag: str) -> list[str]:
    """Where nvcc itself looks for headers ('-I') or libraries ('-L'): right for wrappers and conda's layout too."""
    from torch.utils.cpp_extension import CUDA_HOME

    command = [Path(CUDA_HOME, "bin", "nvcc"), "--dryrun", "-x", "cu", os.devnull]
    steps = subprocess.run(command, capture_output=True, text=True).stderr
    return list(dict.fromkeys(re.findall(rf'"{flag}([^"]+)"', steps)))


def cuda_architectures() -> list[str]:
    """What torch's build_ext compiles for: 'sm_90' for GPUs, 'compute_90' for the driver to compile for later ones."""
    from torch.utils.cpp_extension import _get_cuda_arch_flags

    return re.findall(r",code=(\w+)", " ".join(_get_cuda_arch_flags()))


def cuda_extension() -> Extension:
    """CUDA kernels and their bindings: a library of its own, so that the other one needs no CUDA library."""
    import torch
    from torch.utils.cpp_extension import CppExtension

    if not torch.cuda.is_available() and not os.environ.get("TORCH_CUDA_ARCH_LIST"):
        os.environ["TORCH_CUDA_ARCH_LIST"] = "8.0;9.0+PTX"
    return CppExtension(
        "sa_layers.kernels_cuda",
        sources=files("csrc/cuda/*/**/*.cpp", "csrc/cuda/*/**/*.cu"),
        include_dirs=[str(ROOT / "csrc"), *nvcc_folders("-I")],
        depends=files("csrc/*.h", "csrc/operands/*.h", "csrc/cuda/*/**/*.h", "csrc/cuda/*/**/*.cuh"),
        extra_compile_args={
            "cxx": [*COMPILE_FLAGS, "-DUSE_CUDA"],
            "nvcc": ["-O3", "-std=c++17", "-Xcompiler", "-fvisibility=hidden"],
        },
        library_dirs=nvcc_folders("-L"),
        libraries=["torch_cuda", "cudart_static", "rt", "dl"],
        py_limited_api=True,
    )


def record(folder: Path, problem: str | None, cuda_problem: str | None) -> None:
    """Writes beside the package's modules what was built, or why not: sa_layers.ops.extension reads it."""
    info: dict = {"kernels": problem is None, "reason": problem}
    info |= {"cuda": not problem and not cuda_problem, "cuda_reason": cuda_problem}
    if problem is None:
        import torch

        info |= {"built_with_torch": torch.__version__, "needs_torch": TORCH_FLOOR}
    if info["cuda"]:
        info["cuda_architectures"] = cuda_architectures()
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "build_info.json").write_text(json.dumps(info, indent=2) + "\n")
    if problem:
        print(f"sa_layers: installing without native kernels, since {problem}")
    elif cuda_problem:
        print(f"sa_layers: installing without CUDA kernels, since {cuda_problem}")


def announce(extensions: list[Extension]) -> None:
    """Says what is compiled before the minutes that it takes; pip shows what a build prints only with --verbose."""
    count = sum(len(extension.sources) for extension in extensions)
    kinds = "CPU kernels" if cuda_problem else f"CPU and CUDA kernels ({', '.join(cuda_architectures())})"
    lines = [f"sa_layers: compiling the {kinds}, {count} files; this takes minutes"]
    if not cuda_problem:
        lines.append("sa_layers: CUDA kernels take most of it; SA_LAYERS_CUDA=off leaves them out")
    if shutil.which("ninja") is None:
        lines.append("sa_layers: one file at a time, since ninja is not installed: pip install ninja")
    print(*lines, sep="\n", flush=True)
    with contextlib.suppress(OSError), open("/dev/tty", "w") as terminal:
        print("", *lines, sep="\n", file=terminal)


def failed(error: Exception) -> str:
    return f"compiling them failed when sa_layers was installed ({' '.join(str(error).split())[:300]})"


def build_ext_command() -> type:
    """torch's build_ext, except that a failed compilation is recorded instead of failing the installation."""
    from torch.utils.cpp_extension import BuildExtension

    class BuildKernels(BuildExtension):
        def run(self) -> None:
            if self.inplace:
                record(ROOT / "sa_layers", problem, cuda_problem)
            announce(self.extensions)
            try:
                super().run()
            except Exception as error:
                if MODE == "required" or CUDA_MODE == "required":
                    raise
                self.extensions.clear()  # or setuptools looks for their files
                record(package_folder(self), failed(error), cuda_problem)

        def build_extension(self, extension: Extension) -> None:
            try:
                super().build_extension(extension)
            except Exception as error:
                if CUDA_MODE == "required" or not extension.name.endswith("_cuda"):
                    raise
                self.extensions.remove(extension)  # the last one; the others are good without it
                record(package_folder(self), problem, failed(error))

        def get_ext_filename(self, fullname: str) -> str:
            return os.path.join(*fullname.split(".")) + ".so"  # no Python API, so no Python version in the name

    return BuildKernels


def package_folder(command: Command) -> Path:
    """Where the installed sa_layers lies: the source tree for editable installs."""
    build = command.get_finalized_command("build_py")
    return ROOT / "sa_layers" if build.editable_mode else Path(build.build_lib) / "sa_layers"


class BuildPackage(build_py):
    """Adds files that are no modules.

    mm_configs/ and the model index are put in sa_layers/.mim, where mim and mmengine look for a package's configs; the
    sources of sa_layers.export.custom_operators in sa_layers/.csrc, unless they are found in the source tree.
    """

    def run(self) -> None:
        super().run()
        record(package_folder(self), problem, cuda_problem)
        folder = package_folder(self) / ".mim"
        folder.mkdir(parents=True, exist_ok=True)
        for source, target in ((ROOT / "mm_configs", folder / "configs"), (ROOT / INDEX, folder / INDEX)):
            if target.is_symlink():
                target.unlink()
            if self.editable_mode:
                target.symlink_to(os.path.relpath(source, folder), target_is_directory=source.is_dir())
            elif source.is_dir():
                shutil.copytree(source, target, dirs_exist_ok=True, ignore=shutil.ignore_patterns("__pycache__"))
            else:
                shutil.copy(source, target)
        if not self.editable_mode:
            sources = package_folder(self) / ".csrc"
            shutil.rmtree(sources, ignore_errors=True)
            shutil.copytree(ROOT / "csrc", sources, ignore=shutil.ignore_patterns("cuda", "library.cpp", "*.md"))


class PlatformWheel(bdist_wheel):
    """No Python API inside: one wheel for every Python, tied to the platform only when kernels were built."""

    def get_tag(self) -> tuple[str, str, str]:
        _, _, platform = super().get_tag()
        return ("py3", "none", platform if self.distribution.has_ext_modules() else "any")


problem = missing_for_kernels()
if problem and MODE == "required":
    raise SystemExit(f"sa_layers: SA_LAYERS_KERNELS=required, but {problem}")
cuda_problem = problem or missing_for_cuda()
if cuda_problem and CUDA_MODE == "required":
    raise SystemExit(f"sa_layers: SA_LAYERS_CUDA=required, but {cuda_problem}")

packages = ["sa_layers"] + [
    ".".join(("sa_layers", *path.parent.relative_to(ROOT / "sa_layers").parts))
    for path in sorted((ROOT / "sa_layers").glob("*/**/__init__.py"))
]
setup(
    packages=[*packages, "sa_layers.backbones"],
    package_dir={"sa_layers": "sa_layers", "sa_layers.backbones": "backbones"},
    package_data={"sa_layers": ["py.typed"], "sa_layers.visualize.page": ["page.html", "page.js"]},
    ext_modules=[] if problem else [kernel_extension()] if cuda_problem else [kernel_extension(), cuda_extension()],
    cmdclass={"build_py": BuildPackage, "bdist_wheel": PlatformWheel}
    | ({} if problem else {"build_ext": build_ext_command()}),
)
