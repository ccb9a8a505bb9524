"""Sweeps: what counts as the same run, what is started when, and that neither kills nor failures lose or repeat any."""

import csv
import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
from made import make_result, save, wait_until
from made_sweeps import EPOCHS, TINY, sweep_of, with_processes

from attnet.base import device as devices
from attnet.base.device import KINDS
from attnet.base.errors import ConfigError
from attnet.base.files.paths import repository_root
from attnet.base.processes import StopSignal, TrainingInterrupted
from attnet.engine.parameters import TrainConfig
from attnet.engine.recipes import RECIPES, choose_preset
from attnet.engine.result import Result
from attnet.engine.run_folder import RunFolder
from attnet.study.rows import FACTS
from attnet.study.study_tables import sweep_table
from attnet.study.sweeps import runner as running
from attnet.study.sweeps import runs
from attnet.study.sweeps.command import main
from attnet.study.sweeps.configs import grid, read_list
from attnet.study.sweeps.runner import ATTEMPTS, Runner
from attnet.study.sweeps.runs import LOG, Run, content_hash
from attnet.study.sweeps.sweep import Sweep, state_table, summary, sweep_csv, sweep_record
from attnet.study.sweeps.workers import Worker

T = 12.7062  # Student's t of two seeds at 95 %


# ---- which runs there are ----


def epochs(*seconds: float) -> list[dict]:
    """Rows of metrics.jsonl."""
    return [{"epoch": epoch, "top1": 70.0, "seconds": spent} for epoch, spent in enumerate(seconds, 1)]


@pytest.mark.parametrize(
    "changes",
    [
        *({"schedule": "cosine"}, {"total_epochs": 7}, {"model": "attention56"}, {"normalize": True}, {"lr": 0.2}),
        *({"recipe": "large_batch"}, {"accumulate": 2}, {"is_pretrain": True, "pretrained": "w.pt"}),
        *({"data_path": "elsewhere"}, {"pretrained": "w.pt"}),
    ],
    ids=str,
)
def test_hash_tells_what_decides_the_result(changes):
    assert content_hash(TrainConfig(**{**TINY, **changes})) != content_hash(TrainConfig(**TINY))


@pytest.mark.parametrize(
    "changes",
    [
        *({"output_dir": "x"}, {"progress": "none"}, {"resume": "auto"}, {"device_id": 1}, {"device_type": "GPU"}),
        *({"checkpoint_seconds": 1}, {"keep_epochs": 2}, {"max_restarts": 0}, {"seed": 4}),
        {"lr": TrainConfig.recipe_values("seed")["lr"], "recipe": "seed"},
    ],
    ids=str,
)
def test_hash_leaves_out_what_does_not_decide_it(changes):
    assert content_hash(TrainConfig(**{**TINY, **changes})) == content_hash(TrainConfig(**TINY))


@pytest.mark.parametrize(
    ("base", "given"),
    [
        ({"mode": "rehearsal"}, {"schedule": "step"}),
        ({"mode": "quick"}, {"lr_batch": 0}),
        ({"mode": "full", "recipe": "best", "total_epochs": 50}, {"warmup_epochs": 5.0}),
        ({"mode": "full", "recipe": "best", "total_epochs": 50}, {"mixup_off_epochs": 15}),
    ],
    ids=str,
)
def test_hash_tells_what_a_short_training_would_have_otherwise(base, given):
    """The recipe's own value is another training where the length would have changed it."""
    opened, asked = (choose_preset(TrainConfig(**base | more), KINDS["CPU"](), []) for more in ({}, given))
    (name,) = given
    recipe = TrainConfig.recipe_values(base.get("recipe", "seed"))
    assert getattr(asked, name) == recipe[name] != getattr(opened, name)
    assert content_hash(TrainConfig(**base | given)) != content_hash(TrainConfig(**base))


def test_hash_follows_the_values_of_a_recipe(monkeypatch):
    config, plain = TrainConfig(recipe="large_batch"), TrainConfig()
    before = content_hash(config), content_hash(plain)
    monkeypatch.setitem(RECIPES, "large_batch", RECIPES["large_batch"] | {"lr_batch": 512})
    assert content_hash(config) != before[0]
    assert content_hash(plain) == before[1]


