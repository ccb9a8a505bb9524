"""The study: the same budget for every row, only one without the weights, gains paired by seed."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace

import pytest

from attnet.data import folder as folders
from attnet.engine.parameters import TrainConfig
from attnet.study import finetuning as finetune
from attnet.study.finetuning import BUDGET, ROWS, SCRATCH

TOP1 = {SCRATCH: [30.0, 40.0], "fine-tuned": [60.0, 80.0]}


MADE: list[FakeSweep] = []


class FakeSweep:
    """In place of processes: fixed results."""

    def __init__(self, configs, seeds, folder) -> None:
        self.configs, self.seeds, self.folder = configs, seeds, folder
        MADE.append(self)

    def top1(self, name: str) -> list[float]:
        return TOP1.get(name, [50.0] * len(self.seeds))

    def runs(self) -> list[SimpleNamespace]:
        return [SimpleNamespace(folder=Path(self.folder) / "weights")]

    def run(self) -> list[dict]:
        shared = {"mean": 1.0, "low": 0.5, "high": 1.5, "failures": []}
        return [{"name": name, "top1": self.top1(name), **shared} for name in self.configs]

    def results(self) -> dict:
        known = {"dataset": "example", "amp": "O0", "device": "cpu_1p", "per_class": {"arrow": 20.0}}
        return {
            name: {
                seed: SimpleNamespace(last_top1=top1, **known)
                for seed, top1 in zip(self.seeds, self.top1(name), strict=True)
            }
            for name in self.configs
        }


def test_the_study(monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(finetune, "Sweep", FakeSweep)
    monkeypatch.setattr(finetune, "write_example", lambda path: folders.write_example(path, 2))
    monkeypatch.setattr(finetune, "step_costs", lambda configs: dict.fromkeys(configs, 1.0))
    MADE.clear()
    words = ["--folder", str(tmp_path), "--output", str(tmp_path / "out.json"), "--seeds", "0,1"]
    assert finetune.main(words) == 0
    assert len(list((tmp_path / "example").iterdir())) == 11
    first, study = MADE
    assert first.configs["pretraining"].dataset == "shapes" and list(study.configs) == list(ROWS)
    for name, config in study.configs.items():
        assert {key: getattr(config, key) for key in BUDGET} == BUDGET
        assert (config.is_pretrain, bool(config.pretrained)) == ((name != SCRATCH),) * 2
    record = json.loads((tmp_path / "out.json").read_text())
    assert record["kind"] == "finetune" and record["command"].endswith("--seeds 0,1") and record["date"]
    gains = {row["name"]: row["gain"] for row in record["rows"]}
    assert gains[SCRATCH] is None and gains["fine-tuned"]["mean"] == pytest.approx(35)
    assert gains["body frozen"]["mean"] == pytest.approx(15)
    assert record["rows"][1]["new_class"] == {"mean": 20, "low": 20, "high": 20}
    assert record["budget"] == BUDGET | {"dataset": "example", "amp": "O0", "device": "cpu_1p", "seeds": [0, 1]}
    assert record["step_seconds"] == {"fine-tuned": 1.0, "body frozen": 1.0}
    assert "| fine-tuned " in capsys.readouterr().out


def test_steps_are_taken_in_turn_on_one_network_each():
    config = TrainConfig(**{**BUDGET, "dataset": "shapes"}, progress="none")
    costs = finetune.step_costs({"all": config, "head": config.replace(freeze="body")}, rounds=1)
    assert list(costs) == ["all", "head"] and min(costs.values()) > 0
