"""Grids, a real sweep, what is measured at the same time, runs on several cards, and the processes that measure."""

import argparse
import itertools
import json
import statistics
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from attnet.base.errors import AttnetError, ConfigError
from attnet.benchmark import steps, worker
from attnet.benchmark.command import main
from attnet.benchmark.counts import counts_of
from attnet.benchmark.loops import PARTS, Setting
from attnet.benchmark.tables import result_table

TINY = "attention56_tiny"
ROOFS = {"copy_bytes_per_second": 1e9, "matmul_flops_per_second": {"float32": 1e10, "bfloat16": 1e12}}
# Of every row of a sweep that did not fail, on one card.
KEYS = {
    "model", "batch_size", "amp", "channels_last", "compile", "device_num", "step_seconds", "images_per_second",
    "first_step_seconds", "peak_memory_bytes", "shares", "evaluation_images_per_second", "evaluation_share",
    "flops_per_image", "bytes_per_image", "flops_per_second", "bytes_per_second", "share_of_ceiling",
}  # fmt: skip


@pytest.fixture(autouse=True)
def one_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "1")


# ---- what is measured ----


def small_grid(**lists: list) -> list[Setting]:
    given = {
        "models": [TINY], "batch_sizes": [8], "amps": ["O0"], "memory_formats": ["channels_last"],
        "compiles": ["off"], "device_nums": [1],
    }  # fmt: skip
    return steps.grid(**given | lists)


def test_a_grid_is_every_combination_once():
    settings = small_grid(
        batch_sizes=[8, 32, 8], amps=["O0", "o2"], memory_formats=["contiguous", "channels_last"], compiles=["true"]
    )
    found = [(s.batch_size, s.amp, s.channels_last, s.compile) for s in settings]
    assert found == [(*rest, "on") for rest in itertools.product((8, 32), ("O0", "O2"), (False, True))]
    assert len({str(setting) for setting in settings}) == len(settings), "names tell configurations apart"
    assert [Setting.of(json.loads(json.dumps(setting.to_dict()))) for setting in settings] == settings


@pytest.mark.parametrize(
    ("lists", "message"),
    [
        ({"models": ["attention9"]}, "model='attention9': choose from attention92"),
        ({"batch_sizes": [8, 0]}, "train_batch_size=0"),
        ({"amps": ["O0", "O4"]}, "amp='O4': choose one of"),
        ({"amps": ["auto"]}, "amp='auto': name the opt levels"),
        ({"memory_formats": ["NHWC"]}, "memory_format='NHWC': choose from channels_last, contiguous"),
        ({"compiles": ["fast"]}, "compile='fast': choose one of auto, off, on, graphs, both"),
        ({"compiles": ["off", "auto"]}, "compile='auto': name the ways"),
        ({"device_nums": [0]}, "device_num=0"),
    ],
)
def test_a_value_that_does_not_exist_is_named_before_anything_starts(lists, message):
    with pytest.raises(ConfigError, match=message):
        small_grid(**lists)


# ---- a sweep ----


@pytest.fixture(scope="module")
def swept(tmp_path_factory: pytest.TempPathFactory) -> SimpleNamespace:
    """A real sweep of one configuration through the command line, beneath given roofs."""
    output = tmp_path_factory.mktemp("sweep") / "new" / "result.json"
    words = ["--model", TINY, "--batch_size", "8", "--rounds", "2", "--test_images", "20", "--device_type", "CPU"]
    words += ["--output", str(output)]
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("OMP_NUM_THREADS", "1")
        patch.setattr(steps, "ceilings_apart", lambda device_type, half: ROOFS)
        assert main(words) == 0
    text = output.read_text()
    return SimpleNamespace(result=json.loads(text), text=text, words=words, output=output)


def test_a_sweep_writes_everything_down(swept):
    result = swept.result
    assert swept.text.endswith("}\n")
    assert result["kind"] == "steps" and result["rounds"] == 2 and result["ceilings"] == ROOFS
    assert result["command"] == "attnet benchmark " + " ".join(swept.words)
    assert result["environment"]["torch"] == torch.__version__ and result["date"]
    (row,) = result["rows"]
    assert set(row) == KEYS
    speed = f"{row['images_per_second']:.3g}" if row["images_per_second"] < 100 else f"{row['images_per_second']:,.0f}"
    shown = result_table(result)
    assert f"| {TINY}, batch 8, O0, channels-last " in shown and speed in shown


