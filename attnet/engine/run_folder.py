"""A run's folder: config.json, metrics.jsonl, last.pt, best.pt, log.txt, result.json; and which folder is whose."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from attnet.base.errors import ConfigError, say
from attnet.base.files.atomic import FREE, save, write_text
from attnet.base.files.opening import append_to, read_small
from attnet.base.files.paths import relative_to_root, resolve_path
from attnet.base.json_files import misfit, to_json
from attnet.base.processes import is_alive
from attnet.engine.distributed import LAUNCHER
from attnet.engine.holding.lease import Lease
from attnet.engine.holding.lock import hold
from attnet.engine.hooks.names import is_own_hook
from attnet.engine.names import CLAIM, CONFIG, LAST, LOG, METRICS, OURS, OWNER, PREVIOUS, RESULT, STEP
from attnet.engine.parameters import TrainConfig
from attnet.model.units import is_own_code
from attnet.model.weights.formats import read_torch

# What a checkpoint says of its place.
_CHECKPOINT = {"epoch": int, "step": int, "shards": int, "seconds": float, "rows": list[dict[str, object]]}
_CHECKPOINT |= {"data": dict[str, object]}
_NOTE, _LONGEST_PID = 1000, 9  # bytes of a note; digits of a process's number
USUAL = "runs/train_1p"  # where a run goes that is given no folder


class RunFolder:
    """One run's files. Held by one process at a time; the lock goes when that process does.

    With `held=False` it is only read. What a worker of a sweep has started writes under the worker's lease, and nothing
    any more once that is lost.

    Raises:
        InUse: another process holds it. Lost: so has another the lease. ConfigError: it cannot be written.
    """

    def __init__(self, path: Path, held: bool = True) -> None:
        self.path, self._is_logged = path, True
        self.lease = Lease.of_environment(path) if held else None
        self._lock = hold(path, self.lease) if held else None
        self.is_held = held

    def __enter__(self) -> RunFolder:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Let other processes have the folder."""
        if self._lock is not None:
            with contextlib.suppress(OSError):  # who holds it, as long as somebody does
                (self.path / OWNER).unlink(missing_ok=True)
            self._lock.release()

    def log(self, line: str) -> None:
        """Append a line to log.txt; ranks that do not hold the folder stay silent.

        Where that fails, as on a full disk, it is said once on stderr, and the run goes on.
        """
        if not self.is_held:
            return
        try:
            with append_to(self.path / LOG) as file:
                file.write(line + "\n")
        except OSError as error:
            if self._is_logged:
                why = f"cannot be written ({error.strerror}); the run goes on, its lines are shown only here"
                say(f"attnet: {self.path / LOG}: {why}", sys.stderr)
            self._is_logged = False

    def beat(self) -> None:
        """Say that this process is at work, where a lease asks for that; Lost where another has the folder now."""
        if self.lease is not None:
            self.lease.beat()

    def write_json(self, name: str, content: Mapping[str, object]) -> None:
        """Write a JSON file of the folder atomically."""
        self._write(name, to_json(content, indent=2) + "\n")

    def write_metrics(self, rows: list[dict]) -> None:
        """Replace metrics.jsonl, an object an epoch."""
        self._write(METRICS, "".join(to_json(row) + "\n" for row in rows))

    def save(self, name: str, content: Mapping[str, object], keep: str = "") -> None:
        """Write a checkpoint, as `base.files.atomic.save`; what was called so before goes to `keep`, if given."""
        save(content, self.path / name, self.path / keep if keep else None, self.lease or FREE)

    def _write(self, name: str, text: str) -> None:
        write_text(self.path / name, text, self.lease or FREE)


def _note(file: Path) -> str:
    """What a small file of ours says, whatever has become of it; "" where it is none."""
    return (read_small(file, _NOTE) or b"").decode(errors="replace").strip()


