"""Searches: what may be chosen, who chooses, what is ended early, and that nothing is lost or tried twice."""

import importlib.util
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from made_sweeps import TINY, with_processes

from attnet.base.errors import ConfigError
from attnet.base.files.paths import repository_root
from attnet.engine.holding.lease import Lease, look
from attnet.engine.parameters import TrainConfig
from attnet.study.sweeps import search as searches
from attnet.study.sweeps.command import main
from attnet.study.sweeps.search import CHOSEN, Search
from attnet.study.sweeps.space import Choice, Range, read_space

BASE = TrainConfig(**TINY)
SPACE = {"lr": Range(0.01, 0.5, log=True), "schedule": Choice(("step", "cosine"))}
# A training whose Top-1 is its number: `trial 3 …` ends at 3 %.
NUMBERED = (
    "import json, re; fields = json.loads(result); fields['last_top1'] = float(re.match('trial (\\\\d+)', name)[1])\n"
    "open('result.json', 'w').write(json.dumps(fields))"
)


def search_in(folder: Path, trials: int, **changes: object) -> Search:
    return Search(**{"base": BASE, "space": SPACE, "trials": trials, "folder": folder, **changes})


def states(search: Search) -> list[str]:
    return [trial.state.name for trial in search.study.get_trials()]


# ---- what may be chosen ----


def test_ranges_and_choices_are_of_the_parameter_s_type():
    words = [
        "lr=0.01..0.5 log",
        "total_epochs = 3..10",
        "schedule=step,cosine",
        "modules=1,1,1;2,2,2",
        "flip=random,off",
    ]
    space = read_space(words, BASE)
    assert space == {
        "lr": Range(0.01, 0.5, True),
        "total_epochs": Range(3, 10),
        "schedule": Choice(("step", "cosine")),
        "modules": Choice(("1,1,1", "2,2,2")),
        "flip": Choice(("random", "off")),
    }
    assert isinstance(space["total_epochs"].low, int) and str(space["lr"]) == "0.01..0.5 log"
    assert str(space["modules"]) == "1,1,1;2,2,2"
    kinds = [type(what.distribution()).__name__ for what in space.values()]
    assert kinds == ["FloatDistribution", "IntDistribution", *["CategoricalDistribution"] * 3]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["lr"], "search='lr': PARAMETER=LOW..HIGH"),
        (["lr="], "search='lr=': PARAMETER=LOW..HIGH"),
        (["lrs=1..2"], "unknown parameter 'lrs': did you mean 'lr'"),
        (["lr=0.1..0.2", "lr=0.3..0.4"], "lr is there already"),
        (["lr=0.5..0.1"], "lr=0.5..0.1: the first number is to be smaller"),
        (["lr=0..0.1 log"], "lr=0..0.1 log: a logarithmic range begins above 0"),
        (["lr=0.1..0.2 linear"], "'linear' behind a range means nothing"),
        (["lr=-1..0.1"], "lr='-1': a number at least 0"),
        (["lr=a..b"], "lr='a': a number"),
        (["total_epochs=1..2.5"], "total_epochs='2.5': a whole number"),
        (["schedule=step..cosine"], "schedule is no number, so it has no range"),
        (["schedule=step,stairs"], "schedule='stairs': choose one of"),
        (["schedule=step"], "schedule: two different values at least"),
        (["seed=0..5"], "seed='0..5': .* give seeds of the sweep"),
        (["output_dir=a,b"], "output_dir='a,b': .* give folder of the sweep"),
    ],
    ids=lambda value: value[-1] if isinstance(value, list) else "",
)
def test_searches_that_cannot_be(words, message):
    with pytest.raises(ConfigError, match=message):
        read_space(words, BASE)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"trials": 0}, "trials=0: at least 1"),
        ({"sampler": "tp"}, "sampler='tp': .* did you mean 'tpe'"),
        ({"pruner": "mean"}, "pruner='mean': "),
    ],
)
def test_how_it_cannot_be_searched(tmp_path, changes, message):
    with pytest.raises(ConfigError, match=message):
        search_in(tmp_path, **{"trials": 2, **changes})


def test_without_optuna_a_sentence_says_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ConfigError, match=r'which is not installed: pip install "attnet\[search\]"'):
        search_in(tmp_path, 2)


# ---- trials ----


def test_so_many_trials_as_asked_and_the_same_call_goes_on(tmp_path, monkeypatch, capsys):
    started = with_processes(monkeypatch, NUMBERED)
    rows = search_in(tmp_path, 3).run()
    assert [row["top1"] for row in rows] == [[2.0], [1.0], [0.0]], "the best first"
    assert all(row["changed"].keys() == {"lr", "schedule"} and row["failures"] == [] for row in rows)
    assert all(0.01 <= row["changed"]["lr"] <= 0.5 for row in rows)
    assert search_in(tmp_path, 3).run() == rows and len(started) == 3
    more = search_in(tmp_path, 5)
    assert [row["top1"][0] for row in more.run(parallel=2)] == [4.0, 3.0, 2.0, 1.0, 0.0]
    assert len(started) == 5 and states(more) == ["COMPLETE"] * 5
    assert [trial.value for trial in more.study.get_trials()] == [0.0, 1.0, 2.0, 3.0, 4.0]
    heads = [line for line in capsys.readouterr().out.splitlines() if line.startswith("search of ")]
    assert heads == [
        f"search of lr=0.01..0.5 log, schedule=step,cosine by tpe in {tmp_path}, {head}"
        for head in ("3 trials: 3 to do", "3 trials: 3 finished", "5 trials: 3 finished, 2 to do")
    ]


