"""Several cards, with real torchrun and Gloo: the same pictures, the same weights, the same test result."""

import json
import os
import re
import socket
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

import attnet
from attnet.base.device import KINDS
from attnet.base.errors import AttnetError, ConfigError
from attnet.engine import distributed
from attnet.engine.distributed import Requests, World
from attnet.engine.loop import Trainer
from attnet.engine.parameters import TrainConfig

ROOT = Path(__file__).resolve().parents[2]
TINY = {
    **{"model": "attention56_tiny", "dataset": "shapes", "mode": "rehearsal", "device_type": "CPU"},
    **{"train_images": 96, "test_images": 90, "test_batch_size": 25, "train_batch_size": 4, "total_epochs": 1},
}

VARIABLES = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE")


def train(ranks: int, output_dir: Path, **changes: object) -> attnet.Result:
    """One run with `ranks` processes started by torchrun, one thread each."""
    parameters = {**TINY, **changes, "output_dir": output_dir}
    flags = [f"--{name}={value}" for name, value in parameters.items()]
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc_per_node={ranks}"]
    done = subprocess.run(
        [*command, "-m", "attnet.train", *flags],
        cwd=ROOT, env={**os.environ, "OMP_NUM_THREADS": "1"}, capture_output=True, text=True, timeout=300, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stdout.count("run folder:") == 1, "rank 0 alone speaks"
    return attnet.Result.load(output_dir)


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return torch.load(folder / "last.pt", weights_only=True)["model"]


def distance(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> float:
    """The largest difference of a tensor from its counterpart, relative to its own largest value."""
    pairs = ((a[n].double(), b[n].double()) for n in a if a[n].is_floating_point())
    return max(((x - y).abs().max() / x.abs().max().clamp_min(1e-12)).item() for x, y in pairs)


def test_two_ranks_equal_accumulate_2(tmp_path, monkeypatch, capfd):
    """Eight steps at lr 0.01, through `attnet.launch`: every weight, momentum and batch-norm statistic, to 1e-6.

    The command is shown, rank 0's lines appear, and each rank has its log.
    """
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    size = {"train_images": 32, "test_images": 20, "total_epochs": 2, "lr": 0.01, "label_noise": 0.3}
    config = TrainConfig(**{**TINY, **size}, progress="lines", output_dir=str(tmp_path / "one"))
    one = attnet.fit(config.replace(accumulate=2))
    capfd.readouterr()
    two = attnet.launch(config.replace(device_num=2, output_dir=str(tmp_path / "two")))
    first, *rest = capfd.readouterr().out.splitlines()

    assert distance(weights(one.output_dir), weights(two.output_dir)) <= 1e-6
    start = attnet.build_model("attention56_tiny").state_dict()
    assert distance(weights(one.output_dir), start) > 0.1, "something was learned"
    assert two.device == "cpu_2p" and two.history[0]["train_loss"] == pytest.approx(one.history[0]["train_loss"])
    assert one.memorisation == two.memorisation and one.memorisation["images"] == 10
    rows = [json.loads(line) for line in (two.output_dir / "metrics.jsonl").read_text().splitlines()]
    assert rows == two.history and [(row["epoch"], len(row["rank_fps"])) for row in rows] == [(1, 2), (2, 2)]
    assert all(row["fps"] == pytest.approx(2 * min(row["rank_fps"])) for row in rows)
    assert all(len(row["trace_of_rank_0"]) == row["steps"] for row in rows), "few steps: after each of them"
    assert all(len(row["rank_forward"]) == 2 and min(row["rank_forward"]) > 0 for row in rows)
    assert not list(two.output_dir.glob("*.tmp")) and not (two.output_dir / "step.pt").exists()

    command = "torchrun --standalone --local_addr=127.0.0.1 --nproc_per_node=2 --max_restarts=3 -m attnet.train "
    assert first.startswith(command)
    assert "--train_batch_size 4" in first and str(tmp_path / "two") in first and "--resume auto" in first
    assert sum(line.startswith("epoch ") for line in rest) == 2
    logs = two.output_dir / "logs"
    assert {"rank0.log", "rank1.log", "torchrun.log"} <= {path.name for path in logs.iterdir()}
    assert "epoch 2/2" in (logs / "rank0.log").read_text() and "epoch" not in (logs / "rank1.log").read_text()


@pytest.mark.slow
@pytest.mark.parametrize("ranks", [8])
def test_more_ranks_equal_accumulate(tmp_path, ranks):
    """One step: gradients are summed in another order than on one card, so they agree to rounding.

    (After a second step, single pixels have changed sides in a max-pool or ReLU, and runs part by 1e-2.)
    """
    size = {"lr": 0.01, "train_images": 4 * ranks, "test_images": 20}
    one = train(1, tmp_path / "one", accumulate=ranks, **size)
    many = train(ranks, tmp_path / "many", **size)
    assert distance(weights(one.output_dir), weights(many.output_dir)) <= 2e-5
    assert many.device == f"cpu_{ranks}p"


@pytest.mark.slow
def test_every_number_of_ranks_tests_alike(tmp_path):
    """90 images in batches of 25 for 1, 3 and 8 ranks, four of which have nothing to do: equal to the last digit."""
    torch.manual_seed(0)
    torch.save(attnet.build_model("attention56_tiny").state_dict(), tmp_path / "weights.pt")
    given = {"is_train": False, "pretrained": tmp_path / "weights.pt"}
    results = [train(ranks, tmp_path / str(ranks), **given) for ranks in (1, 3, 8)]
    for result in results[1:]:
        assert (result.test_loss, result.top1) == (results[0].test_loss, results[0].top1)
        assert (result.confusion, result.per_class) == (results[0].confusion, results[0].per_class)
    assert sum(map(sum, results[0].confusion)) == 90


@pytest.mark.slow
def test_a_mistake_is_told_once_by_each_rank_and_ends_the_job(tmp_path):
    command = [
        sys.executable,
        "-m",
        "torch.distributed.run",
        "--standalone",
        "--nproc_per_node=2",
        "-m",
        "attnet.train",
    ]
    flags = [f"--{k}={v}" for k, v in {**TINY, "train_batch_size": 64, "output_dir": tmp_path / "run"}.items()]
    done = subprocess.run([*command, *flags], cwd=ROOT, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode != 0
    assert "train_batch_size=64 x 2 micro-batches a step: more than the 96 training images" in done.stderr
    assert not (tmp_path / "run").exists()


def test_one_process_refuses_several_cards():
    with pytest.raises(ConfigError, match=r"device_num=8: one process drives one card.*attnet\.launch"):
        attnet.fit(TrainConfig(device_num=8))


def test_world_reads_torchrun_and_stands_alone_without(monkeypatch):
    for name in VARIABLES:
        monkeypatch.delenv(name, raising=False)
    alone = World.from_environment()
    assert alone == World() and alone.is_main
    assert alone.gather("x") == ["x"] and alone.broadcast(3) == 3 and alone.sum(torch.tensor(2.0)) == 2
    values = {"RANK": "5", "WORLD_SIZE": "16", "LOCAL_RANK": "1", "LOCAL_WORLD_SIZE": "4"}
    for name, value in values.items():
        monkeypatch.setenv(name, value)
    world = World.from_environment()
    assert world == World(5, 16, 1, 4) and not world.is_main
    assert world.fit_to(TrainConfig(device_type="CPU")).device_num == 16


@pytest.mark.parametrize(
    ("rank", "size", "local_rank", "local_size", "alone"),
    [
        ("", "", None, None, True),
        ("0", "1", None, None, True),  # as some clusters set for a job of one
        (None, None, "0", None, True),
        ("3", "8", None, None, False),
        ("", "8", "", "", False),
        ("1", None, None, None, False),
        ("2", "2", "0", "2", False),
        ("0", "2", "2", "2", False),
        ("0", "2", "0", "4", False),
        ("x", "2", "0", "2", False),
    ],
)
def test_what_an_older_job_left_in_the_environment_is_named(monkeypatch, rank, size, local_rank, local_size, alone):
    values = dict(zip(VARIABLES, (rank, size, local_rank, local_size), strict=True))
    for name, value in values.items():
        monkeypatch.delenv(name, raising=False) if value is None else monkeypatch.setenv(name, value)
    if alone:
        assert World.from_environment() == World()
        return
    with pytest.raises(ConfigError, match=r"left in the environment by another job.*`unset ") as error:
        World.from_environment()
    shown, rest = str(error.value).split(": ", 1)
    assert shown.split() == [f"{name}={value}" for name, value in values.items() if value]
    assert all(f"{name}" in rest.split("`unset")[1] for name, value in values.items() if value)


@pytest.fixture
def quiet_ranks(monkeypatch) -> None:
    """`World.joined` without what it does to this very process."""
    monkeypatch.setattr(distributed, "share_cores", lambda *_: None)
    monkeypatch.setattr(distributed, "_watch_parents", lambda: None)
    monkeypatch.delenv("TORCHELASTIC_USE_AGENT_STORE", raising=False)
    monkeypatch.setenv("MASTER_ADDR", "127.0.0.1")


def test_a_rank_that_meets_nobody_says_what_it_waits_for(monkeypatch, capsys, quiet_ranks):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    for name, value in zip(VARIABLES, ("0", "2", "0", "2"), strict=True):
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("MASTER_PORT", str(port))
    monkeypatch.setattr(distributed, "PATIENCE", 0.1)
    where = rf"the other 1 of 2 ranks at 127\.0\.0\.1:{port} \(MASTER_ADDR, MASTER_PORT\)"
    refused = pytest.raises(AttnetError, match=f"^rank 0 did not meet {where}: .*`unset RANK WORLD_SIZE")
    with refused, World.from_environment().joined(KINDS["CPU"](), timeout_minutes=0.02):
        pass
    assert re.search(rf"^attnet: rank 0 has waited [\d.]+ s for {where}; if this is", capsys.readouterr().err)


@pytest.mark.parametrize("case", ["port taken", "no address"])
def test_a_meeting_point_that_cannot_be(monkeypatch, quiet_ranks, case):
    for name, value in zip(VARIABLES, ("0", "2", "0", "2"), strict=True):
        monkeypatch.setenv(name, value)
    with socket.socket() as taken:
        taken.bind(("0.0.0.0", 0))
        taken.listen()
        monkeypatch.setenv("MASTER_PORT", str(taken.getsockname()[1]))
        if case == "no address":
            monkeypatch.delenv("MASTER_ADDR")
        why = "another program has that port" if case == "port taken" else ".*MASTER_ADDR expected"
        refused = pytest.raises(AttnetError, match=rf"^rank 0 did not meet .*: {why}")
        with refused, World.from_environment().joined(KINDS["CPU"](), timeout_minutes=0.02):
            pass


@pytest.mark.parametrize(("ranks", "shares"), [(1, [4]), (2, [2, 2]), (3, [1, 1, 1]), (8, [4] * 8)])
def test_cores_are_split_evenly(ranks, shares, monkeypatch):
    """Four cores; with more ranks than cores nobody is pinned and each has one thread."""
    cores, threads = {0, 2, 4, 6}, []
    owned = []
    for rank in range(ranks):
        mine = set(cores)
        monkeypatch.setattr(distributed.os, "sched_getaffinity", lambda pid: cores, raising=False)
        monkeypatch.setattr(
            distributed.os,
            "sched_setaffinity",
            lambda pid, some, mine=mine: mine.intersection_update(some),
            raising=False,
        )
        monkeypatch.setattr(distributed.torch, "set_num_threads", threads.append)
        distributed.share_cores(rank, ranks)
        owned.append(mine)
    assert [len(mine) for mine in owned] == shares
    assert threads == [max(1, 4 // ranks)] * ranks
    if ranks <= 4:
        assert sum(map(len, owned)) == len(set().union(*owned)), "no core twice"


class FakeStore(dict):
    """The three calls of a TCPStore that Requests makes."""

    def check(self, keys: list[str]) -> bool:
        return all(key in self for key in keys)

    def compare_set(self, key: str, expected: str, value: str) -> None:
        if self.get(key, "") == expected:
            self[key] = value


def test_ranks_stop_after_the_same_step(monkeypatch):
    """Rank 1 is signalled after step 7 while rank 0, whose process may be a step ahead, has looked after step 8."""
    store = FakeStore()
    monkeypatch.setattr(distributed.dist.distributed_c10d, "_get_default_store", lambda: store)
    first, second = (Requests(World(rank, 2, rank, 2)) for rank in (0, 1))
    assert first.due("stop", 8) is None
    second.post("stop", 7 + Requests.AHEAD, 15)
    first.post("stop", 8 + Requests.AHEAD, 2)  # its own signal a moment later changes nothing
    assert second.due("stop", 7) is second.due("stop", 8) is None
    assert (first.due("stop", 9), second.due("stop", 9)) == (15, 15)
    assert second.due("stop", 10) is None, "used up"
    for step in (20, 30):  # a request can be made again
        first.post("save", step)
        assert (first.due("save", step), second.due("save", step)) == (0, 0)


def test_no_process_looks_before_its_device_is_done_with_the_step_before(monkeypatch):
    """Else it might be any number of steps ahead of the others: a device waits for an exchange, a process does not."""
    happened = []
    device = SimpleNamespace(mark=lambda: happened.append("mark") or (lambda: happened.append("wait")))
    loop = SimpleNamespace(
        folder=SimpleNamespace(beat=lambda: None), epoch=1, step=2, train_batches=range(10), device=device,
        world=World(0, 2, 0, 2), step_before=lambda: happened.append("wait"), save_at=0.0, save=happened.append,
        pulse=SimpleNamespace(asked=False),
        requests=SimpleNamespace(
            post=lambda kind, step: happened.append((kind, step)), due=lambda kind, step: happened.append(kind)
        ),
    )  # fmt: skip
    for loop.step in (2, 3):
        Trainer.stop_or_save(loop, SimpleNamespace(number=None))
    assert happened == ["wait", "mark", ("save", 12 + Requests.AHEAD), "stop", "save", "wait", "mark", "stop", "save"]


def test_a_card_is_waited_for_up_to_a_mark(monkeypatch):
    happened = []

    class Event:
        def record(self) -> None:
            happened.append("record")

        def synchronize(self) -> None:
            happened.append("synchronize")

    monkeypatch.setattr(KINDS["GPU"], "module", classmethod(lambda cls: SimpleNamespace(Event=Event)))
    wait = KINDS["GPU"]().mark()
    assert happened == ["record"]
    wait()
    assert happened == ["record", "synchronize"]
    KINDS["CPU"]().mark()()  # a processor is done when the call returns


WATCHED = """
import time
from attnet.engine import distributed
distributed._watch_parents()
print('watches', flush=True)
time.sleep(60)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")
def test_a_rank_whose_torchrun_died_while_it_started_ends_and_asks_nobody_else_to_stop():
    """Whoever takes in orphans is its parent then; here a process that tells what it is asked."""
    dead = subprocess.Popen([sys.executable, "-c", ""])
    dead.wait()
    code = (
        "import os, signal, subprocess, sys\n"
        "signal.signal(signal.SIGTERM, lambda *_: print('asked to stop', flush=True))\n"
        f"rank = [sys.executable, '-c', {WATCHED!r}]\n"
        f"env = {{**os.environ, {distributed.LAUNCHER!r}: '{dead.pid}'}}\n"
        "sys.exit(subprocess.run(rank, env=env, timeout=40).returncode)"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert done.returncode == 1 and "torchrun is gone; ending" in done.stderr and done.stdout == ""


def test_a_rank_ends_with_its_torchrun():
    code = f"import subprocess, sys\nsubprocess.run([sys.executable, '-c', {WATCHED!r}])"
    launcher = {**os.environ, distributed.LAUNCHER: str(os.getpid())}
    torchrun = subprocess.Popen([sys.executable, "-c", code], env=launcher, cwd=ROOT, stdout=subprocess.PIPE, text=True)
    assert torchrun.stdout.readline() == "watches\n"
    torchrun.kill()
    assert torchrun.stdout.read() == "", "its output ends when the rank does"
    torchrun.wait()
    torchrun.stdout.close()
