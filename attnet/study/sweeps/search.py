"""A search: optuna chooses the next configuration by what the runs so far have found, and ends early what lags behind.

Its memory is a journal in the folder, which workers on any machines share; which trial is whose, and what becomes of
one whose worker dies, is told by the leases of its run, as in any sweep.
"""

from __future__ import annotations

import hashlib
import importlib.util
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from attnet.base.errors import AttnetError, ConfigError, nearest, say
from attnet.base.files.outputs import writing
from attnet.base.files.paths import resolve_path
from attnet.base.processes import StopSignal
from attnet.engine.holding.lease import SECONDS, look
from attnet.engine.parameters import TrainConfig
from attnet.engine.run_folder import is_finished
from attnet.study.sweeps.configs import name_of
from attnet.study.sweeps.runs import Run, content_hash
from attnet.study.sweeps.space import Choice, Range
from attnet.study.sweeps.sweep import Sweep
from attnet.study.sweeps.trials import SAMPLERS, Trials
from attnet.study.sweeps.workers import Worker

if TYPE_CHECKING:
    import optuna

PLACE, JOURNAL = "search", "journal.log"  # in the folder
STARTUP = 5  # trials that no other is pruned against before
PRUNERS = {
    "median": lambda kit, epochs: kit.pruners.MedianPruner(STARTUP, n_warmup_steps=max(1, (epochs or 0) // 5)),
    "hyperband": lambda kit, epochs: kit.pruners.HyperbandPruner(1, epochs or "auto"),
    "none": lambda kit, epochs: kit.pruners.NopPruner(),
}
CHOSEN = (
    "The test images choose here: which configuration comes next, which is ended early, and which is called the best. "
    "So the best one's Top-1 flatters it. Before you say what it reaches, train it with seeds that the search has not "
    "seen, and hold it against what you compare with over the same seeds: attnet sweep --seeds 1,2,3."
)


@dataclass(frozen=True)
class Search:
    """What may be chosen, how many configurations are tried, and the folder of their runs and of the search's memory.

    Attributes:
        base: what all trials share.
        space: parameter -> what it may be.
        trials: how many configurations, by all workers and starts together.
        seed: of each run, and of the sampler.
        sampler, pruner: a name of SAMPLERS and of PRUNERS.
        notebook: as of `Sweep`.

    Raises:
        ConfigError: optuna is not installed, no trials, or a sampler or pruner that is not known.
    """

    base: TrainConfig
    space: Mapping[str, Range | Choice]
    trials: int
    folder: str | Path
    seed: int = 0
    sampler: str = "tpe"
    pruner: str = "median"
    notebook: str | Path = ""
    _runs: dict[int, Run] = field(default_factory=dict, init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        if importlib.util.find_spec("optuna") is None:
            raise ConfigError('search: is done by optuna, which is not installed: pip install "attnet[search]"')
        if self.trials < 1:
            raise ConfigError(f"trials={self.trials}: at least 1 is needed")
        for what, known in (("sampler", SAMPLERS), ("pruner", PRUNERS)):
            if (name := getattr(self, what)) not in known:
                raise ConfigError(f"{what}={name!r}: there is none of this name: {nearest(name, known)}")

    @cached_property
    def study(self) -> optuna.Study:
        """optuna's: one for each space, base and seed, so that others in the folder are not mixed up with it."""
        import optuna
        from optuna.storages.journal import JournalFileBackend, JournalStorage

        optuna.logging.set_verbosity(optuna.logging.WARNING)
        warnings.filterwarnings("ignore", category=optuna.exceptions.ExperimentalWarning)
        text = f"{content_hash(self.base)} {self.seed} {'; '.join(f'{k}={v}' for k, v in sorted(self.space.items()))}"
        file = self.place / JOURNAL
        try:
            with writing(f"folder={self.folder}"):
                self.place.mkdir(parents=True, exist_ok=True)
                return optuna.create_study(
                    storage=JournalStorage(JournalFileBackend(str(file))),
                    study_name=hashlib.sha256(text.encode()).hexdigest()[:16],
                    direction="maximize",
                    load_if_exists=True,
                    pruner=PRUNERS[self.pruner](optuna, self.base.total_epochs),
                )
        except (ValueError, KeyError, TypeError) as error:
            if isinstance(error, AttnetError):
                raise
            raise ConfigError(f"{file}: damaged ({error}); restore it from a copy, or give another folder") from None

    @property
    def place(self) -> Path:
        """Where the search's memory is."""
        return resolve_path(self.folder) / PLACE

    def asked(self) -> list[optuna.trial.FrozenTrial]:
        """The trials so far. One whose worker died while it was being chosen is none, nor what was not to be chosen."""
        trials = self.study.get_trials(deepcopy=False)
        return [t for t in trials if all(n in t.params and t.params[n] in what for n, what in self.space.items())]

    def run_of(self, trial: optuna.trial.FrozenTrial) -> Run:
        """The run of a trial."""
        if trial.number not in self._runs:
            (self._runs[trial.number],) = self._sweep([trial]).runs()
        return self._runs[trial.number]

    def name_of(self, trial: optuna.trial.FrozenTrial) -> str:
        """ "trial 3 lr=0.03162 schedule=cosine", fit for a folder; the number tells it from others."""
        values = {k: f"{v:.4g}" if isinstance(v, float) else v for k, v in sorted(self._chosen(trial).items())}
        return f"trial {trial.number} {name_of(values)}"[:120].rstrip(".,= ")

    def _chosen(self, trial: optuna.trial.FrozenTrial) -> dict[str, object]:
        """Of what the search has named alone: the journal is data, whoever wrote it."""
        return {name: trial.params[name] for name in self.space}

    def sweep(self) -> Sweep:
        """All trials so far as a sweep, for its rows and files, the best first, what was ended early last.

        Raises:
            ConfigError: there is none.
        """
        trials = self.asked()
        best = {trial.number: trial.value or 0.0 for trial in trials if is_finished(self.run_of(trial).folder)}
        return self._sweep(sorted(trials, key=lambda trial: (trial.number not in best, -best.get(trial.number, 0.0))))

    def _sweep(self, trials: Sequence[optuna.trial.FrozenTrial]) -> Sweep:
        configs = {self.name_of(trial): self.base.replace(**self._chosen(trial)) for trial in trials}
        return Sweep(configs, (self.seed,), self.folder, notebook=self.notebook)

    def pruned(self) -> dict[str, dict[str, float]]:
        """Name -> `epoch` and `top1` (per cent) with which a trial was ended early."""
        ended = [trial for trial in self.asked() if trial.state.name == "PRUNED"]
        return {
            self.name_of(trial): {"epoch": trial.last_step, "top1": trial.intermediate_values.get(trial.last_step)}
            for trial in ended
        }

    def describe(self) -> str:
        """What is searched, and how far it is, as a line."""
        states = [trial.state.name for trial in self.asked()] if (self.place / JOURNAL).exists() else []
        words = {"COMPLETE": "finished", "PRUNED": "ended early", "FAIL": "failed", "RUNNING": "begun"}
        parts = [f"{states.count(state)} {word}" for state, word in words.items() if state in states]
        parts += [f"{self.trials - len(states)} to do"] * (len(states) < self.trials)
        space = ", ".join(f"{name}={what}" for name, what in self.space.items())
        return f"search of {space} by {self.sampler} in {self.folder}, {self.trials} trials: {', '.join(parts)}"

    def facts(self) -> dict[str, object]:
        """What a record says of a search beside its rows."""
        return {
            "space": {name: str(what) for name, what in self.space.items()},
            **{name: getattr(self, name) for name in ("trials", "seed", "sampler", "pruner")},
            "ended_early": self.pruned(),
            "what": CHOSEN,
        }

    def run(self, parallel: int = 1, lease: float = SECONDS) -> list[dict[str, object]]:
        """Try what is left of the trials, as `Sweep.run` does its runs; any number of workers may search together.

        Returns:
            The rows of `Sweep.run`, the best first; those ended early have no Top-1.

        Raises:
            ConfigError, TrainingInterrupted: as `Sweep.run`.
        """
        self._probe().check_parallel(parallel)
        worker = Worker.at(self.folder, lease)
        with StopSignal() as stop, Trials(self, parallel, worker) as runner:
            say(f"{self.describe()}{worker.company()}")
            runner.work(stop)
        before = {run: why for trial in self.asked() if (why := look((run := self.run_of(trial)).folder).outcome)}
        return self.sweep().rows(before | runner.failures)

    def _probe(self) -> Sweep:
        """What all trials share, as a sweep: wrong parameters or a notebook that is none are found before any trial."""
        return Sweep({"base": self.base}, (self.seed,), self.folder, notebook=self.notebook)
