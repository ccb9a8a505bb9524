"""What is on this machine: system, packages, NVIDIA's driver, variables. Imports no torch."""

from __future__ import annotations

import ipaddress
import os
import platform
import re
import shutil
import sys
from collections.abc import Mapping
from importlib import metadata
from pathlib import Path

from attnet.base.apex import find as find_apex
from attnet.base.device import KINDS
from attnet.base.files.paths import repository_root, resolve_path
from attnet.base.host import usable_cores
from attnet.doctor.fact import Fact, first_line, run_tool

try:
    import resource
except ImportError:  # Windows has no such limits
    resource = None

_GIB = 2**30
_CGROUP = Path("/sys/fs/cgroup")
# Variables that change what torch and CANN do; shown when set, and no others.
_SETTINGS = (
    "TORCH_DEVICE_BACKEND_AUTOLOAD",
    "OMP_NUM_THREADS",
    "HCCL_CONNECT_TIMEOUT",
    "HCCL_WHITELIST_DISABLE",
    "TASK_QUEUE_ENABLE",
    "ASCEND_GLOBAL_LOG_LEVEL",
    "ASCEND_LAUNCH_BLOCKING",
    "CUDA_LAUNCH_BLOCKING",
    "MASTER_ADDR",
    "MASTER_PORT",
    "RANK",
    "WORLD_SIZE",
    "LOCAL_RANK",
    "LOCAL_WORLD_SIZE",
)
# Values that make every step slow, and why.
_SLOW = {
    ("ASCEND_LAUNCH_BLOCKING", "1"): "every operator waits for the one before it",
    ("CUDA_LAUNCH_BLOCKING", "1"): "every operator waits for the one before it",
    ("TASK_QUEUE_ENABLE", "0"): "operators are launched without the task queue",
    ("ASCEND_GLOBAL_LOG_LEVEL", "0"): "CANN logs every detail to disk",
    ("ASCEND_GLOBAL_LOG_LEVEL", "1"): "CANN logs every detail to disk",
}


def system() -> dict[str, Fact]:
    """Python, platform, cores, memory, disk."""
    version, oldest = platform.python_version(), (3, 10)
    python = Fact(f"{version}, {sys.executable}")
    if sys.version_info < oldest:
        python = Fact(python.value, "attnet needs 3.10 or newer", "make an environment with Python 3.10 or newer")
    return {
        "python": python,
        "platform": Fact(platform.platform(terse=True) + f", {platform.machine()}"),
        "cores": _cores(),
        "memory": _memory(),
        "disk": _disk(),
    }


def packages(imported: Fact, npus: bool) -> dict[str, Fact]:
    """torch and torch_npu as they are installed, whether they fit each other, apex, and what notebooks need.

    Args:
        imported: what became of `import torch`.
        npus: whether there are NPUs here.
    """
    torch = version_of("torch")
    notebooks = {name: _notebook_package(name) for name in ("jupyterlab", "ipywidgets", "papermill")}
    fits = _torch_npu(torch, npus)
    return {"torch": _torch(torch), "import torch": imported, "torch_npu": fits, "apex": _apex(), **notebooks}


def nvidia() -> dict[str, Fact]:
    """NVIDIA's driver and the cards it shows."""
    try:
        text = Path("/proc/driver/nvidia/version").read_text(encoding="utf-8", errors="replace")
        loaded = re.search(r"Kernel Module\D*?(\d+\.[\d.]+)", text)
        driver = Fact(loaded[1] if loaded else first_line(text))
    except OSError:
        driver = Fact("none", absent=True)
    answer = run_tool("nvidia-smi", "--query-gpu=name,driver_version,memory.total", "--format=csv,noheader")
    if answer is None:
        return {"driver": driver, "nvidia-smi": Fact("not on PATH", absent=True)}
    text, error = answer
    if error:
        mend = "install or repair NVIDIA's driver, until `nvidia-smi` shows the cards"
        return {"driver": driver, "nvidia-smi": Fact("failed", error, mend)}
    cards = [line.split(", ") for line in text.splitlines() if line.count(", ") == 2]
    if cards and driver.absent:
        driver = Fact(cards[0][1])
    names = [f"{name}, {memory}" for name, _, memory in cards]
    value = "; ".join(f"{names.count(name)} × {name}" for name in dict.fromkeys(names))
    return {"driver": driver, "nvidia-smi": Fact(value or "no cards", absent=not cards)}


def variables(environment: Mapping[str, str]) -> dict[str, Fact]:
    """Which cards may be seen, and the settings that are set."""
    shown = {kind.visible: _visible(environment.get(kind.visible)) for kind in KINDS.values() if kind.visible}
    for name in _SETTINGS:
        if (value := environment.get(name)) is not None:
            why = _SLOW.get((name, value.strip()), "")
            value = _address(value) if name == "MASTER_ADDR" else value
            shown[name] = Fact(value or "empty", f"slow: {why}" if why else "", f"`unset {name}`" if why else "")
    return shown


def version_of(package: str) -> str:
    """The installed version of a package, "" when there is none."""
    try:
        return metadata.version(package) or ""
    except metadata.PackageNotFoundError:
        return ""


def torch_bounds() -> tuple[str, str]:
    """The oldest version of torch that attnet takes and the first that it does not, as its installation says."""
    try:
        asked = metadata.requires("attnet") or []
    except metadata.PackageNotFoundError:
        project = repository_root() / "pyproject.toml"
        asked = re.findall(r'"([^"]+)"', project.read_text(encoding="utf-8")) if project.is_file() else []
    line = next((line for line in asked if re.match(r"torch\s*[<>=]", line)), "")
    bounds = dict(re.findall(r"(>=|<)\s*([\d.]*\d)", line))
    return bounds.get(">=", ""), bounds.get("<", "")


