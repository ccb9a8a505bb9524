"""Disturb training jobs at random moments and in every way, go on, and compare the end with an undisturbed run's.

Weights and metrics have to be the same bit for bit.

    python tests/harness_kill.py --times 24 --output data/results/kill_harness.json

Not collected by pytest: it takes minutes. A job is disturbed again and again, in the way that is next, while it starts
and while it trains; where it does not go on by itself, what a user would do follows: `resume`.
"""

import argparse
import contextlib
import hashlib
import itertools
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from datetime import date
from pathlib import Path

import psutil
import torch

from attnet.base import device
from attnet.base.files.paths import repository_root
from attnet.base.host import environment
from attnet.engine.parameters import TrainConfig

JOB = {
    **{"model": "attention56_tiny", "dataset": "shapes", "mode": "rehearsal", "device_type": "CPU", "device_num": 2},
    **{"train_images": 320, "test_images": 20, "train_batch_size": 8, "total_epochs": 8, "checkpoint_seconds": 0.4},
    **{"progress": "lines", "max_restarts": 2, "image_sizes": "8,8,32"},
}
FOUND = ("epoch", "lr", "train_loss", "test_loss", "top1")
FULL_DISK_MIB = 9  # room for a checkpoint and a half
AT_MOST = 8.0  # seconds between two disturbances of a job
IN_ONE_JOB = 12  # disturbances


def start(folder: Path, **changes: object) -> psutil.Popen:
    flags = TrainConfig(**{**JOB, **changes}, output_dir=str(folder)).flags()
    return psutil.Popen(
        [sys.executable, "-m", "attnet.train", *flags],
        cwd=repository_root(), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )  # fmt: skip


def family_of(job: psutil.Popen) -> tuple[psutil.Process | None, list[psutil.Process]]:
    """torchrun and the ranks."""
    try:
        children = job.children(recursive=True)
        ranks = [p for p in children if "-u" in p.cmdline() and "attnet.train" in p.cmdline()]
        agents = [p for p in children if "attnet.engine.launching.agent" in p.cmdline()]
        return (agents[0] if agents else None), ranks
    except psutil.NoSuchProcess:
        return None, []


def kill_rank(job: psutil.Popen, folder: Path) -> None:
    random.choice(family_of(job)[1]).kill()


def kill_torchrun(job: psutil.Popen, folder: Path) -> None:
    family_of(job)[0].kill()


def kill_all(job: psutil.Popen, folder: Path) -> None:
    agent, ranks = family_of(job)
    for process in [job, agent, *ranks]:
        process.kill()


def kill_notebook(job: psutil.Popen, folder: Path) -> None:
    job.kill()


def terminate_torchrun(job: psutil.Popen, folder: Path) -> None:
    family_of(job)[0].terminate()


def terminate_rank(job: psutil.Popen, folder: Path) -> None:
    random.choice(family_of(job)[1]).terminate()


def hang_up(job: psutil.Popen, folder: Path) -> None:
    """The terminal is closed, or ssh is lost."""
    job.send_signal(signal.SIGHUP)


def hang_up_rank(job: psutil.Popen, folder: Path) -> None:
    random.choice(family_of(job)[1]).send_signal(signal.SIGHUP)


def stop_rank(job: psutil.Popen, folder: Path) -> None:
    """A rank is stopped for a while, as by a machine that is put to sleep; nobody resumes."""
    rank = random.choice(family_of(job)[1])
    rank.suspend()
    time.sleep(random.uniform(0.5, 3))
    rank.resume()


def kill_while_writing(job: psutil.Popen, folder: Path) -> None:
    """SIGKILL for rank 0 while a checkpoint's temporary file is there."""
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline and job.is_running():
        if any((folder / f"{name}.pt.tmp").exists() for name in ("step", "last", "best")):
            ranks = [p for p in family_of(job)[1] if p.environ().get("RANK") == "0"]
            ranks[0].kill()
            return
    raise RuntimeError("no checkpoint was written in 30 s")


