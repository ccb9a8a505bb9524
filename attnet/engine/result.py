"""What a finished run left: its result.json and metrics.jsonl as a `Result`, checked when they are read.

And what it was made of, as hashes that a stranger can make again: configuration, data, code, weights; and a seal, which
has no secret: it shows damage and slips, not what somebody forges with care. For that `attnet verify` trains again.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from attnet.base.errors import AttnetError
from attnet.base.files.opening import file_hash
from attnet.base.files.paths import resolve_path
from attnet.base.json_files import misfit, read_lines, read_object, to_json
from attnet.base.values import checked
from attnet.data.splits import Dataset, Split
from attnet.engine.names import BEST, CONFIG, METRICS, RESULT
from attnet.engine.parameters import TrainConfig

if TYPE_CHECKING:
    import pandas

# Of `Result.chain`.
CHAIN = {"seal": str, "configuration": str, "code": str, "data": dict[str, object], "weights": dict[str, str]}
# Of an epoch's row in metrics.jsonl.
ROW = {"epoch": int, "trace": list[float]}
ROW |= dict.fromkeys(("lr", "train_loss", "test_loss", "top1", "fps", "seconds"), float)


@dataclass(frozen=True)
class Result:
    """A finished run, as in its result.json.

    `top1` (per cent) is the best epoch's, whose weights are best.pt; `last_top1` and `test_loss` (nats) are the
    last epoch's; `fps` is the median over epochs at full size in images/s (None when nothing was trained).
    `top1_flip` is the last epoch's with logits averaged over image and mirror image, where `test_flip` asked for it.
    `memorisation` is what the last epoch's network says of wrongly labelled training images (see attnet.data.noise),
    where there are some.

    `task` is what was learned, `dataset` the same with the number of images. `images` says how many of how many: keys
    train, train_total, test, test_total. `parameters` are those of the run, all of them. `warnings` were said while it
    ran. `chain` holds hashes of what it was made of.
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
    per_class: dict[str, float | None]
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
    warnings: list[str] = field(default_factory=list)
    chain: dict[str, object] = field(default_factory=dict)
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
            content = read_object(folder / RESULT)
            if wrong := problem(content):
                raise AttnetError(f"{folder / RESULT}: {wrong}; restore it from a copy, or take it away")
            if not content.get("parameters"):  # a run from before they were kept here
                content["parameters"] = read_object(folder / CONFIG) if (folder / CONFIG).exists() else {}
            check_parameters(content["parameters"])
            rows = read_lines(folder / METRICS, ROW, ("epoch", "top1")) if (folder / METRICS).exists() else []
            known = {name: content[name] for name in cls.__dataclass_fields__ if name in content}
            return cls(**known | {"output_dir": folder, "history": rows})
        except (AttnetError, TypeError) as error:
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


def problem(content: Mapping[str, object]) -> str:
    """What is wrong with what should be a result, that no run of ours has written; "" where nothing is."""
    needs_none = (dataclasses.MISSING, dataclasses.MISSING)
    needed = [spec.name for spec in dataclasses.fields(Result) if (spec.default, spec.default_factory) == needs_none]
    if wrong := misfit(content, Result) or misfit(content.get("chain", {}), CHAIN):
        return wrong
    if lacking := [name for name in needed if name not in content]:
        return f"lacks {', '.join(lacking)}"
    odd = next((name for name in ("top1", "last_top1") if not 0 <= content[name] <= 100), "")
    return f"{odd} is {content[odd]:g} where 0 to 100 per cent is needed" if odd else ""


def check_parameters(recorded: Mapping[str, object]) -> None:
    """ConfigError where a recorded parameter that is known here has a value that it cannot have."""
    fields = TrainConfig.fields()
    for name in fields.keys() & recorded.keys():
        checked(fields[name], TrainConfig.kinds(name), recorded[name])


# -- what it was made of ---------------------------------------------------------------------------------------------

_SHOWN = 16  # hexadecimal digits of SHA-256, 64 bits


def configuration_link(parameters: Mapping[str, object]) -> str:
    """Of the parameters that decide a result, as they were resolved."""
    left_out = TrainConfig.named(decides="never")
    return _hash(_canonical({name: value for name, value in parameters.items() if name not in left_out}).encode())


def data_link(dataset: Dataset) -> dict[str, object]:
    """Of the images and labels that were trained and tested on: classes, counts, hash of every pixel and label."""
    return {
        "classes": list(dataset.classes),
        "training images": len(dataset.train),
        "test images": len(dataset.test),
        "pixels and labels": _split_hash(dataset.train) + _split_hash(dataset.test),
    }


def code_link() -> str:
    """Of every Python file of the package."""
    root = Path(__file__).parents[1]
    files = sorted(root.rglob("*.py"))
    return _hash(b"".join(str(file.relative_to(root)).encode() + b"\0" + file.read_bytes() + b"\0" for file in files))


def weights_links(folder: Path) -> dict[str, str]:
    """Name -> hash of each file of weights in a run folder."""
    return {file.name: weights_link(file) for file in sorted(folder.glob("*.pt")) if file.is_file()}


def weights_link(file: Path) -> str:
    """Of a file of weights."""
    return file_hash(file)[:_SHOWN]


def seal(result: Mapping[str, object], rows: Sequence[Mapping[str, object]]) -> str:
    """Of all that a result and its epochs' rows say, but for the seal itself."""
    chain = {name: link for name, link in (result.get("chain") or {}).items() if name != "seal"}
    return _hash(_canonical([{**result, "chain": chain}, list(rows)]).encode())


def _split_hash(split: Split) -> str:
    digest = hashlib.sha256(split.labels.numpy().tobytes())
    digest.update(split.images.contiguous().numpy())
    return digest.hexdigest()[:_SHOWN]


def _canonical(content: object) -> str:
    """The one JSON text of a value, whether it comes from memory or from a file."""
    return json.dumps(json.loads(to_json(content)), sort_keys=True, separators=(",", ":"))


def _hash(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()[:_SHOWN]
