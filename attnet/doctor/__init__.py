"""`attnet doctor`: what is on this machine, what attnet will do with it, and the mend for each problem.

It works where `import torch` does not, since it never imports torch itself (see `probe`). With `--json` its answer
is what a bug report should begin with; names of users and machines are left out.
"""

from __future__ import annotations

import os
import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path

from attnet.base import VERSION
from attnet.doctor import ascend, machine, probe, verdict
from attnet.doctor.fact import Fact, anonymous

_WIDTH = 88
_MARKS = {"ok": "ok", "absent": "–", "problem": "!"}
_TITLES = {
    "system": "System",
    "packages": "Packages",
    "ascend": "Ascend",
    "nvidia": "NVIDIA",
    "devices": "Devices that torch sees",
    "variables": "Environment variables",
    "attnet": "attnet",
}


def examine(
    data_path: str = "",
    roots: Sequence[Path] = ascend.ROOTS,
    device_files: Path = Path("/dev"),
    limit: float = 60.0,
) -> dict:
    """Everything about this machine that decides what attnet does here.

    Args:
        data_path: `TrainConfig`'s; "" for its default.
        roots: folders in which to look for CANN and the NPU's driver.
        device_files: folder in which to look for the NPUs' device files.
        limit: seconds that the child process may take which imports torch.

    Returns:
        `attnet` (its version), `usable` (whether it works here, perhaps without the NPU), `facts` (section -> name ->
        state, value and, where there is one, problem and mend), `plan` (lines). All of it is JSON.
    """
    found = probe.ask(data_path, os.environ, limit)
    failure = found.get("errors", [])
    if failure and probe.loads_backends(os.environ):
        found = probe.ask(data_path, {**os.environ, probe.AUTOLOAD: "0"}, limit)

    torch_npu = bool(machine.version_of("torch_npu"))
    loaded = torch_npu and probe.loads_backends(os.environ)
    npus = bool(ascend.npu_files(device_files))
    nvidia = machine.nvidia()
    gpus = not nvidia["driver"].absent
    imported = verdict.import_torch(failure, found, torch_npu, ascend.find_cann(os.environ, roots))
    if gpus and not npus:
        imported = verdict.with_nvidia(imported, found)
    expected = {"NPU": npus and torch_npu, "GPU": gpus and verdict.has_cuda(found)}
    devices = found["devices"] if isinstance(found.get("devices"), list) else []
    facts = {
        "system": machine.system(),
        "packages": machine.packages(imported, npus),
        "ascend": ascend.examine(os.environ, loaded, roots, device_files),
        "nvidia": nvidia,
        "devices": {device["kind"]: verdict.device(device, expected.get(device["kind"], False)) for device in devices},
        "variables": machine.variables(os.environ),
        "attnet": verdict.workbench(found),
    }
    answer = {
        "attnet": VERSION,
        "usable": verdict.is_usable(found),
        "facts": facts,
        "plan": verdict.expectation(found, failure),
    }
    return _plain(answer)


def report(facts: Mapping) -> str:
    """What `examine` found, for people to read."""
    lines = [f"attnet {facts['attnet']}"]
    mends = []
    for section, part in facts["facts"].items():
        lines += ["", _TITLES[section]] if part else []
        width = max(map(len, part), default=0)
        for name, fact in part.items():
            lines += _wrap(f"{_MARKS[fact['state']]:2}  {name:{width}}  ", fact["value"])
            if fact["state"] == "problem":
                lines += _wrap(" " * (6 + width), fact["problem"])
                mends += _wrap("  - ", f"{name}: {fact['mend']}")
    lines += ["", "To mend", *mends] if mends else ["", "Nothing to mend."]
    if facts["plan"]:
        lines += ["", "What attnet will do here", *(line for text in facts["plan"] for line in _wrap("  - ", text))]
    return "\n".join(lines)


def _wrap(start: str, text: str) -> list[str]:
    """`text` in lines of a terminal's width, the first after `start`; commands and paths stay whole."""
    return textwrap.wrap(
        text,
        _WIDTH,
        initial_indent=start,
        subsequent_indent=" " * len(start),
        break_long_words=False,
        break_on_hyphens=False,
    )


def _plain(value: object) -> object:
    """`value` as JSON takes it, without names of people and machines."""
    if isinstance(value, str):
        return anonymous(value)
    if isinstance(value, Fact):
        return _plain(value.to_dict())
    if isinstance(value, list):
        return [_plain(item) for item in value]
    return {name: _plain(item) for name, item in value.items()} if isinstance(value, dict) else value
