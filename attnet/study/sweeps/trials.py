"""The trials of a search worked off: those that are chosen already, by whomever, then new ones."""

from __future__ import annotations

import contextlib
import hashlib
from typing import TYPE_CHECKING

from attnet.base.errors import AttnetError
from attnet.base.json_files import read_lines
from attnet.engine.result import ROW, Result
from attnet.engine.run_folder import METRICS, is_finished
from attnet.study.sweeps.runner import Job, Runner
from attnet.study.sweeps.runs import Run
from attnet.study.sweeps.workers import Worker

if TYPE_CHECKING:
    from attnet.study.sweeps.search import Search

SAMPLERS = {
    "tpe": lambda kit, seed: kit.samplers.TPESampler(seed=seed, constant_liar=True),  # others are at work meanwhile
    "gp": lambda kit, seed: kit.samplers.GPSampler(seed=seed),
    "random": lambda kit, seed: kit.samplers.RandomSampler(seed=seed),
}


class Trials(Runner):
    """Trials as runs of a `Search`; optuna learns what becomes of each from whoever has its lease."""

    def __init__(self, search: Search, parallel: int, worker: Worker) -> None:
        super().__init__([], parallel, worker)
        self.search, self.total = search, search.trials
        self.numbers: dict[Run, int] = {}  # of the trials that are known here
        self.over: set[int] = set()  # trials that optuna has been told of
        self.ended_early: dict[Run, int] = {}  # run -> the epoch after which it is to end
        self.read: dict[Run, int] = {}  # size of its metrics.jsonl when that was last read, bytes

    def _may_come(self) -> bool:
        return len(self.numbers) < self.search.trials

    def _pass_finished(self) -> None:
        """Learn of the trials that others chose, and of those they are done with."""
        for trial in self.search.asked():
            run = self.search.run_of(trial)
            if run not in self.numbers:
                self.numbers[run] = trial.number
                self.waiting.append(run)
                self.total = max(self.total, len(self.numbers))
            if trial.state.is_finished() and trial.number not in self.over:
                self.over.add(trial.number)
                if run in self.waiting and not is_finished(run.folder):  # ended early, or failed
                    self.waiting.remove(run)
                    self.done += 1
        super()._pass_finished()

    def _take(self) -> Run | None:
        return super()._take() or self._choose()

    def _choose(self) -> Run | None:
        """The run of a new trial, if one is left; one worker chooses at a time, so that they are as many as asked."""
        import optuna

        search, mine = self.search, None
        if not self._may_come() or (lease := self.worker.take(search.place)) is None:
            return None
        try:
            begun = search.study.get_trials(deepcopy=False)
            asked = {trial.number for trial in search.asked()}
            for trial in begun:
                if trial.number not in asked and not trial.state.is_finished():  # its worker died while it chose
                    search.study.tell(trial.number, state=optuna.trial.TrialState.FAIL, skip_if_finished=True)
            if len(asked) >= search.trials:
                return None
            # A sampler for each trial: two workers with one seed would choose the same, as would one started again.
            seed = int.from_bytes(hashlib.sha256(f"{search.seed} {len(begun)}".encode()).digest()[:4], "big")
            search.study.sampler = SAMPLERS[search.sampler](optuna, seed)
            chosen = search.study.ask({name: what.distribution() for name, what in search.space.items()})
            mine = search.run_of(search.study.trials[chosen.number])
            self.numbers[mine] = chosen.number
            self.waiting.append(mine)
            taken = self.worker.take(mine.folder)
        finally:
            lease.give_back()
        if taken is None:  # another has seen it already
            return None
        self.leases[mine] = taken
        return mine

    def _goes_on(self, job: Job) -> None:
        """Tell optuna of each epoch, and end the run early where it says so."""
        import optuna

        file, run = job.run.folder / METRICS, job.run
        with contextlib.suppress(OSError, AttnetError):
            size = file.stat().st_size
            if run in self.ended_early or self.read.get(run) == size:
                return
            self.read[run] = size
            frozen = self.search.study.trials[self.numbers[run]]
            trial = optuna.trial.Trial(self.search.study, frozen._trial_id)
            for row in read_lines(file, ROW, ("epoch", "top1")):
                if row["epoch"] not in frozen.intermediate_values:
                    trial.report(row["top1"], row["epoch"])
                    if trial.should_prune():
                        self.ended_early[run] = row["epoch"]
                        job.process.terminate()  # it saves itself
                        return

    def _ended(self, job: Job, status: int) -> None:
        import optuna

        run = job.run
        early = run in self.ended_early and run in self.leases and self.leases[run].is_held()
        if not early or is_finished(run.folder):
            super()._ended(job, status)
            return
        self._tell(run, state=optuna.trial.TrialState.PRUNED)
        self._show(run, f"ended early after epoch {self.ended_early[run]}, behind the others")
        self._give_back(run)

    def _leave(self, run: Run) -> None:
        self.ended_early.pop(run, None)
        self.read.pop(run, None)
        super()._leave(run)

    def _settled(self, run: Run) -> None:
        import optuna

        if is_finished(run.folder):
            self._tell(run, Result.load(run.folder).last_top1)
        else:
            self._tell(run, state=optuna.trial.TrialState.FAIL)

    def _tell(self, run: Run, *outcome: float, **state: object) -> None:
        self.over.add(self.numbers[run])
        self.search.study.tell(self.numbers[run], *outcome, **state, skip_if_finished=True)