def test_every_run_has_a_folder_of_its_own_and_seeds_come_in_turn(tmp_path):
    a = TrainConfig(**TINY, progress="live", resume="auto", output_dir="ignored")
    found = Sweep({"a": a, "same as a": a, "b": a.replace(lr=0.2)}, (3, 1), tmp_path).runs()
    assert [str(run) for run in found] == [
        f"{name}, seed {seed}" for seed in (3, 1) for name in ("a", "same as a", "b")
    ]
    assert len({run.folder for run in found}) == 6
    for run in found:
        assert run.folder.parent == tmp_path / run.name
        assert run.folder.name == f"{content_hash(run.config)}-seed{run.config.seed}"
        assert (run.config.resume, run.config.progress) == ("", "lines")
    assert found[2].config.lr == 0.2


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"configs": {}}, "at least one configuration is needed"),
        ({"seeds": ()}, r"seeds=\[\]: at least one"),
        ({"seeds": (1, 2, 1)}, r"seeds=\[1, 2, 1\]: .* none twice"),
        ({"configs": {"../a": TrainConfig()}}, "'../a' names a folder too"),
        ({"configs": {"a.": TrainConfig()}}, "'a.' names a folder too"),
        ({"configs": {"a" * 201: TrainConfig()}}, "200 at most"),
        ({"notebook": "nowhere.ipynb"}, "notebook=.*nowhere.ipynb: no such file"),
        ({"notebook": "README.md"}, "notebook=.*README.md: not a notebook"),
        (
            {"notebook": "notebooks/architecture.ipynb"},
            "needs one cell tagged `parameters`, and TrainConfig.gather",
        ),
    ],
)
def test_sweeps_that_cannot_be(tmp_path, changes, message):
    with pytest.raises(ConfigError, match=message):
        Sweep(**{"configs": {"a": TrainConfig()}, "seeds": (0,), "folder": tmp_path, **changes})


def test_how_many_at_once_there_cannot_be(tmp_path):
    sweep = Sweep({"a": TrainConfig()}, (0, 1, 2), tmp_path)
    with pytest.raises(ConfigError, match="parallel=0: at least 1"):
        sweep.run(parallel=0)
    with pytest.raises(ConfigError, match="parallel=2: runs of device_num=2 go one at a time"):
        Sweep({"a": TrainConfig(device_num=2)}, (0, 1), tmp_path).run(parallel=2)


def test_each_run_at_once_gets_a_card_of_its_own_while_there_are_some(tmp_path, monkeypatch):
    commands = []
    monkeypatch.setattr(KINDS["GPU"], "count", classmethod(lambda cls: 4))
    monkeypatch.setattr(subprocess, "Popen", lambda command, **_: commands.append(command))
    (run,) = Sweep({"a": TrainConfig(**TINY, device_id=2)}, (5,), tmp_path).runs()
    for kind in ("GPU", "CPU"):
        monkeypatch.setattr(devices, "choose", lambda asked, index, kind=kind: KINDS[kind](index))
        for slot in (0, 1, 3):
            run.start(slot)
    cards = [command[command.index("--device_id") + 1] for command in commands]
    assert cards == ["2", "3", "1", "2", "2", "2"]
    assert commands[0][1:3] == ["-m", "attnet.train"]
    assert {"--seed", "5", "--output_dir", str(run.folder)} <= set(commands[0])
    assert "--resume" not in commands[0] and "--lr" not in commands[0]
    (run.folder / "config.json").write_text("{}")
    run.start(0)
    assert commands[-1][commands[-1].index("--resume") + 1] == str(run.folder)


def test_runs_at_once_share_the_cores(tmp_path, monkeypatch):
    """Threads of all runs together are no more than cores; what the user has set stays."""
    given = []
    monkeypatch.setattr(subprocess, "Popen", lambda command, env, **_: given.append(env.get("OMP_NUM_THREADS")))
    monkeypatch.setattr(runs, "usable_cores", lambda: 8)
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    (run,) = Sweep({"a": BASE}, (0,), tmp_path).runs()
    for parallel in (1, 2, 3, 16):
        run.start(0, parallel)
    monkeypatch.setenv("OMP_NUM_THREADS", "5")
    run.start(0, 2)
    assert given == [None, "4", "2", "1", "5"]


