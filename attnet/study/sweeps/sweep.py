"""The runs of a sweep: which there are, which are finished, and the rows that they make."""

from __future__ import annotations

import re
import statistics
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from attnet.base import device as devices
from attnet.base.errors import ConfigError, say
from attnet.base.files.paths import relative_to_root, resolve_path
from attnet.base.host import environment
from attnet.base.intervals import over_seeds
from attnet.base.processes import StopSignal
from attnet.base.words import as_csv, table
from attnet.engine.holding.lease import SECONDS
from attnet.engine.parameters import TrainConfig
from attnet.engine.result import Result
from attnet.engine.run_folder import is_finished
from attnet.study.rows import FACTS
from attnet.study.sweeps.runner import Runner
from attnet.study.sweeps.runs import Run, check_notebook, content_hash
from attnet.study.sweeps.workers import Worker


@dataclass(frozen=True)
class Sweep:
    """Configurations by name, the seeds that each is run with, and the folder of all runs.

    With `notebook` each run executes that notebook through papermill, with the run's parameters, in place of
    `attnet train`; what it looks like afterwards is kept in the run's folder.

    Raises:
        ConfigError: no configuration or seed, a seed twice, a name that cannot be a folder's, or a notebook that is
            not there or does not take the parameters of a training.
    """

    configs: Mapping[str, TrainConfig]
    seeds: Sequence[int]
    folder: str | Path
    notebook: str | Path = ""

    def __post_init__(self) -> None:
        if not self.configs:
            raise ConfigError("configs={}: at least one configuration is needed")
        if not self.seeds or len(set(self.seeds)) < len(self.seeds):
            raise ConfigError(f"seeds={list(self.seeds)}: at least one is needed, and none twice")
        for name in self.configs:
            if not re.fullmatch(r"\w([\w .,=+-]*[\w+-])?", name) or len(name) > 200:
                raise ConfigError(
                    f"configs: {name!r} names a folder too; use letters, digits, spaces and . , = _ + -, 200 at most"
                )
        if self.notebook:
            check_notebook(self.notebook)

    def runs(self) -> list[Run]:
        """Every run, seed by seed, so that a sweep stopped early has about as many of each configuration."""
        notebook = str(self.notebook)
        return [Run(name, self._prepared(name, seed), notebook) for seed in self.seeds for name in self.configs]

    def _prepared(self, name: str, seed: int) -> TrainConfig:
        config = self.configs[name]
        folder = resolve_path(self.folder) / name / f"{content_hash(config)}-seed{seed}"
        return config.replace(seed=seed, output_dir=relative_to_root(folder), resume="", progress="lines")

    def results(self) -> dict[str, dict[int, Result]]:
        """name -> seed -> result, of the runs that are finished."""
        found: dict[str, dict[int, Result]] = {name: {} for name in self.configs}
        for run in self.runs():
            if is_finished(run.folder):
                found[run.name][run.config.seed] = Result.load(run.folder)
        return found

    def run(self, parallel: int = 1, lease: float = SECONDS) -> list[dict[str, object]]:
        """Run what is not finished, `parallel` at once, on accelerators a card each, or shared where there are fewer.

        Any number of processes, on machines that share the folder's file system, may do so at once: each run is one's
        alone, another's after `lease` seconds in which nothing was heard of its holder, and each call returns when all
        runs are done, by whomever.

        A first line on standard output says what is finished and what is to do; then each run gets a line. One that
        fails is tried once more, then its row says why; the others go on. What failed is tried again by the next call
        that finds nobody else at work.

        Returns:
            A row a configuration: `name`; `changed`, the parameters that the configurations do not share; `top1` of
            the last epoch, by seed (per cent, None without one), its `mean` over seeds with the 95 % confidence
            interval `low` to `high`; `dataset`, what it was trained on; `fps`, the median over runs (images/s);
            `seconds` of training and testing in all; `failures`, sentences; `result`, the facts of one of its runs
            that all share (see `attnet.study.rows.FACTS`), None without one.

        Raises:
            ConfigError: more at once than there are cards, a lease of no length, or a folder that cannot be written.
            TrainingInterrupted: after Ctrl-C or SIGTERM; what was begun is saved, and the same call goes on.
        """
        self.check_parallel(parallel)
        worker = Worker.at(self.folder, lease)
        with StopSignal() as stop, Runner(self.runs(), parallel, worker) as runner:
            say(f"{self.describe()}{worker.company()}")
            runner.work(stop)
        return self.rows(runner.failures)

    def rows(self, failures: Mapping[Run, str]) -> list[dict[str, object]]:
        """A row a configuration, as `run` returns them, of what is finished by now."""
        results, changed = self.results(), self.changed()
        return [
            {
                "name": name,
                "changed": changed[name],
                **summary([results[name].get(seed) for seed in self.seeds]),
                "failures": [f"seed {run.config.seed}: {why}" for run, why in failures.items() if run.name == name],
            }
            for name in self.configs
        ]

    def describe(self) -> str:
        """How many runs there are, finished, begun and not, as a line."""
        states = Counter(run.state for run in self.runs())
        configs, seeds = len(self.configs), len(self.seeds)
        size = f"{configs} configuration{'s' * (configs > 1)} x {seeds} seed{'s' * (seeds > 1)}"
        by = f" through {self.notebook}" if self.notebook else ""
        parts = [f"{states[state]} {state}" for state in ("finished", "begun", "to do") if states[state]]
        return f"sweep of {size} in {self.folder}{by}: {', '.join(parts)}"

    def changed(self) -> dict[str, dict[str, object]]:
        """name -> what is not at its default, without what is the same in all configurations."""
        tables = [config.to_dict() for config in self.configs.values()]
        shared = {key for key in tables[0] if len({table[key] for table in tables}) == 1}
        return {
            name: {key: value for key, value in config.given().items() if key not in shared}
            for name, config in self.configs.items()
        }

    def check_parallel(self, parallel: int) -> None:
        """ConfigError where so many runs cannot be at work at once."""
        if parallel < 1:
            raise ConfigError(f"parallel={parallel}: at least 1 run at a time is needed")
        for config in self.configs.values() if parallel > 1 else ():
            if config.device_num > 1:
                raise ConfigError(f"parallel={parallel}: runs of device_num={config.device_num} go one at a time only")


