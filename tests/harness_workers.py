"""Four workers share a sweep while they are killed, stopped and put to sleep; compare with a sweep nothing disturbed.

    python tests/harness_workers.py --output data/results/kill_workers.json

Not collected by pytest: it takes minutes. Blows fall on a worker, on the training it has started, or on both: SIGKILL,
SIGTERM, and SIGSTOP for longer than its lease, until another worker has taken its run, then SIGCONT. Who was killed is
started again, by the same command. In the end every run must have been finished once, none may be missing, no two
trainings may have been awake on one run but for a sleeper that finds out on waking, and every weight must be the same
bit for bit.
"""

import argparse
import contextlib
import json
import os
import random
import re
import shutil
import signal
import sys
import tempfile
import threading
import time
from collections import Counter
from dataclasses import dataclass, field
from datetime import date
from pathlib import Path

import psutil
from harness_kill import fingerprint

from attnet.base import device
from attnet.base.files.paths import repository_root
from attnet.base.host import environment
from attnet.engine.holding.lease import PLACE, look

WORKERS, EPOCHS = 4, 4
LEASE = 8.0  # seconds
JOB = {
    **{"model": "attention56_tiny", "dataset": "shapes", "mode": "rehearsal", "device_type": "CPU"},
    **{"train_images": 32, "test_images": 10, "train_batch_size": 8, "total_epochs": EPOCHS, "checkpoint_seconds": 0.3},
}
RATES, SEEDS = "0.1,0.08,0.06,0.05,0.04,0.03,0.02,0.015,0.01,0.005", "0,1,2,3"
RUNS = len(RATES.split(",")) * len(SEEDS.split(","))
ASLEEP = (psutil.STATUS_STOPPED, psutil.STATUS_ZOMBIE, psutil.STATUS_DEAD)
# What a blow is -> the signal, and whom it meets. Who is stopped sleeps until its run is another's.
WAYS = {
    "kill worker": (signal.SIGKILL, ("worker",)),
    "sleep both": (signal.SIGSTOP, ("worker", "run")),
    "kill run": (signal.SIGKILL, ("run",)),
    "kill both": (signal.SIGKILL, ("worker", "run")),
    "terminate worker": (signal.SIGTERM, ("worker",)),
    "sleep worker": (signal.SIGSTOP, ("worker",)),
    "sleep run": (signal.SIGSTOP, ("run",)),
}


@dataclass
class Sweep:
    """Workers on one folder, started as often as it takes, and what is seen of them by looking several times a second.

    Attributes:
        trainings: every training that was seen: its process -> its run's folder.
        begun: those that have written in it: who still imports, or takes leave, trains nothing.
        woken: process -> when it was woken (monotonic seconds).
        together: moments at which two trainings of one run were awake, neither of them just woken.
        slow_to_leave: seconds for which those that were woken were awake beside the one that had their run.
        results: run's folder -> times of its result (ns), more than one if it was written again.
    """

    folder: Path
    workers: dict[int, psutil.Popen] = field(default_factory=dict)
    starts: int = 0
    trainings: dict[psutil.Process, Path] = field(default_factory=dict)
    begun: set[psutil.Process] = field(default_factory=set)
    woken: dict[psutil.Process, float] = field(default_factory=dict)
    together: list[str] = field(default_factory=list)
    slow_to_leave: dict[psutil.Process, float] = field(default_factory=dict)
    results: dict[Path, set[int]] = field(default_factory=dict)

    def start(self, number: int, *flags: str) -> None:
        words = ["--grid", f"lr={RATES}", "--seeds", SEEDS, "--folder", str(self.folder), "--lease", str(LEASE), *flags]
        words += [word for name, value in JOB.items() for word in (f"--{name}", str(value))]
        self.starts += 1
        with open(self.folder.parent / f"{self.folder.name}-{number}.log", "a") as log:
            self.workers[number] = psutil.Popen(
                [sys.executable, "-m", "attnet", "sweep", *words],
                cwd=repository_root(), stdout=log, stderr=log, env={**os.environ, "OMP_NUM_THREADS": "1"},
            )  # fmt: skip

    def look(self) -> None:
        """Note who trains what, and what is finished."""
        for worker in self.workers.values():
            with contextlib.suppress(psutil.Error):
                for child in worker.children():
                    words = child.cmdline()
                    if "--output_dir" in words and child not in self.trainings:
                        self.trainings[child] = Path(words[words.index("--output_dir") + 1])
        awake: dict[Path, list[psutil.Process]] = {}
        for process, folder in self.trainings.items():
            if process is self.newest(folder) and self._has_begun(folder / "log.txt", process):
                self.begun.add(process)
            with contextlib.suppress(psutil.Error):
                if process in self.begun and process.status() not in ASLEEP:
                    awake.setdefault(folder, []).append(process)
        for folder, several in awake.items():
            if len(several) > 1:
                sleepers = [one for one in several if one in self.woken]
                for one in sleepers:
                    self.slow_to_leave[one] = time.monotonic() - self.woken[one]
                if len(several) - len(sleepers) > 1:
                    self.together.append(f"{folder.name}: {[one.pid for one in several]}")
        for file in self.folder.glob("*/*/result.json"):
            self.results.setdefault(file.parent, set()).add(file.stat().st_mtime_ns)

    def watch(self, over: threading.Event) -> None:
        while not over.wait(0.2):
            self.look()

    def at_work(self, in_training: bool) -> list[tuple[int, psutil.Process, Path]]:
        """Worker, training, run: of those that are alive, or whose training has begun to write."""
        found = []
        for number, worker in self.workers.items():
            with contextlib.suppress(psutil.Error):
                for child in worker.children():
                    folder = self.trainings.get(child)
                    log = folder and folder / "log.txt"
                    done = folder and (folder / "result.json").exists()
                    if log and not done and (not in_training or child in self.begun):
                        found.append((number, child, folder))
        return found

    def newest(self, folder: Path) -> psutil.Process:
        """The training of a run that was started last."""
        return [one for one, its in list(self.trainings.items()) if its == folder][-1]

    @staticmethod
    def _has_begun(log: Path, training: psutil.Process) -> bool:
        """Whether the training itself, and not the one that it goes on with, has written a line."""
        return log.exists() and log.stat().st_mtime > training.create_time()

    def family(self) -> list[psutil.Process]:
        found = [process for process in self.trainings if process.is_running()]
        return found + [worker for worker in self.workers.values() if worker.poll() is None]


