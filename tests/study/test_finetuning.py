"""Fine-tuning as a study: the same budget for every row, only one without the weights, differences paired by seed."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from made import make_result, of_data, save

from attnet.base.errors import AttnetError
from attnet.data.folder import write_example
from attnet.engine.parameters import TrainConfig
from attnet.study import finetuning
from attnet.study.ask_command import main
from attnet.study.finetuning import BUDGET, FINETUNE, FROZEN, PRETRAINING, SCRATCH, TUNED
from attnet.study.sweeps.sweep import Sweep, state_table

FEW = {"train_images": 22}
TOP1 = {SCRATCH: [30.0, 40.0], TUNED: [60.0, 80.0], "layer decay": [50.0, 50.0], FROZEN: [50.0, 50.0]}


@pytest.fixture
def pretraining(tmp_path, monkeypatch) -> Path:
    """The pretraining as if it had been trained."""
    monkeypatch.setattr(finetuning, "write_example", lambda path: write_example(path, 5))
    monkeypatch.setattr(finetuning, "step_costs", lambda configs: dict.fromkeys(configs, 1.0))
    (run,) = Sweep({"pretraining": TrainConfig(**PRETRAINING)}, (0,), tmp_path).runs()
    return save(make_result(**of_data("shapes", 2_000)), run.folder)


def test_the_study(pretraining, tmp_path, capsys):
    given = {"data_path": str(tmp_path / "example"), "pretrained": str(pretraining)}
    base = FINETUNE.base("rehearsal", FEW).replace(**given)
    configs = {row.name: base.replace(**row.changes) for row in FINETUNE.rows(base, "rehearsal", ())}
    runs = Sweep(configs, (0, 1), tmp_path).runs()
    for run in runs:
        config = run.config
        assert {key: getattr(config, key) for key in BUDGET} == BUDGET | FEW
        assert config.is_pretrain == (run.name != SCRATCH)
        result = make_result(last_top1=TOP1[run.name][config.seed], per_class={"arrow": 20.0}, **of_data("folder", 22))
        save(result, run.folder)

    file = tmp_path / "out.json"
    words = ["finetune", "--seeds", "0,1", "--train_images", "22", "--output", str(file), "--folder", str(tmp_path)]
    assert main([*words, "--dry_run"]) == 0
    shown = capsys.readouterr().out
    assert state_table(runs) in shown and not (tmp_path / "example").exists() and not file.exists()
    assert main(words) == 0
    assert len(list((tmp_path / "example").iterdir())) == 11
    record = json.loads(file.read_text())
    assert (record["kind"], record["study"], record["date"] > "2026") == ("ablation", "finetune", True)
    assert record["command"].startswith("attnet ablation finetune --seeds 0,1")
    gains = {row["name"]: row["difference"] for row in record["rows"]}
    assert record["baseline"]["name"] == SCRATCH and "difference" not in record["baseline"]
    assert gains[TUNED]["mean"] == pytest.approx(35) and gains[FROZEN]["mean"] == pytest.approx(15)
    assert record["rows"][0]["new_class"] == {"mean": 20, "low": 20, "high": 20}
    assert record["budget"].items() >= {"train_batch_size": 11, "total_epochs": 10, "seeds": [0, 1]}.items()
    assert record["step_seconds"] == {TUNED: 1.0, FROZEN: 1.0}
    shown = capsys.readouterr().out
    assert "| fine-tuned " in shown and "new class alone (%)" in shown and " 20 |\n" in shown


def test_a_pretraining_that_fails_is_a_sentence(tmp_path, monkeypatch):
    failed = {"failures": ["seed 0: exit status 1; no luck"]}
    monkeypatch.setattr(Sweep, "run", lambda sweep: [failed])
    with pytest.raises(AttnetError, match="pretraining: seed 0: exit status 1; no luck"):
        FINETUNE.prepare(str(tmp_path))


def test_steps_are_taken_in_turn_on_one_network_each():
    config = TrainConfig(**{**BUDGET, "dataset": "shapes"}, progress="none")
    costs = finetuning.step_costs({"all": config, "head": config.replace(freeze="body")}, rounds=1)
    assert list(costs) == ["all", "head"] and min(costs.values()) > 0
