"""A row of the table of results: what kind of figure it is, where it comes from, and what may stand beside it."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date
from pathlib import Path

from attnet.base.files import relative_to_root
from attnet.engine.run_folder import Result
from attnet.model.variants import choose_variant, study_options, variants
from attnet.study.published import DOCUMENT, PAPER, PORTS, Published

KINDS = ("measured", "published", "rehearsal", "simulated")


@dataclass(frozen=True)
class Row:
    """One line of the table; None, or empty, where its source gives nothing.

    `top1` is in per cent: of a training the best epoch's, of several seeds the mean of their last epochs' with its
    95 % interval `low` to `high`. `fps` is in images/s of all cards together, `batch_size` a card. `where` is the
    folder, the record or the publication; `notes` say why the row is of its `kind`, and what else its figures need to
    be read right. `history` holds an object an epoch, as metrics.jsonl.
    """

    kind: str
    name: str
    where: str
    model: str
    dataset: str
    top1: float | None = None
    low: float | None = None
    high: float | None = None
    seeds: int | None = None
    fps: float | None = None
    epochs: int | None = None
    amp: str = ""
    device: str = ""
    batch_size: int | None = None
    card: str = ""
    torch: str = ""
    date: str = ""
    notes: tuple[str, ...] = ()
    history: Sequence[Mapping[str, float]] = field(default=(), repr=False)

    @property
    def source(self) -> str:
        """Where the row is from, with its kind: a row that is copied out of the table still says what it is."""
        notes = f" ({'; '.join(self.notes)})" if self.notes else ""
        return f"{self.kind}{notes}: {self.where}"

    @property
    def network(self) -> str:
        """The network without its options for study: "attention92 with t=3" is an attention92."""
        return self.model.split(" with ")[0]

    @property
    def data(self) -> str:
        """The task, however many images of it were trained on: "cifar10, 2,000 of 50,000 images" is cifar10."""
        return re.sub(r", [\d,]+( of [\d,]+)? images", "", self.dataset)

    @classmethod
    def of(cls, result: Result, *, name: str = "", where: str = "", asked: Mapping[str, object] | None = None,
           day: str = "", notes: Sequence[str] = ()) -> Row:  # fmt: skip
        """The row of a run of ours.

        Args:
            result: what it left.
            name, where, day: how it is called, found and dated; by default as its folder says.
            asked: its parameters; None: those of its folder's config.json, where there is one.
            notes: what is to be known of it besides.
        """
        folder = result.output_dir
        asked = _parameters(folder) if asked is None else asked
        kind, why = kind_of(result.dataset, result.environment, asked)
        file = folder / "result.json"
        fields = ("top1", "fps", "epochs", "amp", "device", "batch_size", "model", "dataset", "history")
        return cls(
            kind,
            name or folder.name,
            where or relative_to_root(folder),
            **{key: getattr(result, key) for key in fields},
            card=str(result.environment.get("device", "")),
            torch=str(result.environment.get("torch", "")),
            date=day or (date.fromtimestamp(file.stat().st_mtime).isoformat() if file.exists() else ""),
            notes=(*why, *_origin(result, asked), *notes),
        )

    @classmethod
    def of_published(cls, figure: Published) -> Row:
        """The row of a published figure."""
        options = study_options(figure.changed)
        noise = f" (label noise {100 * figure.changed['label_noise']:g} %)" if "label_noise" in figure.changed else ""
        fields = ("top1", "fps", "epochs", "amp", "device", "batch_size")
        return cls(
            "published",
            figure.network,
            figure.source,
            choose_variant(figure.model, **options).label if figure.model else figure.network,
            figure.dataset + noise,
            **{key: getattr(figure, key) for key in fields},
            notes=(str(figure.changed["recipe"]),) if "recipe" in figure.changed else (),
        )


def kind_of(
    dataset: str, environment: Mapping[str, object], asked: Mapping[str, object]
) -> tuple[str, tuple[str, ...]]:
    """Whether a run is measured, a rehearsal or simulated, and why it is no measurement.

    simulated: the device only plays one. A simulated NPU says so in its name, the `device` of the run's environment.
    rehearsal: the code was tried, not the network. The embedded data set `shapes`, mode=rehearsal, or only some of
        the training or test images.
    measured: everything else. Few epochs make no rehearsal: their number stands in the table, and the document's own
        rows of throughput have one.

    Args:
        dataset, environment: as in `Result`.
        asked: the run's parameters, as far as they are known; text as on a command line will do.
    """
    card, rehearsed = str(environment.get("device", "")), []
    pretended = [card] if "simulated" in card.lower() else []
    if dataset.startswith("shapes"):
        rehearsed.append("shapes, not CIFAR-10")
    if asked.get("mode") == "rehearsal":
        rehearsed.append("mode rehearsal")
    if subset := re.search(r"[\d,]+ of [\d,]+ images", dataset):
        rehearsed.append(subset.group())
    if str(asked.get("test_images") or 0) not in ("0", "10000"):  # CIFAR's test set has 10,000
        rehearsed.append(f"{asked['test_images']} test images")
    kind = "simulated" if pretended else "rehearsal" if rehearsed else "measured"
    return kind, (*pretended, *rehearsed)


def _origin(result: Result, asked: Mapping[str, object]) -> tuple[str, ...]:
    """What a run began with, where it was not the beginning: weights, trained further or only evaluated."""
    if result.fps is None and not result.epochs:
        return (f"evaluation alone, of {asked.get('pretrained') or 'given weights'}",)
    if str(asked.get("is_pretrain")).lower() == "true":
        return (f"from the weights {asked.get('pretrained')}",)
    return ()


def _parameters(folder: Path) -> Mapping[str, object]:
    try:
        content = json.loads((folder / "config.json").read_text())
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}


# Published figures that answer a question of the paper's (which type of attention, how much noise ...) stand beside
# the same network and data of ours alone; those below, always.
_HEADLINES = (*DOCUMENT, *PORTS, *(figure for figure in PAPER if figure.study == "depth"))


def published_rows(beside: Iterable[Row] | None = None) -> list[Row]:
    """Published figures as rows: all of them, or those that are to stand beside the given rows."""
    everything = [Row.of_published(figure) for figure in (*DOCUMENT, *PORTS, *PAPER)]
    if beside is None:
        return everything
    alike = {(row.model, row.data) for row in beside}
    headlines = [Row.of_published(figure) for figure in _HEADLINES]
    return headlines + [row for row in everything if row not in headlines and (row.model, row.data) in alike]


def in_order(rows: Iterable[Row], by: str = "network") -> list[Row]:
    """Rows sorted by network (and data within: what compares stands together), top1, fps or date, best or newest first.

    Of one network and data ours come first, then the published ones, rehearsals, and simulations.
    """
    known = list(variants())

    def key(row: Row) -> tuple:
        place = known.index(row.network) if row.network in known else len(known)
        return place, row.data, row.model, KINDS.index(row.kind), -(row.top1 or 0), -(row.fps or 0)

    rows = sorted(rows, key=key)
    if by == "network":
        return rows
    return sorted(rows, key=lambda row: getattr(row, by) or ("" if by == "date" else -1), reverse=True)
