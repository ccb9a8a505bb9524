"""Builds the simulated NPU with the system's C++ compiler, once, and puts it into the environment of processes."""

from __future__ import annotations

import fcntl
import getpass
import hashlib
import importlib.util
import os
import shutil
import subprocess
import tempfile
from pathlib import Path

import torch

HERE = Path(__file__).parent
SOURCES = sorted((HERE / "csrc").iterdir())
PLUGIN = HERE / "plugin"


class NoSimulation(RuntimeError):
    """This machine cannot have simulated NPUs; tests skip with this error's text."""


class NoCompiler(NoSimulation):
    """There is no C++ compiler."""


def environment(folder: Path, cards: int = 8) -> dict[str, str]:
    """A copy of os.environ in which every Python process that imports torch has `cards` simulated NPUs.

    Args:
        folder: gets the entry point by which torch finds the simulation; it has to stay while processes start.
        cards: how many NPUs the machine has; `ASCEND_RT_VISIBLE_DEVICES` chooses among them.

    Raises:
        NoSimulation: there is no C++ compiler, or torch_npu is installed and `npu` is its.
    """
    if importlib.util.find_spec("torch_npu"):
        raise NoSimulation("torch_npu is installed here, and a process has room for one device type npu")
    entry = folder / "npu_simulation-0.dist-info"
    entry.mkdir(parents=True, exist_ok=True)
    (entry / "METADATA").write_text("Metadata-Version: 2.1\nName: npu-simulation\nVersion: 0\n")
    (entry / "entry_points.txt").write_text("[torch.backends]\nsimulated_npu = simulated_npu:_autoload\n")
    # A variable of the caller's own must neither switch the loading off nor hide cards.
    dropped = ("TORCH_DEVICE_BACKEND_AUTOLOAD", "ASCEND_RT_VISIBLE_DEVICES")
    kept = {name: value for name, value in os.environ.items() if name not in dropped}
    paths = [str(folder), str(PLUGIN), *filter(None, [os.environ.get("PYTHONPATH")])]
    return kept | {
        "PYTHONPATH": os.pathsep.join(paths),
        "NPU_SIMULATION_LIBRARY": str(library()),
        "NPU_SIMULATION_CARDS": str(cards),
    }


def library() -> Path:
    """The built library, from the cache where it is there; processes that need it at once build it once.

    Raises:
        NoCompiler: neither `c++` nor `g++` is on the path.
    """
    compiler = shutil.which("c++") or shutil.which("g++")
    if compiler is None:
        raise NoCompiler("the simulated NPU needs a C++ compiler (c++ or g++), and there is none on the path")
    version = subprocess.run([compiler, "--version"], capture_output=True, text=True, check=True).stdout
    key = hashlib.sha256(b"".join(source.read_bytes() for source in SOURCES))
    key.update(f"{torch.__version__} {torch.__file__} {version} {_flags()}".encode())
    cache = Path(tempfile.gettempdir()) / f"attnet-npu-simulation-{getpass.getuser()}-{key.hexdigest()[:16]}"
    built = cache / "libsimulated_npu.so"
    if not built.exists():
        cache.mkdir(mode=0o700, exist_ok=True)
        with open(cache / "lock", "w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if not built.exists():
                _compile(compiler, built)
    return built


def _flags() -> list[str]:
    include = Path(torch.__file__).parent / "include"
    return [
        "-std=c++20",
        "-O1",
        "-fPIC",
        f"-D_GLIBCXX_USE_CXX11_ABI={int(torch.compiled_with_cxx11_abi())}",
        f"-I{include}",
        f"-I{include / 'torch/csrc/api/include'}",
    ]


def _compile(compiler: str, built: Path) -> None:
    """Compile the sources side by side and link them; `built` appears only when it is whole."""
    with tempfile.TemporaryDirectory(dir=built.parent) as scratch:
        units = [source for source in SOURCES if source.suffix == ".cpp"]
        objects = [f"{scratch}/{unit.stem}.o" for unit in units]
        running = [
            subprocess.Popen([compiler, *_flags(), "-c", unit, "-o", object_file], stderr=subprocess.PIPE, text=True)
            for unit, object_file in zip(units, objects, strict=True)
        ]
        errors = [process.communicate()[1] for process in running]
        if any(process.returncode for process in running):
            raise RuntimeError("the simulated NPU does not compile:\n" + "".join(errors))
        torch_libraries = Path(torch.__file__).parent / "lib"
        linked = f"{scratch}/{built.name}"
        libraries = [f"-L{torch_libraries}", f"-Wl,-rpath,{torch_libraries}", "-lc10", "-ltorch_cpu"]
        subprocess.run([compiler, "-shared", *objects, *libraries, "-o", linked], check=True)
        os.replace(linked, built)
