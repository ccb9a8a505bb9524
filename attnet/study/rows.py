"""A row of the table of results: what kind of figure it is, where it comes from, and what may stand beside it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date
from pathlib import Path

from attnet.base.files.paths import relative_to_root
from attnet.engine.result import Result, standing
from attnet.engine.run_folder import RESULT
from attnet.model.variants import choose_variant, study_options, variants
from attnet.study.published import DOCUMENT, PAPER, PORTS, Published

KINDS = ("measured", "published", "rehearsal", "simulated")
# What a record keeps of the runs that a row is made of, and a row is told by: fields of `Result`.
FACTS = ("model", "dataset", "task", "images", "epochs", "amp", "device", "batch_size", "parameters")


@dataclass(frozen=True)
class Row:
    """One line of the table; None, or empty, where its source gives nothing.

    `top1` is in per cent: of a training the best epoch's, of several seeds the mean of their last epochs' with its
    95 % interval `low` to `high`. `fps` is in images/s of all cards together, `batch_size` a card. `network` is the
    model without its options for study, `task` the data set however many images of it were trained on. `where` is the
    folder, the record or the publication; `notes` say why the row is of its `kind`, and what else its figures need to
    be read right. `history` holds an object an epoch, as metrics.jsonl.
    """

    kind: str
    name: str
    where: str
    model: str
    dataset: str
    network: str = ""
    task: str = ""
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

    def __post_init__(self) -> None:
        object.__setattr__(self, "network", self.network or self.model)
        object.__setattr__(self, "task", self.task or self.dataset)

    @property
    def source(self) -> str:
        """Where the row is from, with its kind: a row that is copied out of the table still says what it is."""
        notes = f" ({'; '.join(self.notes)})" if self.notes else ""
        return f"{self.kind}{notes}: {self.where}"

    @classmethod
    def of(cls, result: Result, *, name: str = "", where: str = "", day: str = "", notes: Sequence[str] = ()) -> Row:
        """The row of a run of ours.

        Args:
            result: what it left.
            name, where, day: how it is called, found and dated; by default as its folder says.
            notes: what is to be known of it besides.
        """
        folder = result.output_dir
        file = folder / RESULT
        fields = ("top1", "fps", "epochs", "amp", "device", "batch_size", "model", "dataset", "task", "history")
        return cls(
            result.kind,
            name or folder.name,
            where or relative_to_root(folder),
            **{key: getattr(result, key) for key in fields},
            network=str(result.parameters.get("model") or result.model),
            **on_what(result.environment),
            date=day or (date.fromtimestamp(file.stat().st_mtime).isoformat() if file.exists() else ""),
            notes=(*result.notes, *notes),
        )

    @classmethod
    def of_mean(cls, row: Mapping, record: Mapping, file: Path) -> Row:
        """The row of several seeds, as a sweep or a study records it: `row` with the facts of its runs in `result`."""
        facts, environment = row["result"], record["environment"]
        kind, why = standing(facts["parameters"], environment, facts["images"])
        seeds = len([value for value in row["top1"] if value is not None])
        fields = ("model", "dataset", "task", "epochs", "amp", "device", "batch_size")
        return cls(
            kind,
            f"{file.stem}: {row['name']}",
            f"record {file.stem}, {row['name']}",
            **{key: facts[key] for key in fields},
            network=str(facts["parameters"].get("model") or facts["model"]),
            **{"top1": row["mean"], "low": row.get("low"), "high": row.get("high"), "seeds": seeds},
            fps=row.get("fps"),
            **on_what(environment),
            date=record["date"],
            notes=(*why, f"mean of {seeds} seed{'s' * (seeds != 1)}, last epoch"),
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
            network=figure.model or figure.network,
            **{key: getattr(figure, key) for key in fields},
            notes=(str(figure.changed["recipe"]),) if "recipe" in figure.changed else (),
        )


def on_what(environment: Mapping[str, object]) -> dict[str, str]:
    """The card and torch of an environment, as fields of a row."""
    return {"card": str(environment.get("device", "")), "torch": str(environment.get("torch", ""))}


# Published figures that answer a question of the paper's (which type of attention, how much noise ...) stand beside
# the same network and data of ours alone; those below, always.
_HEADLINES = (*DOCUMENT, *PORTS, *(figure for figure in PAPER if figure.study == "depth"))


def published_rows(beside: Iterable[Row] | None = None) -> list[Row]:
    """Published figures as rows: all of them, or those that are to stand beside the given rows."""
    everything = [Row.of_published(figure) for figure in (*DOCUMENT, *PORTS, *PAPER)]
    if beside is None:
        return everything
    alike = {(row.model, row.task) for row in beside}
    headlines = [Row.of_published(figure) for figure in _HEADLINES]
    return headlines + [row for row in everything if row not in headlines and (row.model, row.task) in alike]


def in_order(rows: Iterable[Row], by: str = "network") -> list[Row]:
    """Rows sorted by network (and data within: what compares stands together), top1, fps or date, best or newest first.

    Of one network and data ours come first, then the published ones, rehearsals, and simulations.
    """
    known = list(variants())

    def key(row: Row) -> tuple:
        place = known.index(row.network) if row.network in known else len(known)
        return place, row.task, row.model, KINDS.index(row.kind), -(row.top1 or 0), -(row.fps or 0)

    rows = sorted(rows, key=key)
    if by == "network":
        return rows
    return sorted(rows, key=lambda row: getattr(row, by) or ("" if by == "date" else -1), reverse=True)
