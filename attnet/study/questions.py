"""What a study is: a question, and the rows that answer it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from attnet.base.errors import ConfigError, nearest
from attnet.base.intervals import over_seeds
from attnet.engine.parameters import TrainConfig
from attnet.engine.recipes import MODES
from attnet.engine.result import Result
from attnet.study.published import Published

SIZES = ("rehearsal", "full")  # each trains in the mode of the same name


@dataclass(frozen=True)
class Case:
    """One configuration of a study.

    `changes` are its parameters, on top of those of all rows. `against` is the row that its difference is taken from;
    "" for a row that others are held against. `published` is the figure of the paper that belongs to it. In a figure
    with lines it stands at `x` of the line called `line`.
    """

    name: str
    changes: Mapping[str, object]
    against: str = ""
    what: str = ""
    source: str = ""
    published: Published | None = None
    line: str = ""
    x: float | None = None


@dataclass(frozen=True)
class Study:
    """A question, and how it is asked.

    `rows` makes the rows from the parameters of all, the size, and the names of those wanted (none: the usual ones).
    `presets` holds the parameters of all rows by size, where the mode's own will not do; `seeds` those of a rehearsal.
    `axis` says what `x` is, where rows make lines. Where `on_given` is False, rows alone decide what they change: it
    may not be given for all. `prepare` does what has to be there before any row, in the folder of the runs, and
    `prepared` says which parameters of all rows name it, done or not; `measure` adds figures to a row from its results
    by seed, `finish` some to the record from the configurations of all rows.
    """

    name: str
    question: str
    see: str
    rows: Callable[[TrainConfig, str, Sequence[str]], list[Case]]
    presets: Mapping[str, Mapping[str, object]] = field(default_factory=dict)
    seeds: tuple[int, ...] = (0, 1, 2)
    axis: str = ""
    on_given: bool = False
    prepare: Callable[[str], None] | None = None
    prepared: Callable[[str], Mapping[str, object]] = lambda folder: {}
    measure: Callable[[Mapping[int, Result]], Mapping[str, object]] | None = None
    finish: Callable[[Mapping[str, TrainConfig]], Mapping[str, object]] | None = None

    def base(self, size: str, given: Mapping[str, object]) -> TrainConfig:
        """The parameters of all rows: what is given wins over the size's; None is not given.

        The data set "auto" is the size's too, but `shapes` gives way to data that are named by another data_path.

        Of the mode's own, the network stays open, as it does in any other run of that mode.

        Raises:
            ConfigError: an unknown size, or what `TrainConfig` refuses.
        """
        if size not in SIZES:
            raise ConfigError(f"size={size!r}: choose one of {', '.join(SIZES)}")
        given = {name: value for name, value in given.items() if value is not None}
        if given.get("dataset") == "auto":
            del given["dataset"]
        usual, own = TrainConfig.fields()["data_path"].default, self.presets.get(size, {}).get("dataset")
        if own == "shapes" and given.get("data_path", usual) != usual:
            given.setdefault("dataset", "auto")
        mode = TrainConfig(mode=given.get("mode", "auto")).mode  # raises for an unknown one
        given["mode"] = size if mode == "auto" else mode
        budget = {name: value for name, value in MODES[given["mode"]].items() if name != "model"}
        return TrainConfig(**{**budget, **self.presets.get(size, {}), **given})

    def check_given(self, rows: Sequence[Case], given: Mapping[str, object], prepared: Mapping[str, object]) -> None:
        """Refuse a parameter that the study sets itself."""
        for name in {*prepared, *(name for row in rows for name in row.changes if not self.on_given)}:
            if given.get(name) is not None:
                raise ConfigError(
                    f"{name}={given[name]!r}: study {self.name} sets {name} itself; leave it out, or train that one "
                    "network with attnet train"
                )


def pick(rows: Sequence[Case], only: Sequence[str]) -> list[Case]:
    """The rows with these names, and those they are held against, in the order of `rows`; all without a name.

    Raises:
        ConfigError: there is no such row.
    """
    table = {row.name: row for row in rows}
    for name in only:
        if name not in table:
            raise ConfigError(f"only={name!r}: no such row: {nearest(name, table)}")
    wanted = {*only, *(table[name].against for name in only)} if only else set(table)
    return [row for row in rows if row.name in wanted]


def difference(values: Mapping[int, float], baseline: Mapping[int, float]) -> dict[str, object]:
    """Points above the baseline by seed, where both have a value, with `mean`, `low` and `high` over the seeds."""
    by_seed = {seed: value - baseline[seed] for seed, value in values.items() if seed in baseline}
    return {**over_seeds(list(by_seed.values())), "by_seed": {str(seed): gap for seed, gap in by_seed.items()}}
