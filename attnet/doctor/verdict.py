"""What the child process found out about torch (see `probe`), judged: problems and mends. Imports no torch."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from attnet.base.device import KINDS
from attnet.base.host import is_out_of_memory
from attnet.doctor import ascend, machine, probe
from attnet.doctor.fact import Fact

_TOOLS = {"NPU": "npu-smi info", "GPU": "nvidia-smi"}


def import_torch(failure: Sequence[str], found: Mapping, torch_npu: bool, cann: Path | None) -> Fact:
    """Whether `import torch` works, and which build it is.

    Args:
        failure: the errors of a plain `import torch`.
        found: what the child found, the second one (without other backends) where the first one failed.
        torch_npu: whether torch_npu is installed.
        cann: CANN's folder.
    """
    if "errors" in found:
        errors = _joined(dict.fromkeys([*failure, *found["errors"]]))
        again = "" if "No module named 'torch'" in errors else " --force-reinstall"
        if is_out_of_memory(errors):
            return Fact("fails", errors, "let a process have more memory: `ulimit -v unlimited`, or a larger job")
        return Fact("fails", errors, f"`pip install{again} {machine.wanted_torch()}`")
    build = found["torch"]
    kind = next((f"{name} {build[name]}" for name in ("CUDA", "ROCm") if build[name]), "CPU build")
    value = f"{build['version']}, {kind}"
    if not failure:
        return Fact(value)
    problem, without = _joined(failure), f"`export {probe.AUTOLOAD}=0`"
    if "Two accelerators" in problem:
        mend = f"for the NPU install the CPU build of torch, for the GPU {without}"
    elif torch_npu or "torch_npu" in problem:
        first = "install CANN and" if cann is None else "use the CANN that is here:"
        mend = f"for the NPU {first} `{ascend.set_env(cann)}` in this shell; to work on without the NPU {without}"
    else:
        mend = f"uninstall or repair the backend that torch loads; to work on without it {without}"
    return Fact(f"fails; with {probe.AUTOLOAD}=0 it works: {value}", problem, mend)


def with_nvidia(fact: Fact, found: Mapping) -> Fact:
    """The fact of `import_torch` on a machine with NVIDIA's driver: a CPU build would leave the GPU idle."""
    if fact.problem or has_cuda(found):
        return fact
    mend = (
        f"`pip uninstall torch`, then install the CUDA build of {machine.torch_in_words()} by the command that "
        "pytorch.org shows for this system"
    )
    return replace(fact, problem="NVIDIA's driver is here, but this torch cannot use it", mend=mend)


def has_cuda(found: Mapping) -> bool:
    """Whether this torch is built for GPUs."""
    build = found.get("torch", {})
    return bool(build.get("CUDA") or build.get("ROCm"))


def device(found: Mapping, expected: bool) -> Fact:
    """One kind of device; `expected`: its driver and a torch for it are here, so that there should be a card."""
    kind = found["kind"]
    if "errors" in found:
        mend = f"see whether `{_TOOLS[kind]}` shows healthy cards" if kind in _TOOLS else "report it as a bug"
        return Fact("unusable", _joined(found["errors"]), mend)
    if found["count"]:
        names = [f"{found['names'].count(name)} × {name}" for name in dict.fromkeys(found["names"])]
        memory = [f"{found['memory'] / 2**30:.1f} GiB" + " each" * (found["count"] > 1)] if found["memory"] else []
        return Fact(", ".join([*names, *memory, " and ".join(found["half"]), found["backend"]]))
    if not expected:
        return Fact("none", absent=True)
    if kind == "NPU" and not probe.loads_backends(os.environ):
        return Fact("none", f"{probe.AUTOLOAD} keeps torch from loading torch_npu", f"`unset {probe.AUTOLOAD}`")
    if (variable := KINDS[kind].visible) in os.environ:
        return Fact("none", f"the driver is here, but {variable} leaves no card", f"`unset {variable}`")
    library = "CANN" if kind == "NPU" else "the CUDA of this torch"
    return Fact(
        "none", "the driver is here, but torch can use no card", f"update the driver to one that fits {library}"
    )


def workbench(found: Mapping) -> dict[str, Fact]:
    """attnet's data and plan."""
    data, plan = found.get("data"), found.get("plan")
    if data is None:
        return {"plan": Fact("none", "attnet cannot work without torch", "mend `import torch` first")}
    if "errors" in data:
        cifar = Fact("unusable", _joined(data["errors"]), "give a data_path that can be read")
    elif data["found"]:
        cifar = Fact(data["found"])
    else:
        cifar = Fact(f"none at {data['asked']}; `attnet download cifar10` fetches it", absent=True)
    if isinstance(plan, list):
        ready = Fact("ready")
    else:
        errors = _joined(plan["errors"])
        mend = "report it as a bug, with the output of --json"
        if plan["mistake"]:
            mend = "correct what it names"
        elif "No module named" in errors:
            mend = "`pip install -e .` in the folder of attnet"
        ready = Fact("none", errors, mend)
    return {"CIFAR-10": cifar, "plan": ready}


def is_usable(found: Mapping) -> bool:
    """Whether attnet came as far as a plan, or as far as a mistake in what it was asked."""
    plan = found.get("plan", {"mistake": False})
    return isinstance(plan, list) or plan["mistake"]


def expectation(found: Mapping, failure: Sequence[str]) -> list[str]:
    """What attnet will do here: the plan's lines, and what holds beside them; nothing where there is no plan."""
    plan = found.get("plan")
    if not isinstance(plan, list):
        return []
    here = next((device for device in found["devices"] if device.get("count")), {"count": 1})
    cards = []
    if here["count"] > 1:
        everything = f"device_num={here['count']} trains on all of them, a process a card"
        cards = [f"cards: one of {here['count']} {here['kind']}s; {everything}"]
    return ([f"only with {probe.AUTOLOAD}=0, as things are"] if failure else []) + plan + cards


def _joined(errors: Iterable[str]) -> str:
    return "; ".join(error.rstrip(".") for error in errors)