# ---- configurations: grids and lists ----

BASE = TrainConfig(**TINY)


def test_a_grid_is_every_combination_by_name():
    found = grid(BASE, lr=(0.1, 0.05), modules=[(1, 1, 1), "2,2,2"])
    assert list(found) == [f"lr={lr} modules={modules}" for lr in (0.1, 0.05) for modules in ("1,1,1", "2,2,2")]
    assert found["lr=0.05 modules=2,2,2"] == BASE.replace(lr=0.05, modules="2,2,2")
    assert list(grid(BASE, pretrained=["a/b.pt", "c:d."])) == ["pretrained=a-b.pt", "pretrained=c-d"]
    Sweep(found, (0,), "runs/any")  # the names are folders' names


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"model": "attention92"}, "model='attention92': a list of values"),
        ({"lr": ()}, "a list of values is needed"),
        ({"base": (1, 2)}, "unknown parameter 'base'"),
        ({"lrs": (1, 2)}, "unknown parameter 'lrs': did you mean 'lr'"),
        ({"lr": (0.1, -1)}, "'lr': -1.*at least 0"),
        ({"seed": (0, 1)}, "seed=0: .* give seeds of the sweep"),
        ({"resume": ("auto",)}, "resume='auto': .* leave it out"),
        ({"lr": (0.1, "0.1")}, "two configurations are called 'lr=0.1'"),
        ({"lr": (0.1, None)}, "'lr=0.1' and 'lr=None' train the same"),
        ({"device_id": (0, 1)}, "'device_id=0' and 'device_id=1' train the same"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_grids_that_cannot_be(values, message):
    with pytest.raises(ConfigError, match=message):
        grid(BASE, **values)


def test_a_list_from_a_file_with_names_or_without(tmp_path):
    file = tmp_path / "list.json"
    file.write_text('{"plain": {}, "much": {"lr": 0.4, "flip": false}}')
    assert read_list(file, BASE) == {"plain": BASE, "much": BASE.replace(lr=0.4, flip="off")}
    file.write_text('[{}, {"lr": 0.4, "flip": false}]')
    assert read_list(file, BASE) == {"base": BASE, "lr=0.4 flip=off": BASE.replace(lr=0.4, flip="off")}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (None, "cannot be read"),
        ("{", "no JSON"),
        ("[]", "one configuration at least"),
        ('{"a": 1}', "is needed"),
        ('{"a": {}, "a": {"lr": 1}}', "'a' stands there twice"),
        ('{"a": {"lr": 0.3}, "b": {"lr": 0.3}}', "'a' and 'b' train the same"),
        ('{"a": {"lr": "much"}}', "list.json, a: lr='much'"),
        ('{"a": {"lr": NaN}}', "'NaN' is no number"),
        ('{"a": {"lr": 1e999}}', "'1e999' is no number"),
        ('{"a": {"self": 1}}', "list.json, a: unknown parameter 'self'"),
        ('[{"output_dir": "x"}]', "give folder of the sweep"),
    ],
    ids=lambda value: str(value)[:12],
)
def test_lists_that_cannot_be(tmp_path, text, message):
    file = tmp_path / "list.json"
    if text is not None:
        file.write_text(text)
    with pytest.raises(ConfigError, match=message):
        read_list(file, BASE)


def test_a_list_imports_nothing_that_it_names(tmp_path):
    file = tmp_path / "list.json"
    for text in ('{"a": {"unit": "evil:Unit"}}', '[{"unit": "evil:Unit"}]'):
        file.write_text(text)
        with pytest.raises(ConfigError, match=r"code is not run because a file names it.*--unit 'evil:Unit'"):
            read_list(file, BASE)
        assert len(read_list(file, BASE.replace(unit="evil:Unit"))) == 1
    file.write_text('{"a": {"unit": "resnext"}}')
    assert read_list(file, BASE)["a"].unit == "resnext"


