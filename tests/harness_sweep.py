"""Kill sweeps half-way in every way, at random moments; start them again; compare with sweeps that nothing disturbed.

    python tests/harness_sweep.py --output data/results/kill_sweep.json

Not collected by pytest: it takes minutes. A sweep is started again after each blow as a user would, by the same
command. In the end nothing may have run twice, nothing may be missing, and every weight must be the same bit for bit.
"""

import argparse
import json
import os
import random
import re
import shutil
import signal
import sys
import tempfile
import time
from dataclasses import dataclass, field
from datetime import date
from pathlib import Path

import psutil
from harness_kill import fingerprint

from attnet.base import device
from attnet.base.files.paths import repository_root
from attnet.base.host import environment

EPOCHS = 6
JOB = {
    **{"model": "attention56_tiny", "dataset": "shapes", "mode": "rehearsal", "device_type": "CPU"},
    **{
        "train_images": 160,
        "test_images": 20,
        "train_batch_size": 8,
        "total_epochs": EPOCHS,
        "checkpoint_seconds": 0.3,
    },
}
# What each run is -> grid, flags, runs in all, blows.
KINDS = {
    "processes": (["lr=0.1,0.05,0.02"], ["--seeds", "0,1", "--parallel", "2"], 6, 6),
    "torchrun": (["lr=0.1,0.05"], ["--device_num", "2"], 2, 3),
    "notebooks": (["lr=0.1,0.05"], ["--notebook", "notebooks/train_1p.ipynb"], 2, 3),
}


@dataclass
class Job:
    """A sweep by its command, in a folder, started as often as it takes."""

    kind: str
    folder: Path
    process: psutil.Popen | None = None
    starts: int = 0
    finished: dict[str, int] = field(default_factory=dict)  # run -> time of its result, ns

    def start(self) -> None:
        grid, flags, *_ = KINDS[self.kind]
        words = [word for part in grid for word in ("--grid", part)] + ["--folder", str(self.folder), *flags]
        words += [word for name, value in JOB.items() for word in (f"--{name}", str(value))]
        self.starts += 1
        with open(self.folder.parent / f"{self.folder.name}.log", "a") as log:
            self.process = psutil.Popen(
                [sys.executable, "-m", "attnet", "sweep", *words],
                cwd=repository_root(), stdout=log, stderr=log, env={**os.environ, "OMP_NUM_THREADS": "1"},
            )  # fmt: skip

    def family(self) -> list[psutil.Process]:
        """Every process that names the folder on its command line, or descends from one that does."""
        found = {}
        for process in psutil.process_iter():
            try:
                if process.pid != os.getpid() and str(self.folder) in " ".join(process.cmdline()):
                    found |= {one.pid: one for one in (process, *process.children(recursive=True))}
            except psutil.Error:
                continue
        return list(found.values())

    def look(self) -> None:
        """Note what is finished; what was finished before must be as it was."""
        for path in self.folder.glob("*/*/result.json"):
            was = self.finished.setdefault(path.parent.parent.name + "/" + path.parent.name, path.stat().st_mtime_ns)
            assert was == path.stat().st_mtime_ns, f"{path} was written twice"

    def unfinished(self) -> list[Path]:
        """The log of each run that has begun and has no result."""
        return [log for log in self.folder.glob("*/*/log.txt") if not (log.parent / "result.json").exists()]

    def run_to_the_end(self) -> None:
        for _ in range(4):  # a run that was struck twice counts as failed until the next start
            if self.process is None or self.process.poll() is not None:
                self.start()
            if self.process.wait() == 0:
                return
        raise RuntimeError(f"the sweep does not finish; see {self.folder}")


def strike(job: Job, way: str, usual: float, in_training: bool) -> dict[str, object]:
    """One blow, then wait until all that it should end has ended.

    It comes at a random moment of the `usual` seconds of a run, or of the first seconds of training.
    """
    if job.process is None or job.process.poll() is not None:
        job.start()
    begun, wall = time.monotonic(), time.time()
    if in_training:
        while job.process.poll() is None and not any(log.stat().st_mtime > wall for log in job.unfinished()):
            time.sleep(0.05)
        time.sleep(random.uniform(0.0, 2.0))
    else:
        time.sleep(random.uniform(0.2, 1.1) * usual)
    row = {
        **{"way": way, "seconds_after_start": round(time.monotonic() - begun, 2), "struck": job.process.poll() is None},
        "training": sum(log.stat().st_mtime > wall for log in job.unfinished()),
    }
    if row["struck"]:
        family = job.family()
        runs = [p for p in family if p.is_running() and p.ppid() == job.process.pid]
        if way == "kill one run":
            victims = random.sample(runs, min(1, len(runs)))
        else:
            victims = family if way == "kill all" else [job.process]
        for process in victims:
            number = {"terminate sweep": signal.SIGTERM, "interrupt sweep": signal.SIGINT}.get(way, signal.SIGKILL)
            if process.is_running():
                process.send_signal(number)
        row["runs_at_work"] = len(runs)
        if way != "kill one run":
            job.process.wait(150)
            orderly = way in ("terminate sweep", "interrupt sweep")
            begun = time.monotonic()
            left = psutil.wait_procs(family, timeout=0.5 if orderly else 60)[1]
            row |= {"left": len(left), "seconds_until_all_ended": round(time.monotonic() - begun, 2)}
    job.look()
    return row


