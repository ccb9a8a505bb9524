"""On a Slurm cluster of two nodes: the README's script, `attnet submit` and a notebook train, are stopped and go on.

Every run ends with the weights of the same job by torchrun alone, bit for bit.
"""

import json
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import slurm_cluster
import torch

from attnet.engine.parameters import TrainConfig

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(bool(slurm_cluster.missing()), reason=slurm_cluster.missing()),
]
ROOT = Path(__file__).resolve().parents[2]
README = (ROOT / "attnet/engine/launching/README.md").read_text(encoding="utf-8")
EPOCHS = 6
TINY = {
    **{"model": "attention56_tiny", "dataset": "shapes", "mode": "rehearsal", "device_type": "CPU", "device_num": 2},
    **{"train_images": 16, "test_images": 20, "train_batch_size": 4, "total_epochs": EPOCHS},
}


@pytest.fixture(scope="module")
def cluster() -> Iterator[slurm_cluster.Cluster]:
    with slurm_cluster.cluster() as one:
        one.variables |= {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
        yield one
    assert not list(one.left()), "no process left behind"


@pytest.fixture(autouse=True)
def no_job_left(cluster) -> Iterator[None]:
    """A test that failed leaves the nodes to the next one."""
    yield
    cluster.command("scancel", "--user=root")
    cluster.wait(lambda: not cluster.command("squeue", "--noheader").strip())


@pytest.fixture(scope="module")
def alone(cluster, tmp_path_factory) -> Path:
    """The run folder of the same job by torchrun on this machine, with the cores of both nodes."""
    folder = tmp_path_factory.mktemp("alone") / "run"
    cores = ",".join(map(str, cluster.cores))
    words = ["taskset", "-c", cores, sys.executable, "-m", "attnet", "train", *flags(output_dir=folder)]
    done = subprocess.run(words, env=cluster.variables, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    return folder


def flags(**changes: object) -> list[str]:
    return TrainConfig(**{**TINY, **{name: str(value) for name, value in changes.items()}}).flags()


class Run:
    """A job and its run folder."""

    def __init__(self, cluster: slurm_cluster.Cluster, job: str, folder: Path) -> None:
        assert job.isdecimal(), job
        self.cluster, self.job, self.folder = cluster, job, folder

    @property
    def words(self) -> str:
        log = self.folder.parent / f"slurm-{self.job}.out"
        return log.read_text() if log.exists() else ""

    @property
    def epochs(self) -> int:
        metrics = self.folder / "metrics.jsonl"
        return len(metrics.read_text().splitlines()) if metrics.exists() else 0

    @property
    def state(self) -> str:
        return self.cluster.command("squeue", "--noheader", "--format=%T", "--states=all", f"--job={self.job}").strip()

    def wait_for(self, what: object, seconds: float = 400) -> None:
        deadline = time.monotonic() + seconds
        while not what():
            assert time.monotonic() < deadline, f"{self.state}\n{self.words}"
            time.sleep(0.1)

    def hold(self) -> None:
        """Let it train for an epoch, then stop a rank's clock: the others wait for it, and nothing depends on pace."""
        self.wait_for(lambda: self.epochs or (self.words and self.state not in ("RUNNING", "PENDING")))
        assert self.epochs, f"{self.state}\n{self.words}"
        self.held = [p for p, variables in self.cluster.left() if variables.get("SLURMD_NODENAME") == "n1"]
        self.held = [p for p in self.held if "attnet.train" in p.cmdline() and "-u" in p.cmdline()]
        assert len(self.held) == 1
        self.held[0].suspend()

    def let_go(self) -> None:
        """Once Slurm has said that the step is to end."""
        self.wait_for(lambda: re.search(r"STEP .* CANCELLED AT", self.words))
        self.held[0].resume()

    def go_on(self) -> None:
        """Begin soon after it is in the queue again and both nodes are free; elsewhere that takes two minutes.

        Not within the second in which it was stopped: a node takes what was issued in that for the job that it has
        just ended, and the job fails ("Job credential revoked").
        """
        self.wait_for(lambda: self.state == "PENDING" and self.cluster.idle == 2)
        self.cluster.command("scontrol", "update", f"job={self.job}", "StartTime=now+2")

    def end(self) -> None:
        self.wait_for(lambda: self.state not in ("RUNNING", "PENDING", "COMPLETING"))
        assert self.state == "COMPLETED", self.words

    def assert_saved(self) -> None:
        assert re.match(r"stopped by SIGTERM in epoch \d+.*; everything is saved", self.last_line)
        assert "too late or too early" not in self.words

    @property
    def last_line(self) -> str:
        return (self.folder / "log.txt").read_text().splitlines()[-1]

    def assert_equals(self, other: Path) -> None:
        for name in ("last.pt", "best.pt"):
            mine, others = (torch.load(path / name, weights_only=True)["model"] for path in (self.folder, other))
            assert mine.keys() == others.keys() and [k for k in mine if not torch.equal(mine[k], others[k])] == []
        mine, others = (json.loads((path / "result.json").read_text()) for path in (self.folder, other))
        for name in ("top1", "last_top1", "test_loss", "epochs", "device", "confusion"):
            assert mine[name] == others[name], name


def paste(cluster: slurm_cluster.Cluster, folder: Path, time_limit: str = "10", **changes: object) -> Run:
    """The README's script in a file, its paths, cards and network replaced, given to sbatch."""
    script = re.search(r"(#!/bin/bash\n.*?)```", README, flags=re.DOTALL)[1]
    for old, new in {
        "attnet train --device_num 16 --output_dir": f"{sys.executable} -m attnet train --output_dir",
        "--mode full --data_path /shared/cifar-10-batches-py": " ".join(flags(**changes)),
        "--gpus-per-node=8 --exclusive --time=8:00:00": f"--exclusive --time={time_limit}",
        "/shared": str(folder),
    }.items():
        assert old in script
        script = script.replace(old, new)
    (folder / "job.sh").write_text(script)
    said = cluster.command("sbatch", str(folder / "job.sh"))
    return Run(cluster, said.removeprefix("Submitted batch job ").strip(), folder / "run")


def submit(cluster: slurm_cluster.Cluster, folder: Path, *words: str) -> Run:
    said = cluster.command(
        *(sys.executable, "-m", "attnet", "submit", "--nodes", "2", "--time", "10"),
        *(*words, *flags(output_dir=folder / "run")),
    )
    return Run(cluster, re.search(r"\njob (\d+) is submitted", said)[1], folder / "run")


def test_the_readmes_script_saves_itself_at_its_time_limit_and_goes_on(cluster, alone, tmp_path):
    run = paste(cluster, tmp_path)
    run.hold()
    assert "2 machines (n[0-1]) meet at 127.0.0.1:1" in run.words
    # Limits are in minutes: the next one that leaves Slurm the half minute between two looks at them.
    shown = cluster.command("scontrol", "show", "job", run.job)
    hours, minutes, seconds = map(int, re.search(r"RunTime=(\d+):(\d+):(\d+)", shown).groups())
    limit = 60 * hours + minutes + (1 if seconds < 25 else 2)
    cluster.command("scontrol", "update", f"job={run.job}", f"TimeLimit={limit}")
    run.let_go()
    run.wait_for(lambda: run.state == "PENDING")
    run.assert_saved()
    assert "DUE TO TIME LIMIT" not in run.words, "it was asked before that"

    cluster.command("scontrol", "update", f"job={run.job}", "TimeLimit=10")
    run.go_on()
    run.end()
    run.assert_equals(alone)
    assert run.words.count(", one a card, on 2 machines") == 2, "the plan says so, once each time"
    assert run.words.count("goes on after epoch") and run.words.count("run folder: ") == 1, "machine 0 alone speaks"


def test_a_node_dies_and_the_job_goes_on_when_it_is_back(cluster, alone, tmp_path):
    run = submit(cluster, tmp_path)
    run.hold()
    cluster.kill_node("n1")
    run.wait_for(lambda: run.state == "PENDING")
    assert "Node failure on n1" in run.words
    assert "the last checkpoint is of" in run.words and not (run.folder / "result.json").exists()
    cluster.start_node("n1")
    run.go_on()
    run.end()
    assert "goes on after epoch" in run.words
    run.assert_equals(alone)


def test_the_notebook_on_both_nodes(cluster, alone, tmp_path):
    """papermill, its kernel, torchrun and the ranks all hear of scancel at once, and nothing is lost."""
    first = submit(cluster, tmp_path, "--notebook", str(ROOT / "notebooks/train_8p.ipynb"))
    first.hold()
    cluster.command("scancel", first.job)
    first.let_go()
    first.wait_for(lambda: first.state == "CANCELLED")
    first.assert_saved()
    second = submit(cluster, tmp_path, "--notebook", str(ROOT / "notebooks/train_8p.ipynb"))
    second.end()
    second.assert_equals(alone)
    assert first.state == "CANCELLED", "it did not go back to the queue"
    books = sorted(path.name for path in tmp_path.glob("*.ipynb"))
    assert books == [f"train_8p-{run.job}-{node}.ipynb" for run in (first, second) for node in (0, 1)]
    executed = json.loads((tmp_path / books[-1]).read_text())
    assert all(cell["execution_count"] for cell in executed["cells"] if cell["cell_type"] == "code")