@pytest.mark.parametrize("odd", ["pipe", "device", "folder"])
def test_a_list_that_is_no_file_is_not_waited_for(tmp_path, odd):
    file = tmp_path / "list.json"
    {"pipe": os.mkfifo, "device": lambda path: path.symlink_to("/dev/zero"), "folder": os.mkdir}[odd](file)
    with pytest.raises(ConfigError, match="is no file"):
        read_list(file, BASE)


# ---- several processes, here without any training ----


def test_so_many_at_once_and_no_more(tmp_path, monkeypatch):
    code = "open('begun', 'w').write(str(time.monotonic())); time.sleep(0.2)\n"
    code += "open('ended', 'w').write(str(time.monotonic())); open('result.json', 'w').write(result)"
    started = with_processes(monkeypatch, code)
    sweep = sweep_of(tmp_path, "abcd")
    sweep.run(parallel=2)
    assert [name for name, *_ in started] == ["a", "b", "c", "d"]
    assert {slot for _, slot, _ in started} == {0, 1}
    spans = [[float((run.folder / file).read_text()) for file in ("begun", "ended")] for run in sweep.runs()]
    most = max(sum(begun <= moment < ended for begun, ended in spans) for moment, _ in spans)
    assert most == 2


def test_what_fails_is_tried_again_and_does_not_stop_the_others(tmp_path, monkeypatch, capsys):
    code = "print('line one'); print(f'attempt {attempt} of {name}', flush=True)\n"
    code += "if name == 'b' or (name == 'c' and attempt == 1): raise SystemExit(3)\n"
    code += "if name == 'd': signal.raise_signal(signal.SIGKILL)\n"
    code += "open('result.json', 'w').write(result)"
    started = with_processes(monkeypatch, code)
    rows = sweep_of(tmp_path, "abcd").run()
    assert [name for name, *_ in started] == ["a", "b", "b", "c", "c", "d", "d"]
    assert [row["top1"] for row in rows] == [[50.0], [None], [50.0], [None]]
    b, d = "exit status 3; attempt 2 of b", "killed by SIGKILL; attempt 2 of d"
    assert [row["failures"] for row in rows] == [[], [f"seed 0: {b}"], [], [f"seed 0: {d}"]]
    head, *lines = capsys.readouterr().out.splitlines()
    assert head == f"sweep of 4 configurations x 1 seed in {tmp_path}: 4 to do"
    assert [line.split(":")[0] for line in lines] == [f"[{i}/4] {name}, seed 0" for i, name in enumerate("abcd", 1)]
    assert f"failed {ATTEMPTS} times: {b}" in lines[1] and "Top-1 50.00 %" in lines[2]
    assert all(re.search(r"about \d+\.\d s left$", line) for line in lines[:3]) and "left" not in lines[3]


def test_a_run_without_a_result_is_no_success(tmp_path, monkeypatch):
    with_processes(monkeypatch, "pass")
    (row,) = sweep_of(tmp_path, "a").run()
    assert row["failures"] == ["seed 0: exit status 0; it wrote nothing"]


def test_what_another_process_trains_is_waited_for(tmp_path, monkeypatch, capsys):
    """As by hand, or after a sweep whose processes outlived it for a moment: nobody with a lease."""
    started = with_processes(monkeypatch, "open('result.json', 'w').write(result)")
    sweep = sweep_of(tmp_path, "ab")
    folder = sweep.runs()[0].folder
    folder.mkdir(parents=True)
    other = RunFolder(folder)
    speak = Runner._speak

    def release_once_it_waits(runner: Runner, now: float) -> None:
        speak(runner, now)
        if not runner.jobs:
            (folder / "result.json").write_text(json.dumps(make_result().to_json()))
            other.close()

    monkeypatch.setattr(Runner, "_speak", release_once_it_waits)
    rows = sweep.run()
    assert [name for name, *_ in started] == ["b"]
    assert [row["top1"] for row in rows] == [[70.5], [50.0]]
    said = f"waiting for runs that others have: a, seed 0 (process {os.getpid()} on {socket.gethostname()})"
    assert said in capsys.readouterr().out.splitlines()