def check(job: Job, calm: Job) -> dict[str, object]:
    """What the disturbed sweep left, beside the calm one."""
    rows = []
    for path in sorted(calm.folder.glob("*/*/result.json")):
        name = path.parent.parent.name + "/" + path.parent.name
        folder = job.folder / name
        epochs = [json.loads(line)["epoch"] for line in (folder / "metrics.jsonl").read_text().splitlines()]
        ours, theirs = (json.loads((f / "result.json").read_text())["last_top1"] for f in (folder, path.parent))
        log = (folder / "log.txt").read_text()
        rows.append(
            {
                "run": name,
                "starts": log.count("training: recipe"),
                "epochs_once": epochs == list(range(1, EPOCHS + 1)),
                "nothing_after_the_end": bool(re.search(rf"\nepoch {EPOCHS}/{EPOCHS} .*\n\Z", log)),
                "same_top1": ours == theirs,
                "same_weights": fingerprint(folder) == fingerprint(path.parent),
            }
        )
    wanted = ("epochs_once", "nothing_after_the_end", "same_top1", "same_weights")
    return {
        "runs": len(rows),
        "missing": KINDS[job.kind][2] - len(job.finished),
        "sound": sum(all(row[name] for name in wanted) for row in rows),
        "left": len(job.family()),
        "starts_of_the_sweep": job.starts,
        "starts_of_runs": sum(row["starts"] for row in rows),
        "rows": rows,
    }


def measure(kind: str, scratch: Path) -> dict[str, object]:
    calm, job = Job(kind, scratch / f"{kind}-calm"), Job(kind, scratch / f"{kind}-struck")
    try:
        begun = time.monotonic()
        calm.run_to_the_end()
        usual = (time.monotonic() - begun) / KINDS[kind][2] * (2 if "--parallel" in KINDS[kind][1] else 1)
        ways = ["kill sweep", "terminate sweep", "kill one run", "kill all", "interrupt sweep"]
        blows = []
        for number in range(KINDS[kind][3]):
            blows.append(strike(job, ways[number % len(ways)], usual, in_training=number % 2 == 0))
            print(kind, json.dumps(blows[-1]), flush=True)
        job.run_to_the_end()
        job.look()
        return {"blows": blows, **check(job, calm)}
    finally:
        for process in (*calm.family(), *job.family()):
            process.kill()


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kinds", default=",".join(KINDS))
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--output", type=Path)
    options = parser.parse_args()
    random.seed(options.seed)
    scratch, begun = Path(tempfile.mkdtemp(prefix="attnet-sweep-")), time.monotonic()
    found = {}
    try:
        for kind in options.kinds.split(","):
            found[kind] = measure(kind, scratch)
            print(kind, json.dumps({k: v for k, v in found[kind].items() if k not in ("rows", "blows")}), flush=True)
    finally:
        if all(row["sound"] == row["runs"] for row in found.values()) and found:
            shutil.rmtree(scratch, ignore_errors=True)
        else:
            print(f"kept: {scratch}")
    blows = [blow for row in found.values() for blow in row["blows"]]
    result = {
        "kind": "sweep_kills",
        "what": "sweeps struck at random moments and started again, against sweeps that nothing disturbed; a run is "
        "sound when it has each epoch once, nothing after its end, and Top-1 and weights of the undisturbed one",
        "struck": sum(blow["struck"] for blow in blows),
        "runs": sum(row["runs"] for row in found.values()),
        "missing": sum(row["missing"] for row in found.values()),
        "sound": sum(row["sound"] for row in found.values()),
        "left": sum(row["left"] for row in found.values()) + sum(blow.get("left", 0) for blow in blows),
        "by_kind": found,
        "job": JOB,
        "minutes": round((time.monotonic() - begun) / 60, 1),
        "command": f"python tests/harness_sweep.py --kinds {options.kinds} --seed {options.seed}",
        "environment": environment(device.choose("CPU")),
        "date": date.today().isoformat(),
    }
    if options.output:
        options.output.write_text(json.dumps(result, indent=2) + "\n")
    print({name: result[name] for name in ("struck", "runs", "missing", "sound", "left", "minutes")})
    return 0 if result["sound"] == result["runs"] and not result["missing"] and not result["left"] else 1


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    sys.exit(main())