def strike(sweep: Sweep, way: str, in_training: bool, after: float) -> dict[str, object] | None:
    """One blow, at a random moment once `after` runs are done; None where it could not fall any more."""
    deadline = time.monotonic() + 900
    while len(sweep.results) < after and time.monotonic() < deadline:
        time.sleep(0.2)
    time.sleep(random.uniform(0.2, 4.0))
    while not (choice := sweep.at_work(in_training)):
        if len(sweep.results) == RUNS or time.monotonic() > deadline:
            return None
        time.sleep(0.05)
    number, training, folder = random.choice(choice)
    (what, whom), worker, lease = WAYS[way], sweep.workers[number], look(folder).number
    victims = [{"worker": worker, "run": training}[name] for name in whom]
    row = {"way": way, "in_training": in_training, "run": f"{folder.parent.name}/{folder.name}"}
    for victim in victims:
        with contextlib.suppress(psutil.Error):
            victim.send_signal(what)
    begun = time.monotonic()
    if what == signal.SIGSTOP:
        # Another takes the run once it has nothing else to do. Whose worker or training is awake keeps it.
        asleep = 300 if len(victims) > 1 else 1.5 * LEASE
        while look(folder).number == lease and time.monotonic() < begun + asleep:
            if (folder / "result.json").exists():  # it was at its very end
                break
            time.sleep(0.1)
        row["taken_over"] = look(folder).number > lease
        while row["taken_over"] and time.monotonic() < begun + asleep:  # until that one trains
            if (newest := sweep.newest(folder)) != training and newest in sweep.begun:
                break
            time.sleep(0.1)
        for victim in victims:
            if row["taken_over"] and victim is training:
                sweep.woken[victim] = time.monotonic()
            with contextlib.suppress(psutil.Error):
                victim.send_signal(signal.SIGCONT)
    elif victims[0] is worker:
        worker.wait(180)
        sweep.start(number)
    return row | {"seconds": round(time.monotonic() - begun, 2)}


def finish(sweep: Sweep) -> list[int]:
    """Wait for the workers; a run that was struck twice counts as failed until the next start, as a user would give."""
    for _ in range(5):
        statuses = [worker.wait(900) for worker in sweep.workers.values()]
        if not any(statuses):
            return statuses
        for number, status in zip(list(sweep.workers), statuses, strict=True):
            if status:
                sweep.start(number)
    raise RuntimeError(f"the sweep does not finish; see {sweep.folder}")