def test_the_figures_of_a_row_fit_together(swept):
    (row,) = swept.result["rows"]
    step = row["step_seconds"]
    assert len(step["all"]) == 2
    assert step["median"] == statistics.median(step["all"])
    assert (step["low"], step["high"]) == (min(step["all"]), max(step["all"]))
    speed = row["images_per_second"]
    assert speed == row["batch_size"] / step["median"]
    assert set(row["shares"]) == set(PARTS) and min(row["shares"].values()) > 0
    assert row["first_step_seconds"] > 0 and row["peak_memory_bytes"] > 2**20
    counts = counts_of(row["model"])
    assert row["flops_per_image"] == counts.flops
    assert row["bytes_per_image"] == counts.floor_bytes(row["batch_size"], 4)
    assert row["flops_per_second"] == pytest.approx(counts.flops * speed)
    assert row["bytes_per_second"] == pytest.approx(row["bytes_per_image"] * speed)
    bound = max(row["bytes_per_second"] / 1e9, row["flops_per_second"] / 1e10)
    assert row["share_of_ceiling"] == pytest.approx(bound)
    training, testing = 50_000 / speed, 10_000 / row["evaluation_images_per_second"]
    assert row["evaluation_share"] == pytest.approx(testing / (training + testing))


class FakeWorker:
    """Takes steps of a second; with 16 images it fails, at the first or at a later step."""

    ready: dict = {"first_step_seconds": 3.0}  # noqa: RUF012

    def __init__(self, setting: Setting, fails: bool) -> None:
        self.setting, self.fails = setting, fails

    def __enter__(self) -> "FakeWorker":
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def ask(self, what: str) -> dict:
        if self.fails and what == "parts":
            raise AttnetError("out of memory")
        return {"answer": {"step": 1.0, "parts": dict.fromkeys(PARTS, 0.5), "peak": 7.0, "evaluation": 100.0}[what]}


def fake_steps_worker(setting: Setting, device_type: str, warm_up: int, test_images: int) -> FakeWorker:
    if setting.batch_size == 32:
        raise AttnetError("no such luck")
    return FakeWorker(setting, fails=setting.batch_size == 16)


@pytest.fixture
def faked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(steps, "ceilings_apart", lambda device_type, half: ROOFS)
    monkeypatch.setattr(steps, "steps_worker", fake_steps_worker)


def test_a_configuration_that_fails_leaves_its_error(faked):
    saved = []
    result = steps.sweep(small_grid(batch_sizes=[8, 16, 32]), steps.Way("CPU", rounds=2), save=saved.append)
    ran, *failed = result["rows"]
    assert ran["images_per_second"] == 8 and ran["step_seconds"]["all"] == [1.0, 1.0]
    assert [row["error"] for row in failed] == ["out of memory", "no such luck"]
    assert all(set(row) == {*Setting(TINY, 8).to_dict(), "error"} for row in failed)
    assert saved[-1] == result
    about = {"kind": "steps", "what": "steps", "environment": {"device": "abacus", "torch": "1"}}
    assert f"failed: {Setting(TINY, 16)}: out of memory" in result_table(result | about)


def test_a_sweep_goes_on_where_it_was_stopped(swept, faked, capsys):
    words = ["--model", TINY, "--batch_size", "4,8", "--device_type", "CPU", "--output", str(swept.output), "--resume"]
    assert main([*words, "--json"]) == 0
    result = json.loads(swept.output.read_text())
    assert result == json.loads(capsys.readouterr().out)
    assert [row["images_per_second"] for row in result["rows"][:1]] == [4.0]
    assert result["rows"][1:] == swept.result["rows"], "what was measured stays"
    elsewhere = swept.result | {"environment": swept.result["environment"] | {"device": "another"}}
    for known, message in ((elsewhere, "was measured with device another"), ({"kind": "epoch"}, "of kind 'epoch'")):
        with pytest.raises(ConfigError, match=message):
            steps.sweep(small_grid(), steps.Way("CPU"), known=known)


def test_several_cards_are_a_run(monkeypatch):
    given = {}
    run = {"metrics": {"fps": 64.0}, "peak_memory": 5}
    monkeypatch.setattr(steps, "short_run", lambda **words: given.update(words) or run)
    monkeypatch.setattr(steps, "ceilings_apart", lambda device_type, half: ROOFS)
    way = steps.Way("CPU", rounds=3, data_path="no")
    (row,) = steps.sweep([Setting(TINY, 16, "O2", False, "on", 4)], way)["rows"]
    assert (given["device_num"], given["train_batch_size"], given["amp"], given["compile"]) == (4, 16, "O2", "on")
    assert given["channels_last"] is False and given["train_images"] % 64 == 0 and given["dataset"] == "shapes"
    assert row["images_per_second"] == 64 and row["step_seconds"]["median"] == 1 and "shares" not in row
    assert row["share_of_ceiling"] == pytest.approx(16 * row["bytes_per_image"] / 1e9), "of a card, in the half type"


@pytest.mark.slow
def test_two_ranks_for_real(monkeypatch, tmp_path):
    monkeypatch.setattr(steps, "ceilings_apart", lambda device_type, half: ROOFS)
    way = steps.Way("CPU", rounds=2, data_path=str(tmp_path))
    (row,) = steps.sweep([Setting(TINY, 8, device_num=2)], way)["rows"]
    assert "error" not in row, row
    assert row["images_per_second"] > 0 and row["peak_memory_bytes"] > 2**20