def wanted_torch() -> str:
    """The same as pip takes it; its quotes are for the shell."""
    oldest, beyond = torch_bounds()
    return f'"torch>={oldest},<{beyond}"' if oldest and beyond else "torch"


def torch_in_words() -> str:
    """The same in words."""
    oldest, beyond = torch_bounds()
    return f"torch {oldest} and newer, before {beyond}" if oldest and beyond else "torch"


def _is_wanted(version: str) -> bool:
    oldest, beyond = torch_bounds()
    return not (oldest and beyond) or _release(oldest) <= _release(version) < _release(beyond)


def _torch(version: str) -> Fact:
    mend = f"`pip install {wanted_torch()}`"
    if not version:
        return Fact("not installed", "nothing works without it", mend)
    if not _is_wanted(version):
        return Fact(version, f"attnet is made for {torch_in_words()}", mend)
    return Fact(version)


def _torch_npu(torch: str, npus: bool) -> Fact:
    version = version_of("torch_npu")
    if not version and npus:
        mend = '`pip install -e ".[ascend]"` in the folder of attnet'
        return Fact("not installed", "there are NPUs here, and torch cannot use them without it", mend)
    if not version:
        return Fact("not installed", absent=True)
    asked = [re.match(r"torch\s*==\s*([\d.]*\d)", line) for line in metadata.requires("torch_npu") or []]
    wanted = next((found[1] for found in asked if found), ".".join(map(str, _release(version))))
    if _release(torch) == _release(wanted):
        return Fact(f"{version}, for torch {wanted}")
    mend = f"`pip install torch=={wanted}`, which this torch_npu needs"
    if not _is_wanted(wanted):
        mend = (
            f"`pip install {wanted_torch().replace('torch', 'torch_npu')}`, which brings the torch that belongs to it"
        )
    return Fact(f"{version}, for torch {wanted}", f"torch is {torch or 'missing'}", mend)


def _release(version: str) -> tuple[int, ...]:
    """(2, 13, 0) of "2.13.0+cpu" and of "2.13.0.post1"."""
    found = re.match(r"\d+(?:\.\d+){0,2}", version)
    return tuple(map(int, found[0].split("."))) if found else ()


def _notebook_package(name: str) -> Fact:
    version = version_of(name)
    return Fact(version) if version else Fact("not installed", "the notebooks need it", f"`pip install {name}`")


def _apex() -> Fact:
    apex = find_apex()
    if apex.kind == "none":
        return Fact("not installed; not needed", absent=True)
    value = f"{apex.kind}{f' {apex.version}' if apex.version else ''}: {apex.use}"
    if apex.kind == "unrelated":
        mend = "`pip uninstall apex`" if apex.version else f"take {apex.path} off Python's path"
        return Fact(value, "PyPI's `apex` is another project, of no use to torch", mend)
    if not apex.parts:
        return Fact(value, "it is not whole", "build it again with its extensions; attnet works without it, too")
    return Fact(value)


def _cores() -> Fact:
    value = f"{usable_cores()} usable of {os.cpu_count() or 1}"
    quota = _read(_CGROUP / "cpu.max").split()
    if len(quota) == 2 and quota[0] != "max":
        value += f", limited to {int(quota[0]) / int(quota[1]):g} by the container"
    return Fact(value)


def _memory() -> Fact:
    sizes = dict(re.findall(r"^(\w+):\s+(\d+) kB", _read(Path("/proc/meminfo")), re.MULTILINE))
    if "MemTotal" not in sizes:
        return Fact("unknown", absent=True)
    total, free = (int(sizes.get(name, 0)) * 1024 / _GIB for name in ("MemTotal", "MemAvailable"))
    value = f"{total:.1f} GiB, {free:.1f} GiB free"
    limit = _read(_CGROUP / "memory.max").strip()
    value += f", limited to {int(limit) / _GIB:.1f} GiB by the container" if limit.isdigit() else ""
    most = resource.getrlimit(resource.RLIMIT_AS)[0] if resource else -1
    return Fact(value + (f", a process to {most / _GIB:.1f} GiB by `ulimit -v`" if 0 <= most < total * _GIB else ""))


def _disk() -> Fact:
    runs = resolve_path("runs")
    folder = next(path for path in (runs, *runs.parents) if path.exists())
    free = shutil.disk_usage(folder).free
    value = f"{free / _GIB:.1f} GiB free at {runs}"
    elsewhere = "train with output_dir=<another folder>"
    if not os.access(folder, os.W_OK):
        return Fact(value, f"{folder} cannot be written", f"{elsewhere}, or change its permissions")
    if free < _GIB:
        return Fact(value, "less than 1 GiB for runs", f"remove old runs, or {elsewhere}")
    return Fact(value)


def _read(file: Path) -> str:
    try:
        return file.read_text(encoding="utf-8")
    except OSError:
        return ""


def _visible(value: str | None) -> Fact:
    if value is None:
        return Fact("not set: every card may be seen", absent=True)
    return Fact(value or "empty")


def _address(value: str) -> str:
    """This machine's own address as it is; anything else may tell where somebody works."""
    try:
        own = value == "localhost" or ipaddress.ip_address(value).is_loopback
    except ValueError:
        own = False
    return value if own else "another machine, not shown"