def check(sweep: Sweep, calm: Sweep) -> list[dict[str, object]]:
    """Each run of the disturbed sweep beside that of the calm one."""
    rows = []
    for path in sorted(calm.folder.glob("*/*/result.json")):
        folder = sweep.folder / path.parent.relative_to(calm.folder)
        epochs = [json.loads(line)["epoch"] for line in (folder / "metrics.jsonl").read_text().splitlines()]
        ours, theirs = (json.loads((one / "result.json").read_text())["last_top1"] for one in (folder, path.parent))
        log = (folder / "log.txt").read_text()
        rows.append(
            {
                "run": f"{folder.parent.name}/{folder.name}",
                "leases": look(folder).number,
                "starts": log.count("training: recipe"),
                "finished": len(sweep.results.get(folder, ())),
                "epochs_once": epochs == list(range(1, EPOCHS + 1)),
                "nothing_after_the_end": bool(re.search(rf"\nepoch {EPOCHS}/{EPOCHS} .*\n\Z", log)),
                "nothing_half_written": not any(name.endswith(".tmp") for name in os.listdir(folder / PLACE)),
                "same_top1": ours == theirs,
                "same_weights": fingerprint(folder) == fingerprint(path.parent),
            }
        )
    return rows


def measure(scratch: Path, kills: int, kept: Path | None) -> dict[str, object]:
    calm, sweep, over = Sweep(kept or scratch / "calm"), Sweep(scratch / "struck"), threading.Event()
    watcher = threading.Thread(target=sweep.watch, args=(over,), daemon=True)
    try:
        if kept is None:
            calm.start(0, "--parallel", "2")
            assert calm.workers[0].wait(3000) == 0
        print("calm", flush=True)
        for number in range(WORKERS):
            sweep.start(number)
        watcher.start()
        blows = []
        for number in range(kills):
            way, after = list(WAYS)[number % len(WAYS)], 0.7 * number * RUNS / kills
            row = strike(sweep, way, number % 3 != 2, after)
            print(json.dumps(row), len(sweep.results), flush=True)
            blows += [row] if row else []
        finish(sweep)
        over.set()
        watcher.join()
        sweep.look()
        time.sleep(1)
        rows = check(sweep, calm)
        wanted = ("epochs_once", "nothing_after_the_end", "nothing_half_written", "same_top1", "same_weights")
        left = sweep.family()
        return {
            "workers": WORKERS,
            "runs": RUNS,
            "struck": len(blows),
            "taken_over": sum(row.get("taken_over", False) for row in blows),
            "missing": RUNS - len(rows),
            "finished_once": sum(row["finished"] == 1 for row in rows),
            "sound": sum(all(row[name] for name in wanted) for row in rows),
            "trained_by_two_at_once": len(sweep.together),
            "woken": len(sweep.woken),
            "together": sweep.together[:20],
            "woken_and_awake_beside_the_new_one_s": round(max(sweep.slow_to_leave.values(), default=0.0), 2),
            "left": len(left),
            "starts_of_workers": sweep.starts,
            "starts_of_runs": sum(row["starts"] for row in rows),
            "by_way": dict(Counter(row["way"] for row in blows)),
            "blows": blows,
            "rows": rows,
        }
    finally:
        over.set()
        for process in (*calm.family(), *sweep.family()):
            with contextlib.suppress(psutil.Error):
                process.kill()


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--calm", type=Path, help="an undisturbed sweep that was made before, in place of a new one")
    parser.add_argument("--output", type=Path)
    options = parser.parse_args()
    random.seed(options.seed)
    scratch, begun, found = Path(tempfile.mkdtemp(prefix="attnet-workers-")), time.monotonic(), {}
    try:
        found = measure(scratch, options.kills, options.calm)
    finally:
        good = found and found["sound"] == found["finished_once"] == found["runs"] and not found["left"]
        good = bool(good and not found["missing"] and not found["trained_by_two_at_once"])
        if good:
            shutil.rmtree(scratch, ignore_errors=True)
        else:
            print(f"kept: {scratch}")
    result = {
        "kind": "worker_kills",
        "what": "workers that share a sweep, struck at random moments, against a sweep that nothing disturbed; a run "
        "is sound when it has each epoch once, nothing after its end, and Top-1 and weights of the undisturbed one",
        **found,
        "lease_seconds": LEASE,
        "job": JOB,
        "minutes": round((time.monotonic() - begun) / 60, 1),
        "command": f"python tests/harness_workers.py --kills {options.kills} --seed {options.seed}"
        + " --calm FOLDER" * (options.calm is not None),
        "environment": environment(device.choose("CPU")),
        "date": date.today().isoformat(),
    }
    if options.output:
        options.output.write_text(json.dumps(result, indent=2) + "\n")
    print({name: value for name, value in found.items() if name not in ("rows", "blows")}, result["minutes"])
    return 0 if good else 1


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    sys.exit(main())