def load_newest(folder: Path, names: Sequence[str] = (STEP, LAST, PREVIOUS)) -> dict | None:
    """The readable checkpoint of a run folder that got farthest, or None when there is none."""
    readable = []
    for name in names:
        # Missing, or torn by a crash of the machine: then another one is whole.
        with contextlib.suppress(Exception):
            state = read_torch(folder / name)
            if not misfit(state, _CHECKPOINT) and {"epoch", "step"} <= state.keys():
                readable.append(state)
    return max(readable, key=lambda state: (state["epoch"], state["step"]), default=None)


def checkpoint(folder: Path, shards: int) -> tuple[dict | None, str]:
    """The checkpoint that a run goes on from with `shards` micro-batches a step, and what is to be said of that.

    A position within an epoch means nothing to another number of them; then the end of the epoch before it is taken.
    """
    state = load_newest(folder)
    if state is None or not state["step"] or state.get("shards") == shards:
        return state, ""
    return load_newest(folder, names=(LAST, PREVIOUS)), (
        f"resume: step {state['step']} of epoch {state['epoch'] + 1} was reached with {state.get('shards', 'unknown')} "
        f"micro-batches a step, now there are {shards}; going on from the end of epoch {state['epoch']}"
    )


def epoch_files(folder: str | Path) -> list[Path]:
    """The weights a run kept along its way (`keep_epochs`), by epoch; a relative path starts at the root."""
    return sorted(resolve_path(folder).glob("epoch_*.pt"))


def is_finished(path: Path) -> bool:
    """Whether a run ended here."""
    return (path / RESULT).exists()


def finished_runs(*folders: Path) -> list[Path]:
    """Folders of finished runs at or below `folders`, each once, oldest first."""
    found = {path.parent for folder in folders for path in folder.rglob(RESULT)}
    return sorted(found, key=lambda path: (path / RESULT).stat().st_mtime)


# -- which folder ------------------------------------------------------------------------------------------------


def run_to_resume(config: TrainConfig) -> Path | None:
    """The interrupted run that `resume` asks for; None to begin a new one.

    Raises:
        ConfigError: `resume` names a folder without an interrupted run.
    """
    if config.resume == "auto":
        begun = [file for path in _numbered(_base(config)) if (file := path / CONFIG).exists()]
        newest = max(reversed(begun), key=lambda file: file.stat().st_mtime_ns, default=None)
        return newest.parent if newest and not is_finished(newest.parent) else None
    return resumable(resolve_path(config.resume)) if config.resume else None


def new_run(config: TrainConfig) -> RunFolder:
    """The folder of a new run: `output_dir` if nothing of a run is there, else `output_dir-2`, `-3` ...

    Raises:
        ConfigError: a folder that cannot be written.
    """
    base = _base(config)
    taken = [path for path in _numbered(base) if _is_taken(path)]
    for path in _candidates(base, taken):
        try:
            path.mkdir(parents=True, exist_ok=True)
            folder = RunFolder(path)
        except OSError as error:
            raise ConfigError(f"output_dir={path}: cannot be written ({error.strerror}); give another one") from None
        if not _is_taken(path):  # nobody was quicker
            return folder
        folder.close()
    raise AssertionError("unreachable: there is always a next number")


def _is_taken(path: Path) -> bool:
    """Whether anything of a run is there, or a launcher that is not ours holds it for ranks that have yet to begin."""
    if any((path / name).exists() for name in OURS) or any(path.glob("epoch_*.pt")):
        return True
    holder = _note(path / CLAIM)
    if not (holder.isascii() and holder.isdecimal() and len(holder) <= _LONGEST_PID):
        return False
    return holder not in (os.environ.get(LAUNCHER), str(os.getpid())) and is_alive(int(holder))


def _base(config: TrainConfig) -> Path:
    return resolve_path(config.output_dir or USUAL)