def test_configurations_share_the_memory_that_is_there(monkeypatch):
    settings = small_grid(batch_sizes=[8, 16, 1024, 32])
    needs = [steps.memory_need(setting) for setting in settings]
    assert needs[2] > 8 * needs[0]
    assert steps.available_memory() > 0 or sys.platform != "linux"
    monkeypatch.setattr(steps, "available_memory", lambda: int(needs[0] + needs[1] + 1))
    groups = [[setting.batch_size for setting in group] for group in steps._groups(settings, together=True)]
    assert groups == [[8, 16], [1024], [32]]
    assert steps._groups(settings, together=False) == [[setting] for setting in settings]
    cards = small_grid(device_nums=[1, 2])
    monkeypatch.setattr(steps, "available_memory", lambda: 10**15)
    assert steps._groups(settings + cards, together=True) == [settings[:4] + cards[:1], cards[1:]]


@pytest.mark.slow
def test_operators_add_up_to_the_step_and_have_a_kind(tmp_path, capsys):
    output = tmp_path / "profile.json"
    words = f"--profile --model {TINY} --batch_size 4 --rounds 2 --device_type CPU --output {output}"
    assert main(words.split()) == 0
    result = json.loads(output.read_text())
    operators, kinds = result["operators"]["ours"], result["kinds"]["ours"]
    assert list(operators.values()) == sorted(operators.values(), reverse=True)
    assert {"convolution", "convolution_backward", "native_batch_norm_backward", "_fused_sgd_"} <= set(operators)
    assert {"convolution", "batch norm", "sums", "optimiser"} <= set(kinds)
    assert kinds["convolution"] > kinds["optimiser"] > 0
    assert sum(kinds.values()) == pytest.approx(sum(operators.values()), rel=0.5)
    assert kinds.get("other", 0) < 0.3 * sum(kinds.values()), "what the time goes to has a name"
    assert "| all" in capsys.readouterr().out.splitlines()[-1]


# ---- processes ----


def script(folder: Path, text: str) -> str:
    path = folder / "worker.py"
    path.write_text(f"import os, sys, time\nprint('{{}}', flush=True)\n{text}")
    return str(path)


def test_a_process_that_is_killed_is_an_error_with_the_cause(tmp_path):
    doomed = script(tmp_path, "input()\nos.kill(os.getpid(), 9)\n")
    with (
        worker.Worker(doomed, job={}) as one,
        pytest.raises(AttnetError, match=r"killed by SIGKILL, .* memory is full"),
    ):
        one.ask(what="step")
    assert one.process.poll() is not None


def test_a_worker_that_dies_is_an_error_and_a_busy_one_ends(tmp_path):
    sleeper = script(
        tmp_path,
        "for line in sys.stdin:\n    os._exit(3) if 'die' in line else print('{}', flush=True)\n    time.sleep(600)\n",
    )
    with pytest.raises(AttnetError, match="ended: exit status 3"), worker.Worker(sleeper, job={}) as one:
        one.ask(what="die")
    with pytest.raises(KeyError), worker.Worker(sleeper, job={}) as one:
        one.ask(what="sleep")
        raise KeyError
    assert one.process.poll() is not None


@pytest.mark.parametrize(
    ("error", "said"),
    [(ConfigError("no"), "no"), (RuntimeError("\n first\nsecond\nthird"), "RuntimeError: first second")],
)
def test_the_worker_reads_a_job_and_gives_its_errors(error, said, monkeypatch, capsys):
    def fail(job: argparse.Namespace) -> Iterator[dict]:
        print("something that a library says")
        yield {"model": job.model}
        raise error

    monkeypatch.setattr(sys, "argv", ["-m", '{"model": "m"}'])
    monkeypatch.setattr(worker.signal, "signal", lambda *_: None)
    assert worker.answer_parent(fail) == 2
    out, err = capsys.readouterr()
    assert list(map(json.loads, out.splitlines())) == [{"model": "m"}, {"error": said}]
    assert err == "something that a library says\n"


def test_an_error_is_a_line():
    assert len(worker.in_words(RuntimeError("x" * 10_000))) < 400


def test_a_run_that_fails_says_why(tmp_path, monkeypatch):
    python = tmp_path / "python"
    python.write_text("#!/bin/sh\nfor word; do echo $word; done\necho no memory >&2\nexit 7\n")
    python.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(python))
    with pytest.raises(AttnetError) as caught:
        worker.short_run(model=TINY, device_num=2, train_batch_size=4)
    said = str(caught.value).splitlines()
    assert said[0].startswith("a run ended: exit status 7") and said[-1] == "no memory"
    assert {"--device_num", "2", "--train_batch_size", "4"} <= {*said}