def truncate_newest(job: psutil.Popen, folder: Path) -> None:
    """Everything killed, and the newest checkpoint torn, as by a machine that loses power."""
    kill_all(job, folder)
    time.sleep(0.5)
    files = [p for p in (folder / "step.pt", folder / "last.pt") if p.exists()]
    if files:
        newest = max(files, key=lambda p: p.stat().st_mtime)
        os.truncate(newest, newest.stat().st_size * random.randint(1, 9) // 10)


WAYS: list[Callable[[psutil.Popen, Path], None]] = [
    *(kill_rank, kill_torchrun, kill_all, kill_notebook, terminate_torchrun, terminate_rank),
    *(hang_up, hang_up_rank, stop_rank, kill_while_writing, truncate_newest),
]


def fingerprint(folder: Path) -> str:
    """SHA-256 of the final weights and of what each epoch found."""
    state = torch.load(folder / "last.pt", weights_only=True)["model"]
    digest = hashlib.sha256()
    for name in sorted(state):
        digest.update(name.encode() + state[name].contiguous().numpy().tobytes())
    for line in (folder / "metrics.jsonl").read_text().splitlines():
        row = json.loads(line)
        digest.update(json.dumps([row[key] for key in FOUND]).encode())
    return digest.hexdigest()


def finish(folder: Path) -> int:
    """Resume until the run is finished; how many launches that took."""
    launches = 0
    while not finished(folder):
        launches += 1
        if launches > 4:
            raise RuntimeError(f"{folder} does not finish; see its logs/")
        begun = (folder / "config.json").exists()
        launch(folder).wait()
        if not begun and not finished(folder):
            raise RuntimeError(f"{folder}: a fresh start failed")
    return launches


def finished(folder: Path) -> bool:
    return (folder / "result.json").exists()


def launch(folder: Path) -> psutil.Popen:
    """Start the job, or go on with it."""
    return start(folder, **({"resume": str(folder)} if (folder / "config.json").exists() else {}))


def disturb(ways: Iterator[Callable], limit: int, folder: Path) -> dict[str, object]:
    """One job, disturbed until it is finished all the same, or `limit` times."""
    job, launches, struck, everybody = launch(folder), 1, [], {}
    while len(struck) < limit and not finished(folder):
        if job.poll() is not None:
            _ended(job, everybody, folder)
            job, launches = launch(folder), launches + 1
        while len(family_of(job)[1]) < JOB["device_num"] and job.poll() is None:
            time.sleep(0.02)
        time.sleep(random.uniform(0.0, AT_MOST))
        agent, ranks = family_of(job)
        everybody |= {p.pid: p for p in (agent, *ranks) if p is not None}
        if finished(folder):
            break
        way = next(ways)
        with contextlib.suppress(psutil.NoSuchProcess, IndexError, AttributeError):  # it was quicker than we were
            way(job, folder)
            struck.append(way.__name__)
            with contextlib.suppress(psutil.TimeoutExpired):
                job.wait(timeout=AT_MOST)  # it may end by itself; or go on, and be struck again
    _ended(job, everybody, folder)
    orphans = psutil.wait_procs(list(everybody.values()), timeout=60)[1]
    launches += finish(folder)
    torn = [p.name for p in folder.glob("*.tmp")]
    return {
        "ways": struck, "launches": launches, "orphans": len(orphans), "torn_files": torn,
        "sha256": fingerprint(folder),
    }  # fmt: skip


def _ended(job: psutil.Popen, everybody: dict[int, psutil.Process], folder: Path) -> None:
    """Wait for a launch's end, and its ranks', which notice that it is gone."""
    try:
        job.wait(timeout=900)  # it may go on to its end
    except psutil.TimeoutExpired:
        raise RuntimeError(f"{folder}: the launcher hangs") from None
    psutil.wait_procs(list(everybody.values()), timeout=60)


def full_disk(scratch: Path) -> dict[str, object]:
    """A disk too small for the checkpoints; then room is made and the run goes on. Needs the right to mount."""
    mount = scratch / "small"
    mount.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={FULL_DISK_MIB}m", "tmpfs", mount], check=True)
    try:
        folder = mount / "run"
        failed = start(folder).wait() != 0
        told = "could not be written" in (folder / "logs" / "rank0.log").read_text()
        subprocess.run(["mount", "-o", "remount,size=64m", mount], check=True)
        launches = 1 + finish(folder)
        return {
            "ways": ["full_disk"] * (failed and told), "launches": launches, "orphans": 0,
            "torn_files": [p.name for p in folder.glob("*.tmp")], "sha256": fingerprint(folder),
        }  # fmt: skip
    finally:
        subprocess.run(["umount", mount], check=True)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--times", type=int, default=24)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--output", type=Path, help="written after every job; one that is there is gone on with")
    options = parser.parse_args()
    random.seed(options.seed)
    scratch = Path(tempfile.mkdtemp(prefix="attnet-kill-"))
    try:
        calm = scratch / "calm"
        if start(calm).wait():
            raise RuntimeError("the undisturbed run failed")
        expected = fingerprint(calm)
        rows, ways = _begun(options.output, expected), itertools.cycle(WAYS)
        while (left := options.times - sum(len(row["ways"]) for row in rows)) > 0:
            folder = scratch / f"run{len(rows)}"
            rows.append(disturb(ways, min(left, IN_ONE_JOB), folder))
            print(json.dumps(rows[-1]), flush=True)
            shutil.rmtree(folder)
            _write(options, rows, expected)
        if os.geteuid() == 0 and shutil.which("mount"):
            rows.append(full_disk(scratch))
            print(json.dumps(rows[-1]), flush=True)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    result = _write(options, rows, expected)
    print({name: result[name] for name in ("jobs", "struck", "equal", "orphans", "torn_files")})
    return 0 if result["equal"] == len(rows) and not result["orphans"] and not result["torn_files"] else 1


def _begun(file: Path | None, expected: str) -> list[dict[str, object]]:
    """The rows of a record that was begun on this machine with this code: with the same undisturbed run, then."""
    if file is None or not file.exists():
        return []
    found = json.loads(file.read_text())
    return found["rows"] if found.get("expected_sha256") == expected and found.get("job") == JOB else []


def _write(options: argparse.Namespace, rows: list[dict[str, object]], expected: str) -> dict[str, object]:
    result = {
        "kind": "durability",
        "what": "jobs of two ranks disturbed at random moments and resumed; weights and metrics against a calm run's",
        "jobs": len(rows),
        "struck": sum(len(row["ways"]) for row in rows),
        "struck_by_way": dict(sorted(Counter(way for row in rows for way in row["ways"]).items())),
        "equal": sum(row["sha256"] == expected for row in rows),
        "orphans": sum(row["orphans"] for row in rows),
        "torn_files": sum(len(row["torn_files"]) for row in rows),
        "expected_sha256": expected,
        "rows": rows,
        "job": JOB,
        "command": f"python tests/harness_kill.py --times {options.times} --seed {options.seed}",
        "environment": environment(device.choose("CPU")),
        "date": date.today().isoformat(),
    }
    if options.output:
        options.output.write_text(json.dumps(result, indent=2) + "\n")
    return result


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    sys.exit(main())