def _numbered(base: Path) -> list[Path]:
    """`base`, `base-2`, `base-3` ... as far as they exist, in that order."""
    found = [base] if base.is_dir() else []
    if base.parent.is_dir():
        beside = (path.name for path in base.parent.iterdir())
        numbers = (name.removeprefix(base.name + "-") for name in beside if name.startswith(base.name + "-"))
        found += [base.with_name(f"{base.name}-{n}") for n in sorted(int(n) for n in numbers if n.isdecimal())]
    return found


def _candidates(base: Path, taken: list[Path]) -> Iterator[Path]:
    if base not in taken:
        yield base
    last = taken[-1] if taken else base
    suffix = last.name.removeprefix(base.name + "-")
    number = int(suffix) if suffix.isdecimal() else 1
    while True:
        number += 1
        yield base.with_name(f"{base.name}-{number}")


def resumable(path: Path) -> Path:
    """The folder of an interrupted run, as it is; ConfigError for any other."""
    if not (path / CONFIG).exists():
        raise ConfigError(f"resume={path}: no run there (no {CONFIG}); give the folder of an interrupted run")
    if is_finished(path):
        raise ConfigError(f"resume={path}: this run is finished (see {RESULT}); begin a new one without resume")
    return path


def resuming(config: TrainConfig) -> tuple[TrainConfig, Path | None]:
    """With `resume` the configuration that the interrupted run goes on with, and its folder; else as it is.

    Raises:
        ConfigError: `resume` names no interrupted run, or one with a unit outside this package, which is not imported
            because a file names it. A hook of that kind (`log`) is left out.
    """
    resumed = run_to_resume(config)
    if resumed is None:
        return config, None
    begun = TrainConfig.load(resumed / CONFIG)
    if begun.unit is not None and is_own_code(begun.unit) and config.unit != begun.unit:
        raise ConfigError(
            f"resume={resumed}: begun with unit={begun.unit!r}, which is no part of attnet, and code is not run "
            f"because {CONFIG} names it; if you trust it, give unit={begun.unit!r} yourself"
        )
    if is_own_hook(begun.log) and config.log != begun.log:
        begun = begun.replace(log="")
    return begun.continued(config), resumed


def resume_lines(
    folder: Path, begun: TrainConfig, asked: TrainConfig, position: tuple[int, int], usual: Mapping[str, object]
) -> list[str]:
    """What goes on, from where; what is as it was begun, and what is taken from `asked`: lines of a plan.

    Args:
        folder, begun: the run, and the parameters it was begun with.
        asked: those given now.
        position: epochs that are done, and steps of the next one.
        usual: what mode, recipe and device set, which is not worth a word.
    """
    (epoch, step), of = position, begun.total_epochs
    where = f"after epoch {epoch} of {of}" + (f" and {step} steps of the next" if step else "")
    left = "one epoch is" if of - epoch == 1 else f"{of - epoch} epochs are"
    own = [n for n in begun.fields() if n not in begun.named(here=True) and n != "output_dir"]  # which is `folder`
    changed = [n for n, value in asked.given().items() if n in own and value != getattr(begun, n)]
    kept = [n for n, v in begun.given().items() if n in own and n not in changed and v and v != usual.get(n)]
    fixed = begun.named(decides="always")
    parts = {
        "as it was begun, and fixed until its end": [f"{n}={getattr(begun, n)}" for n in kept if n in fixed],
        "as it was begun, but free to change": [f"{n}={getattr(begun, n)}" for n in kept if n not in fixed],
        "given anew": [f"{n}={getattr(asked, n)} (was {getattr(begun, n)})" for n in changed],
    }
    lines = [f"resume: {relative_to_root(folder)} goes on {where}; {left} left"]
    return lines + [f"{words}: {', '.join(values)}" for words, values in parts.items() if values]


def check_same_run(stored: TrainConfig, config: TrainConfig) -> None:
    """ConfigError where a run would go on with other parameters than it was begun with, with both values of each."""
    if changed := stored.fixed_changes(config):
        raise ConfigError(
            f"resume: this run was begun with other parameters: {', '.join(changed)}; "
            "leave them as they were, or begin a new run without resume"
        )