@pytest.mark.parametrize("stubborn", [False, True], ids=["orderly", "stubborn"])
def test_a_signal_ends_every_process(tmp_path, monkeypatch, stubborn):
    code = "signal.signal(signal.SIGTERM, signal.SIG_IGN)\n" if stubborn else ""
    with_processes(monkeypatch, code + "open('here', 'w').close(); time.sleep(60)")
    monkeypatch.setattr(running, "GRACE", 0.5 if stubborn else 60.0)
    found = sweep_of(tmp_path, "abc").runs()
    stop, begun, runner = StopSignal(), time.monotonic(), Runner(found, 2, Worker(tmp_path))
    poll = runner._beat

    def until_both_are_here() -> list[Run]:
        if all((run.folder / "here").exists() for run in found[:2]):
            stop.number = signal.SIGTERM
        assert time.monotonic() < begun + 60, "nothing happened"
        return poll()

    monkeypatch.setattr(runner, "_beat", until_both_are_here)
    with pytest.raises(TrainingInterrupted, match="stopped by SIGTERM with 0 of 3 runs done") as raised, runner:
        runner.work(stop)
    assert raised.value.signal_number == signal.SIGTERM
    ended = [job.process.poll() for job in runner.jobs.values()]
    assert ended == [-(signal.SIGKILL if stubborn else signal.SIGTERM)] * 2
    assert not found[2].folder.exists()


# ---- real training, killed in the middle ----


def stop(sweep: Sweep, number: signal.Signals, **given: object) -> tuple[int, int]:
    """Start the sweep by its command and stop it with `number` once its first run has an epoch.

    Returns:
        Its status, and how many processes it had; none is left.
    """
    flags = [word for name, value in given.items() for word in (f"--{name}", str(value))]
    command = [sys.executable, "-m", "attnet", "sweep", "--folder", str(sweep.folder), *flags]
    process, family = psutil.Popen(command, cwd=repository_root()), []
    metrics = sweep.runs()[0].folder / "metrics.jsonl"
    try:
        wait_until(lambda: metrics.exists() or process.poll() is not None)
        assert process.poll() is None
        family = process.children(recursive=True)
        process.send_signal(number)
        status = process.wait(100)
        if number != signal.SIGKILL:
            assert not any(child.is_running() for child in family)
        wait_until(lambda: not any(child.is_running() for child in family))
        return status, len(family)
    finally:
        for one in [process, *family]:
            if one.is_running():
                one.kill()