def test_the_seed_decides_what_is_chosen_and_others_in_the_folder_do_not(tmp_path, monkeypatch):
    with_processes(monkeypatch, NUMBERED)

    def chosen(folder: Path, seed: int) -> list[dict]:
        search = search_in(folder, 3, seed=seed)
        search.run()
        return [trial.params for trial in search.study.get_trials()]

    first = chosen(tmp_path / "a", 1)
    assert len({params["lr"] for params in first}) == 3
    assert chosen(tmp_path / "b", 2) != first
    assert chosen(tmp_path / "b", 1) == first, "two searches in one folder"


def test_what_lags_behind_is_ended_early_and_not_taken_up_again(tmp_path, monkeypatch, capsys):
    code = (
        "import json, re; number = int(re.match('trial (\\\\d+)', name)[1])\n"
        "fields = json.loads(result); fields['last_top1'] = 60.0\n"
        "values = [50.0, 60.0] if number == 0 else [51.0, 9.0]\n"
        "rows = [{'epoch': n, 'top1': v, 'seconds': 1.0} for n, v in enumerate(values, 1)]\n"
        "open('config.json', 'w').write('{}')\n"
        "open('metrics.jsonl', 'w').write(''.join(json.dumps(row) + chr(10) for row in rows))\n"
        "time.sleep(0.5 if number == 0 else 60)\n"
        "open('result.json', 'w').write(json.dumps(fields))"
    )
    monkeypatch.setattr(searches, "STARTUP", 1)
    started = with_processes(monkeypatch, code)
    search = search_in(tmp_path, 2)
    good, lagging = search.run()
    assert (good["top1"], lagging["top1"], lagging["failures"]) == ([60.0], [None], [])
    assert states(search) == ["COMPLETE", "PRUNED"]
    assert search.pruned() == {lagging["name"]: {"epoch": 2, "top1": 9.0}}
    assert f"[2/2] {lagging['name']}, seed 0: ended early after epoch 2, behind the others" in capsys.readouterr().out
    assert search_in(tmp_path, 2).run() == [good, lagging] and len(started) == 2


def test_a_trial_whose_worker_died_is_taken_up_and_one_that_was_being_chosen_is_replaced(tmp_path, monkeypatch):
    started = with_processes(monkeypatch, NUMBERED)
    search = search_in(tmp_path, 3)
    search.study.ask()  # and then its worker died
    search.study.ask({name: what.distribution() for name, what in SPACE.items()})  # this one's had chosen, at least
    held = search.run_of(search.study.trials[1])
    Lease.take(held.folder, 0, 0.5, "process 7 on node3").beat()  # and begun; it is silent from now on
    rows = search_in(tmp_path, 3).run()
    assert sorted(row["top1"][0] for row in rows) == [1.0, 2.0, 3.0]
    assert states(search) == ["FAIL", "COMPLETE", "COMPLETE", "COMPLETE"]
    assert len(started) == 3 and look(held.folder).number == 2


def test_a_trial_that_another_finished_but_did_not_tell_of_is_told_of(tmp_path, monkeypatch):
    started = with_processes(monkeypatch, NUMBERED)
    search = search_in(tmp_path, 1)
    tell = type(search.study).tell
    with monkeypatch.context() as patch:
        patch.setattr(type(search.study), "tell", lambda *_, **__: None)
        search.run()
    assert states(search) == ["RUNNING"] and type(search.study).tell is tell
    (row,) = search_in(tmp_path, 1).run()
    assert row["top1"] == [0.0] and states(search) == ["COMPLETE"] and len(started) == 1


def test_a_trial_that_fails_says_why_and_counts(tmp_path, monkeypatch):
    with_processes(monkeypatch, "if name.startswith('trial 0 '): raise SystemExit(3)\n" + NUMBERED)
    search = search_in(tmp_path, 2)
    good, failed = search.run()
    assert good["top1"] == [1.0] and failed["failures"] == ["seed 0: exit status 3; it wrote nothing"]
    assert states(search) == ["FAIL", "COMPLETE"]
    assert search_in(tmp_path, 2).run() == [good, failed]


