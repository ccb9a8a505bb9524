"""A run's folder: config.json, metrics.jsonl, last.pt, best.pt, log.txt, result.json; and reading back what it left."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import socket
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from filelock import FileLock, Timeout

from attnet.base.errors import AttnetError, ConfigError
from attnet.base.files import resolve_path, write_text
from attnet.base.processes import is_alive
from attnet.engine.distributed import LAUNCHER
from attnet.engine.parameters import TrainConfig

if TYPE_CHECKING:
    import pandas

# The end of the last epoch and of the one before; a position within an epoch; the best epoch's weights.
LAST, PREVIOUS, STEP, BEST = "last.pt", "previous.pt", "step.pt", "best.pt"
CONFIG, METRICS, RESULT = "config.json", "metrics.jsonl", "result.json"
# What a file system answers that has no locks: everything else works there.
_NO_LOCKS = (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP)
OURS = (CONFIG, METRICS, RESULT, LAST, BEST, STEP, PREVIOUS)  # a folder that holds one of them is a run's
CLAIM = ".claimed"  # by a launcher, whose process it names, until its ranks have begun
USUAL = "runs/train_1p"  # where a run goes that is given no folder


class RunFolder:
    """One run's files. Held by one process at a time; the lock goes when that process does.

    With `held=False` it is only read.

    Raises:
        ConfigError: another process holds it.
    """

    def __init__(self, path: Path, held: bool = True) -> None:
        self.path = path
        self._lock = _lock(path) if held else None
        self.is_held = held

    def __enter__(self) -> RunFolder:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Let other processes have the folder."""
        if self._lock is not None:
            self._lock.release()

    def log(self, line: str) -> None:
        """Append a line to log.txt; ranks that do not hold the folder stay silent."""
        if not self.is_held:
            return
        with open(self.path / "log.txt", "a", encoding="utf-8") as file:
            file.write(line + "\n")

    def write_json(self, name: str, content: Mapping[str, object]) -> None:
        """Write a JSON file of the folder atomically."""
        write_text(self.path / name, json.dumps(content, indent=2) + "\n")

    def write_metrics(self, rows: list[dict]) -> None:
        """Replace metrics.jsonl, an object an epoch."""
        write_text(self.path / METRICS, "".join(json.dumps(row) + "\n" for row in rows))


def _lock(path: Path) -> FileLock | None:
    """A lock that no second process can hold; ConfigError when one does. None where the file system has no locks."""
    lock, owner = FileLock(path / ".lock"), path / ".owner"
    try:
        lock.acquire(timeout=0)
        owner.write_text(f"process {os.getpid()} on {socket.gethostname()}", encoding="utf-8")
    except Timeout:
        with contextlib.suppress(OSError):
            holder = owner.read_text(encoding="utf-8").strip()
            raise ConfigError(
                f"output_dir={path}: in use by {holder or 'another process'}; wait for it, or give another output_dir"
            ) from None
        raise ConfigError(f"output_dir={path}: in use; wait for it, or give another output_dir") from None
    except NotImplementedError:
        return None
    except OSError as error:
        if error.errno not in _NO_LOCKS:
            raise
        return None
    return lock