def epochs_of(run: Run) -> list[int]:
    """The epochs of which its log has a line."""
    return [int(number) for number in re.findall(r"^epoch (\d+)/", (run.folder / LOG).read_text(), flags=re.MULTILINE)]


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere a sweep that gets SIGKILL leaves its run to its end")
def test_killed_it_goes_on_and_repeats_nothing(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    (run,) = (sweep := Sweep({"base": BASE}, (0,), tmp_path)).runs()
    assert stop(sweep, signal.SIGKILL, **TINY) == (-signal.SIGKILL, 1)
    assert run.state == "begun" and (run.folder / LOG).read_text().count("stopped by SIGTERM") == 1

    (row,) = sweep.run()
    assert epochs_of(run) == list(range(1, EPOCHS + 1))
    assert len(re.findall(r"goes on after epoch \d+, step", (run.folder / LOG).read_text())) == 1
    assert 0 <= row["mean"] <= 100 and row["fps"] > 0 and row["seconds"] > 0 and row["failures"] == []
    assert row["result"]["parameters"]["total_epochs"] == EPOCHS
    assert not psutil.Process().children(recursive=True)

    def no_start(run: Run, *_: int) -> None:
        raise AssertionError(f"{run} was started again")

    monkeypatch.setattr(Run, "start", no_start)
    assert sweep.run() == [row]
    assert "base, seed 0: Top-1" in (shown := capsys.readouterr().out) and "done before" in shown


def test_a_run_is_one_machines_also_in_a_slurm_job_of_several(tmp_path, monkeypatch):
    monkeypatch.setenv("SLURM_STEP_NUM_NODES", "2")
    left_out = []
    monkeypatch.setattr(runs, "start", lambda *_, without, **__: left_out.extend(without))
    Sweep({"base": TrainConfig(**TINY)}, (0,), tmp_path).runs()[0].start()
    assert "SLURM_STEP_NUM_NODES" in left_out


@pytest.mark.slow
def test_on_two_cards_it_stops_in_order_and_goes_on(tmp_path, monkeypatch):
    """Through torchrun: SIGTERM to the sweep ends the launcher, torchrun and both ranks before it ends itself."""
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    epochs = 12  # of one step: long enough to be stopped from outside
    given = TINY | {"device_num": 2, "total_epochs": epochs}
    (run,) = (sweep := Sweep({"base": TrainConfig(**given)}, (0,), tmp_path)).runs()
    assert stop(sweep, signal.SIGTERM, **given) == (128 + signal.SIGTERM, 4)
    assert run.state == "begun" and "everything is saved" in (run.folder / LOG).read_text()
    (row,) = sweep.run()
    assert row["failures"] == [] and Result.load(run.folder).device == "cpu_2p"
    rows = [json.loads(line) for line in (run.folder / "metrics.jsonl").read_text().splitlines()]
    assert [row["epoch"] for row in rows] == list(range(1, epochs + 1))


# ---- rows and tables ----


def test_summary_takes_the_last_epoch_and_what_there_is():
    done = [
        make_result(top1=80.0, last_top1=70.0, fps=100.0, history=epochs(2.0, 3.0)),
        None,
        make_result(top1=81.0, last_top1=74.0, fps=None, history=[]),
    ]
    row = summary(done)
    assert (row["top1"], row["mean"], row["fps"], row["seconds"]) == ([70.0, None, 74.0], 72.0, 100.0, 5.0)
    assert row["mean"] - row["low"] == pytest.approx(T * 2, rel=1e-5)  # the standard error of two is half the gap
    assert row["high"] - row["mean"] == pytest.approx(row["mean"] - row["low"])
    assert {summary([None])[key] for key in ("mean", "low", "high", "fps")} == {None}
    one = summary(done[:1])
    assert (one["mean"], one["low"], one["high"]) == (70.0, None, None)


@pytest.fixture
def half_done(tmp_path, monkeypatch) -> Sweep:
    """A sweep of four runs, three of them finished; the last one fails whenever it is started."""
    base = TrainConfig(**TINY)
    sweep = Sweep({"plain": base, "two changes": base.replace(lr=0.2, flip=False)}, (0, 1), tmp_path)
    for run in sweep.runs():
        if run.name == "plain" or run.config.seed == 0:
            save(make_result(last_top1=70.0 + 2 * run.config.seed, fps=1234.0, history=epochs(90.0)), run.folder)
        else:
            run.folder.mkdir(parents=True)
            (run.folder / LOG).write_text("out | of memory\n")
            (run.folder / "config.json").write_text("{}")
    monkeypatch.setattr(Run, "start", lambda *_: subprocess.Popen([sys.executable, "-S", "-c", "exit(1)"]))
    return sweep


def test_table(half_done, capsys):
    table = sweep_table(half_done.run())
    begun = f"sweep of 2 configurations x 2 seeds in {half_done.folder}: 3 finished, 1 begun"
    assert capsys.readouterr().out.splitlines()[0] == begun
    head, rule, *rows, empty, failure = table.splitlines()
    assert len({len(line) for line in (head, rule, *rows)}) == 1
    plain, changed = ([cell.strip() for cell in row.split("|")[1:-1]] for row in rows)
    low, high = 71 - T, 71 + T
    data = make_result().dataset
    assert plain == ["plain", "–", f"71.00 ({low:.2f} to {high:.2f})", "70.00, 72.00", data, "1,234", "3 min", "0"]
    flip = TrainConfig(flip=False).flip
    assert changed == ["two changes", f"lr=0.2, flip={flip}", "70.00", "70.00, –", data, "1,234", "1 min 30 s", "1"]
    assert (empty, failure) == ("", "- two changes, seed 1: exit status 1; out | of memory")


def test_a_line_a_run_as_csv(half_done):
    rows = list(csv.DictReader(sweep_csv(half_done).splitlines()))
    assert [(row["name"], row["seed"], row["lr"], row["flip"]) for row in rows] == [
        (name, seed, lr, flip)
        for seed in "01"
        for name, lr, flip in (("plain", "", ""), ("two changes", "0.2", TrainConfig(flip=False).flip))
    ]
    assert [row["last_top1"] for row in rows] == ["70.0", "70.0", "72.0", ""]
    assert {row["seconds"] for row in rows} == {"90.0", ""}
    assert [row["folder"] for row in rows] == [str(run.folder) for run in half_done.runs()]


def test_record(half_done):
    content = json.loads(json.dumps(sweep_record(half_done, half_done.run())))
    assert (content["kind"], content["seeds"]) == ("sweep", [0, 1]) and content["environment"] and content["what"]
    assert [row["mean"] for row in content["rows"]] == [71.0, 70.0]
    assert all(row["result"].keys() == set(FACTS) for row in content["rows"])
    assert [(run["name"], run["seed"], run["last_top1"]) for run in content["runs"]][-2:] == [
        ("plain", 1, 72.0),
        ("two changes", 1, None),
    ]


# ---- the command line ----


def words(folder: Path, *more: str) -> list[str]:
    return [*(f"--{name}={value}" for name, value in TINY.items()), "--folder", str(folder), *more]


def test_a_dry_run_lists_and_touches_nothing(tmp_path, capsys):
    more = ["--grid", "lr=0.1,0.05", "--grid", "modules=1,1,1;2,2,2", "--seeds", "3,4", "--dry_run"]
    assert main(words(tmp_path / "sweep", *more)) == 0
    assert not (tmp_path / "sweep").exists()
    configs = grid(BASE, lr=(0.1, 0.05), modules=("1,1,1", "2,2,2"))
    shown = capsys.readouterr().out
    assert "sweep of 4 configurations x 2 seeds" in shown
    assert shown.endswith(state_table(Sweep(configs, (3, 4), tmp_path / "sweep").runs()) + "\n")
    assert shown.count("to do") == 9


def test_the_command_line_writes_what_it_shows(tmp_path, monkeypatch, capsys):
    code = "if name == 'lr=0.3': raise SystemExit(3)\nopen('result.json', 'w').write(result)"
    with_processes(monkeypatch, code)
    given = words(tmp_path / "runs", "--grid", "lr=0.1,0.3", "--output", str(tmp_path / "new" / "out.json"))
    assert main(given) == 1
    content = json.loads((tmp_path / "new" / "out.json").read_text())
    assert content["kind"] == "sweep" and [row["name"] for row in content["rows"]] == ["lr=0.1", "lr=0.3"]
    assert content["command"].startswith("attnet sweep --model=attention56_tiny")
    assert content["date"] and content["rows"][1]["result"] is None
    shown = capsys.readouterr().out
    assert sweep_table(content["rows"]) in shown
    assert main(words(tmp_path / "runs", "--seeds", "5", "--output", str(tmp_path / "out.md"))) == 0
    assert (
        (tmp_path / "out.md").read_text().startswith(sweep_table(Sweep({"base": BASE}, (5,), tmp_path / "runs").run()))
    )


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--grid", "lr"], "grid='lr': PARAMETER=VALUE"),
        (["--grid", "lr=1", "--grid", "lr=2"], "lr is there already"),
        (["--seeds", "a"], "seeds='a': whole numbers"),
        (["--seed", "3"], "seed=3: .* give --seeds"),
        (["--output_dir", "x"], "output_dir='x': .* give --folder"),
        (["--output", "x.txt"], "output='x.txt': give a file that ends in"),
        (["--train_image", "3"], "did you mean 'train_images'"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_mistakes_on_the_command_line(tmp_path, capsys, more, message):
    assert main(words(tmp_path / "runs", *more)) == 2
    assert re.search(f"attnet: .*{message}", capsys.readouterr().err)
    assert not (tmp_path / "runs").exists()


def test_a_sweep_that_is_stopped_says_so(tmp_path, monkeypatch, capsys):
    def stopped(runner: Runner, stop: StopSignal) -> None:
        raise TrainingInterrupted("stopped by SIGTERM with 0 of 1 runs done", signal.SIGTERM)

    monkeypatch.setattr(Runner, "work", stopped)
    assert main(words(tmp_path)) == 128 + signal.SIGTERM
    assert capsys.readouterr().err.startswith("attnet: stopped by SIGTERM")