def test_a_damaged_memory_is_a_sentence_and_what_was_not_to_be_chosen_is_no_trial(tmp_path, monkeypatch):
    """A journal is data, whoever wrote it: it names no parameter and no value that the search has not named."""
    with_processes(monkeypatch, NUMBERED)
    wider = {"schedule": Choice(("step", "cosine", "warmup")), "lr": Range(0.01, 0.5, log=True)}
    search = search_in(tmp_path, 1)
    for schedule in ("warmup", "step"):
        search.study.enqueue_trial({"schedule": schedule, "lr": 0.1})
        search.study.ask({n: what.distribution() for n, what in wider.items()}).suggest_categorical(
            "unit", ["evil.code"]
        )
    (trial,) = search.asked()
    assert trial.number == 1 and "evil" not in str(search.run_of(trial).config)
    with open(tmp_path / "search" / "journal.log", "a") as journal:
        journal.write("{}\n[\n[\n")
    with pytest.raises(ConfigError, match=r"journal\.log: damaged"):
        search_in(tmp_path, 1).run()


@pytest.mark.slow
def test_workers_that_search_together_make_so_many_trials_as_asked(tmp_path):
    script = (
        "import sys, pathlib, pytest\n"
        "from made_sweeps import with_processes\nfrom test_search import NUMBERED, search_in\n"
        "with_processes(pytest.MonkeyPatch(), 'time.sleep(0.1)\\n' + NUMBERED)\n"
        "rows = search_in(pathlib.Path(sys.argv[1]), 12).run()\nprint([row['top1'][0] for row in rows])"
    )
    tests = Path(__file__).parents[1]
    path = os.pathsep.join(map(str, (repository_root(), tests, tests / "study")))
    command = [sys.executable, "-c", script, str(tmp_path)]
    workers = [
        subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env={**os.environ, "PYTHONPATH": path})
        for _ in range(3)
    ]
    said = [worker.communicate()[0].splitlines() for worker in workers]
    assert [json.loads(lines[-1]) for lines in said] == [[float(n) for n in range(11, -1, -1)]] * 3
    shown = [line for lines in said for line in lines if re.match(r"\[\d+/12\]", line) and "done before" not in line]
    assert len(shown) == 12, "each by one of them"
    search = search_in(tmp_path, 12)
    assert states(search) == ["COMPLETE"] * 12
    assert len({trial.params["lr"] for trial in search.study.get_trials()}) == 12


# ---- the command line ----


def words(folder: Path, *more: str) -> list[str]:
    space = ["--search", "lr=0.01..0.5 log", "--search", "schedule=step,cosine"]
    return [*(f"--{name}={value}" for name, value in TINY.items()), "--folder", str(folder), *space, *more]


def test_the_command_writes_what_it_shows_and_says_what_chose(tmp_path, monkeypatch, capsys):
    with_processes(monkeypatch, NUMBERED)
    file = tmp_path / "out.json"
    assert main(words(tmp_path / "runs", "--trials", "3", "--seeds", "4", "--output", str(file))) == 0
    record, shown = json.loads(file.read_text()), capsys.readouterr().out
    assert record["kind"] == "sweep" and record["seeds"] == [4] and record["command"] and record["date"]
    assert [row["top1"] for row in record["rows"]] == [[2.0], [1.0], [0.0]] and len(record["runs"]) == 3
    facts = record["search"]
    assert facts["space"] == {"lr": "0.01..0.5 log", "schedule": "step,cosine"} and facts["what"] == CHOSEN
    assert (facts["trials"], facts["sampler"], facts["pruner"], facts["ended_early"]) == (3, "tpe", "median", {})
    best = record["rows"][0]["changed"]
    assert f"Best: lr={best['lr']}, schedule={best['schedule']}, 2.00 %. The test images choose here" in shown
    assert main(words(tmp_path / "runs", "--trials", "3", "--seeds", "4", "--output", str(tmp_path / "out.csv"))) == 0
    lines = (tmp_path / "out.csv").read_text().splitlines()
    assert lines[0].startswith("name,seed,lr,schedule,") and len(lines) == 4


def test_a_dry_run_of_a_search_touches_nothing(tmp_path, capsys):
    assert main(words(tmp_path / "runs", "--trials", "3", "--dry_run")) == 0
    assert not (tmp_path / "runs").exists() and "3 trials: 3 to do" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--search", "lrs=1..2"], "unknown parameter 'lrs'"),
        (["--search", "momentum=0..1"], "momentum='1': a number .*at most 0.9999"),
        (["--seeds", "0,1"], "seeds='0,1': a search trains with one seed"),
        (["--pruner", "x"], "pruner='x'"),
        (["--lease", "0"], "lease=0: 1 to 86400 seconds"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_mistakes_on_the_command_line(tmp_path, capsys, more, message):
    assert main(words(tmp_path / "runs", *more)) == 2
    assert re.search(f"attnet: .*{message}", capsys.readouterr().err)


def test_what_belongs_to_a_search_is_refused_without_one(tmp_path, capsys):
    assert main(["--folder", str(tmp_path / "runs"), "--trials", "3"]) == 2
    assert "trials=3: belongs to a search; give --search" in capsys.readouterr().err