def load_newest(folder: Path, names: Sequence[str] = (STEP, LAST, PREVIOUS)) -> dict | None:
    """The readable checkpoint of a run folder that got farthest, or None when there is none."""
    readable = []
    for name in names:
        # Missing, or torn by a crash of the machine: then another one is whole.
        with contextlib.suppress(Exception):
            readable.append(torch.load(folder / name, map_location="cpu", weights_only=True))
    return max(readable, key=lambda state: (state["epoch"], state["step"]), default=None)


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
    holder = (path / CLAIM).read_text(encoding="utf-8").strip() if (path / CLAIM).exists() else ""
    return holder.isdecimal() and holder not in (os.environ.get(LAUNCHER), str(os.getpid())) and is_alive(int(holder))


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
        ConfigError: `resume` names no interrupted run.
    """
    resumed = run_to_resume(config)
    return (config, None) if resumed is None else (TrainConfig.load(resumed / CONFIG).continued(config), resumed)


def check_same_run(stored: TrainConfig, config: TrainConfig) -> None:
    """ConfigError where a run would go on with other parameters than it was begun with, with both values of each."""
    if changed := stored.fixed_changes(config):
        raise ConfigError(
            f"resume: this run was begun with other parameters: {', '.join(changed)}; "
            "leave them as they were, or begin a new run without resume"
        )


# -- what it left ------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Result:
    """A finished run, as in its result.json.

    `top1` (per cent) is the best epoch's, whose weights are best.pt; `last_top1` and `test_loss` (nats) are the
    last epoch's; `fps` is the median over epochs at full size in images/s (None when nothing was trained).
    `top1_flip` is the last epoch's with logits averaged over image and mirror image, where `test_flip` asked for it.
    `memorisation` is what the last epoch's network says of wrongly labelled training images (see attnet.data.noise),
    where there are some.

    `task` is what was learned, `dataset` the same with the number of images. `images` says how many of how many: keys
    train, train_total, test, test_total. `parameters` are those of the run, all of them.
    """

    top1: float
    fps: float | None
    epochs: int
    amp: str
    device: str
    batch_size: int
    model: str
    dataset: str
    last_top1: float
    per_class: dict[str, float]
    confusion: list[list[int]]
    peak_memory: int
    skipped_steps: int
    environment: dict[str, object]
    test_loss: float | None = None  # None in results from before it was kept, as all that follows
    top1_flip: float | None = None
    memorisation: dict[str, float] | None = None
    task: str = ""
    images: dict[str, int] = field(default_factory=dict)
    parameters: dict[str, object] = field(default_factory=dict)
    output_dir: Path = Path()
    history: list[dict] = field(default_factory=list)

    @property
    def kind(self) -> str:
        """measured, rehearsal or simulated: see `standing`."""
        return standing(self.parameters, self.environment, self.images)[0]

    @property
    def notes(self) -> tuple[str, ...]:
        """Why it is no measurement, and what it began with if not at the beginning."""
        why, begun = standing(self.parameters, self.environment, self.images)[1], self.parameters.get("pretrained")
        if self.fps is None and not self.epochs:
            return (*why, f"evaluation alone, of {begun or 'given weights'}")
        return (*why, f"from the weights {begun}") if self.parameters.get("is_pretrain") else why

    @property
    def weights(self) -> Path:
        """The weights of the best epoch; of an evaluation alone (is_train=False), those that were evaluated."""
        best = self.output_dir / BEST
        return best if best.exists() else resolve_path(self.parameters["pretrained"])

    def frame(self) -> pandas.DataFrame:
        """The epochs as a pandas DataFrame, a row each: to be sorted, drawn and exported."""
        import pandas  # here, since a training does without

        return pandas.DataFrame(self.history).set_index("epoch") if self.history else pandas.DataFrame()

    def to_json(self) -> dict[str, object]:
        """The content of result.json; the history is metrics.jsonl."""
        return {name: value for name, value in vars(self).items() if name not in ("output_dir", "history")}

    @classmethod
    def load(cls, output_dir: str | Path) -> Result:
        """Read a finished run's folder; AttnetError names it when it holds something else."""
        folder = Path(output_dir)
        try:
            content = _read_json(folder / RESULT)
            if not content.get("parameters"):  # a run from before they were kept here
                content["parameters"] = _read_json(folder / CONFIG) if (folder / CONFIG).exists() else {}
            lines = (folder / METRICS).read_text(encoding="utf-8").splitlines() if (folder / METRICS).exists() else []
            return cls(**content, output_dir=folder, history=[json.loads(line) for line in lines])
        except (OSError, ValueError, TypeError) as error:
            raise AttnetError(f"{folder}: not a finished run's folder ({error})") from error


def standing(
    parameters: Mapping[str, object], environment: Mapping[str, object], images: Mapping[str, int]
) -> tuple[str, tuple[str, ...]]:
    """Whether a run is measured, a rehearsal or simulated, and why it is no measurement.

    simulated: the device only plays one. A simulated NPU says so in its name, the `device` of the run's environment.
    rehearsal: the code was tried, not the network. The embedded data set `shapes`, mode=rehearsal, or only some of
        the training or test images.
    measured: everything else. Few epochs make no rehearsal: their number stands in the table, and the document's own
        rows of throughput have one.

    Args:
        parameters, environment, images: as in `Result`, as far as they are known.
    """
    card = str(environment.get("device", ""))
    pretended = [card] if "simulated" in card.lower() else []
    rehearsed = ["shapes, not CIFAR-10"] if parameters.get("dataset") == "shapes" else []
    rehearsed += ["mode rehearsal"] if parameters.get("mode") == "rehearsal" else []
    for part, what in (("train", "training"), ("test", "test")):
        used, total, asked = images.get(part), images.get(f"{part}_total"), parameters.get(f"{part}_images")
        if used and total and used < total:
            rehearsed.append(f"{used:,} of {total:,} {what} images")
        elif asked and not total:
            rehearsed.append(f"{asked:,} {what} images")
    kind = "simulated" if pretended else "rehearsal" if rehearsed else "measured"
    return kind, (*pretended, *rehearsed)


def _read_json(file: Path) -> dict[str, object]:
    content = json.loads(file.read_text(encoding="utf-8"))
    if not isinstance(content, dict):
        raise ValueError(f"{file.name} holds no object")
    return content