def summary(results: Sequence[Result | None]) -> dict[str, object]:
    """What a row says of the runs of one configuration, a result a seed, None for one that failed.

    `top1` is the last epoch's: the best epoch's would be picked by the test images.
    """
    done = [result for result in results if result is not None]
    fps = [result.fps for result in done if result.fps]
    return {
        "top1": [result and result.last_top1 for result in results],
        **over_seeds([result.last_top1 for result in done], within=(0, 100)),
        "dataset": " and ".join(sorted({result.dataset for result in done})) or None,
        "fps": statistics.median(fps) if fps else None,
        "seconds": sum(row["seconds"] for result in done for row in result.history),
        "result": {name: getattr(done[0], name) for name in FACTS} if done else None,
    }


# -- as a file ------------------------------------------------------------------------------------------------------

FORMS = (".json", ".csv", ".md")
WHAT = (
    "A row a configuration, a run a configuration and seed. top1 is the last epoch's on the test images, not the best "
    "epoch's, in per cent; intervals are 95 %, by Student's t over seeds."
)


def sweep_record(sweep: Sweep, rows: Sequence[Mapping[str, object]]) -> dict[str, object]:
    """What `sweep.run` returned, with every run and the environment, ready for `write_record`."""
    every = [result for by_seed in sweep.results().values() for result in by_seed.values()]
    config = next(iter(sweep.configs.values()))
    here = devices.choose(config.device_type, config.device_id)
    return {
        "kind": "sweep",
        "what": WHAT,
        "seeds": list(sweep.seeds),
        "rows": list(rows),
        "runs": _runs(sweep),
        "environment": every[-1].environment if every else environment(here),
    }


def sweep_csv(sweep: Sweep) -> str:
    """A line a run: name, seed, the parameters that the configurations do not share, figures, folder.

    A parameter left open and the figures of a run that is not finished are empty.
    """
    runs = _runs(sweep)
    names = list(dict.fromkeys(name for row in runs for name in row["changed"]))
    figures = [key for key in runs[0] if key not in ("name", "seed", "changed")]
    header = ["name", "seed", *names, *figures]
    lines = []
    for row in runs:
        values = {name: getattr(sweep.configs[row["name"]], name) for name in names} | row
        lines.append([values[name] for name in header])
    return as_csv(header, lines)


def _runs(sweep: Sweep) -> list[dict[str, object]]:
    """Every run with its figures, None where it is not finished."""
    results, changed, found = sweep.results(), sweep.changed(), []
    what = ("dataset", "model", "epochs", "batch_size", "amp", "device", "last_top1", "top1", "fps")
    for run in sweep.runs():
        result = results[run.name].get(run.config.seed)
        found.append(
            {
                "name": run.name,
                "seed": run.config.seed,
                "changed": changed[run.name],
                **{name: result and getattr(result, name) for name in what},
                "seconds": result and sum(row["seconds"] for row in result.history),
                "folder": run.config.output_dir,
            }
        )
    return found


def listing(sweep: Sweep) -> str:
    """What a dry run shows: how many runs there are, and each with its state."""
    return f"{sweep.describe()}\n\n{state_table(sweep.runs())}"


def state_table(runs: Sequence[Run]) -> str:
    """A Markdown table of the runs of a sweep with their states and folders, in the order they are started."""
    cells = [[run.name, run.config.seed, run.state, run.config.output_dir] for run in runs]
    return table(["configuration", "seed", "state", "folder"], cells, words=(0, 2, 3))
