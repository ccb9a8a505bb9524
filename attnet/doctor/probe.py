"""What only torch can tell: its build, the devices, and attnet's plan. Asked for in a child process.

`import torch` may fail, hang, or end the process (it loads torch_npu, which loads CANN and the driver), and none of
that may happen to the process that reports it.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Mapping

from attnet.doctor.fact import first_line

AUTOLOAD = "TORCH_DEVICE_BACKEND_AUTOLOAD"
# The child looks for modules where this process does, wherever it was started.
_CHILD = "import sys; sys.path[:] = sys.argv[2:]; from attnet.doctor import probe; probe.answer(sys.argv[1])"


def loads_backends(environment: Mapping[str, str]) -> bool:
    """Whether `import torch` loads the backends that are installed beside it; torch takes "1" alone for yes."""
    return environment.get(AUTOLOAD, "1") == "1"


def ask(data_path: str, environment: Mapping[str, str], limit: float) -> dict:
    """What a child process finds out; `errors` in place of what it could not.

    Args:
        data_path: `TrainConfig`'s, "" for its default.
        environment: the child's variables.
        limit: seconds the child may take.

    Returns:
        `torch` (version, CUDA, ROCm), `devices` (a list of dicts, one a kind), `data`, `plan`; under each of these
        names either what was found or {"errors": [lines]}. `errors` alone when `import torch` failed.
    """
    command = [sys.executable, "-c", _CHILD, data_path, *sys.path]
    try:
        child = subprocess.run(
            command, capture_output=True, stdin=subprocess.DEVNULL, errors="replace", env=environment, timeout=limit
        )
    except subprocess.TimeoutExpired:
        return {"errors": [f"`import torch` and a look at the devices took more than {limit:g} s"]}
    if child.returncode < 0:
        return {"errors": [f"Python was ended by {_signal(-child.returncode)} while it imported torch or used it"]}
    try:
        return json.loads(child.stdout)
    except ValueError:
        last = first_line("\n".join(reversed(child.stderr.splitlines())))
        return {"errors": [last or f"Python ended with exit status {child.returncode} and said nothing"]}


def answer(data_path: str) -> None:
    """The child's part: print everything as one JSON object, and nothing else."""
    channel = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # what torch_npu and CANN print goes to stderr
    found = _attempt(_torch)
    if "errors" not in found:
        parts = {"devices": _devices, "data": lambda: _data(data_path), "plan": lambda: _plan(data_path)}
        found = {"torch": found} | {name: _attempt(part) for name, part in parts.items()}
    with channel:
        json.dump(found, channel)


def _attempt(part: Callable[[], object]) -> object:
    try:
        return part()
    except Exception as error:  # whatever it is, it is what the report is about
        return {"errors": _lines(error), "mistake": _is_mistake(error)}


def _is_mistake(error: Exception) -> bool:
    """Whether it is one that attnet raises on purpose: the user can mend it, and attnet itself works."""
    from attnet.base.errors import AttnetError

    return isinstance(error, AttnetError)


def _lines(error: BaseException | None) -> list[str]:
    """The first line of an error and of those that caused it."""
    lines = []
    while error is not None:
        name = "" if _is_mistake(error) else f"{type(error).__name__}: "
        lines.append(name + first_line(str(error)))
        error = error.__cause__ or error.__context__
    return list(dict.fromkeys(lines))


def _torch() -> dict[str, str]:
    import torch

    from attnet.base.host import builds

    return {"version": torch.__version__} | builds()


def _devices() -> list[dict[str, object]]:
    from attnet.base import device as devices

    return [{"kind": kind} | _attempt(lambda kind=kind: _cards(kind)) for kind in devices.KINDS]


def _cards(kind: str) -> dict[str, object]:
    from attnet.base import device as devices

    count = devices.count(kind)
    if not count:
        return {"count": 0}
    cards = [devices.choose(kind, index) for index in range(count)]
    return {
        "count": count,
        "names": [card.name for card in cards],
        "memory": cards[0].memory().total,
        "half": [str(half).removeprefix("torch.") for half in cards[0].half_types],
        "backend": cards[0].backend,
    }


def _config(data_path: str) -> object:
    from attnet.engine.parameters import TrainConfig

    return TrainConfig(data_path=data_path) if data_path else TrainConfig()


def _data(data_path: str) -> dict[str, str]:
    from attnet.base.files.paths import relative_to_root, resolve_path
    from attnet.data.registry import find_dataset

    path = resolve_path(_config(data_path).data_path)
    found = find_dataset(path)
    return {"asked": relative_to_root(path), "found": relative_to_root(found) if found else ""}


def _plan(data_path: str) -> list[str]:
    from attnet.engine.plan import make_plan

    plan = make_plan(_config(data_path))
    return plan.describe().splitlines()


def _signal(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"
