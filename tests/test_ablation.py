"""The ablation: which runs it consists of, and how its record and table follow from their results."""

import json
import subprocess
import sys

import pytest
from test_result import make_result, save

from attnet import ablation, runs
from attnet.ablation import (
    BASELINE,
    FLIP,
    INGREDIENTS,
    TOGETHER,
    ablate,
    ablation_table,
    difference,
    main,
    on_budget,
    row_configs,
)
from attnet.config import TrainConfig
from attnet.errors import AttnetError, ConfigError
from attnet.intervals import over_seeds
from attnet.presets import LENGTHS, MODES, RECIPES
from attnet.runs import LOG, Run
from attnet.sweep import Sweep

BASE = on_budget(TrainConfig(device_type="CPU", dataset="shapes", total_epochs=10))


def changed(configs: dict[str, TrainConfig], name: str) -> dict[str, object]:
    before, after = configs[BASELINE].to_dict(), configs[name].to_dict()
    return {key: after[key] for key in after if after[key] != before[key]}


@pytest.mark.parametrize("epochs", [1, 2, 5, 7, 30, 300])
@pytest.mark.parametrize("name", INGREDIENTS)
def test_an_ingredient_changes_the_recipe_and_fits_into_the_epochs(name, epochs):
    changes = INGREDIENTS[name].changes(epochs)
    config = TrainConfig(**changes)
    assert all(RECIPES["seed"][key] != getattr(config, key) for key in changes)
    assert changes.get("warmup_epochs", 0) < epochs and changes.get("mixup_off_epochs", 0) <= epochs
    assert INGREDIENTS[name].what and INGREDIENTS[name].source
    assert set(INGREDIENTS[name].replaces) <= set(INGREDIENTS)


def test_rows_are_single_changes_then_all_that_go_together():
    configs = row_configs(BASE, list(INGREDIENTS))
    assert list(configs) == [BASELINE, *INGREDIENTS, TOGETHER]
    for name, ingredient in INGREDIENTS.items():
        assert changed(configs, name) == ingredient.changes(10)
    together = changed(configs, TOGETHER)
    assert together.keys() == {key for one in INGREDIENTS.values() for key in one.parameters}
    for name in ("one-cycle", "mixup off at the end", "cutout", "EMA"):
        assert together.items() >= INGREDIENTS[name].changes(10).items()


def test_a_choice_of_ingredients_and_their_sum():
    configs = row_configs(BASE, ["cutout", "warm-up", "mixup"])
    assert list(configs) == [BASELINE, "cutout", "warm-up", "mixup", TOGETHER]
    assert changed(configs, TOGETHER) == {"cutout": 8, "warmup_epochs": 1.0, "mixup": 0.2}
    assert list(row_configs(BASE, ["cutout"])) == [BASELINE, "cutout"]


@pytest.mark.parametrize("recipe", RECIPES)
def test_a_whole_recipe_shrinks_to_the_budget(recipe):
    length = LENGTHS.get(recipe, MODES["full"])["total_epochs"]
    for epochs in (length, 10):
        config = row_configs(BASE.replace(total_epochs=epochs), [], [recipe])[f"recipe {recipe}"]
        assert (config.recipe, config.total_epochs, config.lr) == (recipe, epochs, None)
        for name in ("warmup_epochs", "mixup_off_epochs"):
            full, here = RECIPES[recipe][name], getattr(config, name)
            assert full / length <= here / epochs + 1e-3 and (here > 0) == (full > 0)
            assert here == full or epochs != length


def test_budget_is_that_of_the_mode_where_nothing_else_is_given():
    config = on_budget(TrainConfig(total_epochs=3, train_images=0))
    assert (config.mode, config.test_flip, config.recipe) == ("rehearsal", True, "seed")
    expected = MODES["rehearsal"] | {"total_epochs": 3, "train_images": 0}
    assert {name: getattr(config, name) for name in expected} == expected
    assert on_budget(TrainConfig(mode="performance")).model == MODES["performance"]["model"]


def test_differences_are_paired_by_seed():
    found = difference({0: 71.0, 1: 75.0, 2: 60.0}, {1: 74.0, 0: 69.0, 3: 0.0})
    assert found == {**over_seeds([2.0, 1.0]), "by_seed": {"0": 2.0, "1": 1.0}}
    assert found["mean"] == 1.5
    assert difference({0: 70.0}, {1: 70.0}) == {"mean": None, "low": None, "high": None, "by_seed": {}}


SEEDS = (0, 1)
# name -> Top-1 of the last epoch by seed; the best epoch's is another one.
TOP1 = {BASELINE: (60.0, 64.0), "cutout": (61.0, 66.0), "EMA": (59.0, None), TOGETHER: (65.0, 65.0)}


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """Finished runs of an ablation of two ingredients, one of which failed with seed 1."""
    configs = row_configs(BASE, ["cutout", "EMA"])
    for run in Sweep(configs, SEEDS, tmp_path / "runs").runs():
        top1 = TOP1[run.name][run.config.seed]
        if top1 is None:
            run.folder.mkdir(parents=True)
            (run.folder / LOG).write_text("no luck\n")
        else:
            save(make_result(top1=99.0, last_top1=top1, top1_flip=top1 + 1 + run.config.seed, amp="O0"), run.folder)
    monkeypatch.setattr(runs, "POLL", 0.02)
    monkeypatch.setattr(Run, "start", lambda run, slot: subprocess.Popen([sys.executable, "-S", "-c", "exit(1)"]))
    return tmp_path / "runs"


def test_record(folder):
    record = ablate(BASE, SEEDS, str(folder), names=["cutout", "EMA"])
    assert json.loads(json.dumps(record)) == record
    assert record["kind"] == "ablation" and "last epoch" in record["what"]
    assert record["budget"].items() >= {"total_epochs": 10, "seeds": [0, 1], "amp": "O0", "recipe": "seed"}.items()
    assert record["budget"]["dataset"] == make_result().dataset
    assert {"environment", "date"} <= record.keys()
    assert record["baseline"]["top1"] == [60.0, 64.0] and "difference" not in record["baseline"]
    rows = {row["name"]: row for row in record["rows"]}
    assert list(rows) == ["cutout", "EMA", TOGETHER, FLIP]
    assert rows["cutout"]["difference"] == difference({0: 61.0, 1: 66.0}, {0: 60.0, 1: 64.0})
    assert (rows["cutout"]["changed"], rows["cutout"]["mean"]) == ({"cutout": 8}, 63.5)
    assert rows["EMA"]["top1"] == [59.0, None] and rows["EMA"]["failures"] == ["seed 1: exit status 1; no luck"]
    assert rows["EMA"]["difference"]["by_seed"] == {"0": -1.0} and rows["EMA"]["difference"]["low"] is None
    assert rows[FLIP]["top1"] == [61.0, 66.0] and rows[FLIP]["difference"]["by_seed"] == {"0": 1.0, "1": 2.0}
    assert all(row["what"] for row in rows.values())


def test_table_has_a_row_each_and_what_failed_below(folder):
    record = ablate(BASE, SEEDS, str(folder), names=["cutout", "EMA"])
    head, _, *lines = ablation_table(record).splitlines()
    assert [line.split("|")[1].strip() for line in lines[:5]] == [BASELINE, "cutout", "EMA", TOGETHER, FLIP]
    assert {line.count("|") for line in [head, *lines[:5]]} == {5}
    gap = record["rows"][0]["difference"]
    assert lines[0].endswith("| – |")
    assert lines[1].endswith(f"| +1.50 ({gap['low']:+.2f} to {gap['high']:+.2f}) |")
    assert "59.00 | -1.00 |" in lines[2]
    assert lines[5:] == ["", "- EMA, seed 1: exit status 1; no luck"]


def test_runs_on_different_data_are_not_compared(folder):
    (run, *_) = Sweep(row_configs(BASE, ["cutout", "EMA"]), SEEDS, folder).runs()
    content = make_result(dataset="shapes, 64 images").to_json()
    (run.folder / "result.json").write_text(json.dumps(content))
    with pytest.raises(AttnetError, match=r"holds runs on cifar10, 2,000 of 50,000 images and on shapes, 64 images"):
        ablate(BASE, SEEDS, str(folder), names=["cutout", "EMA"])


def test_command_line(folder, tmp_path, capsys):
    output = tmp_path / "new" / "ablation.json"
    words = ["--only", "cutout, EMA", "--seeds", "0,1", "--folder", str(folder), "--output", str(output)]
    words += ["--device_type", "CPU", "--dataset", "shapes", "--total_epochs", "10"]
    assert main(words) == 1  # a run failed; the record is there all the same
    record = json.loads(output.read_text())
    assert record["command"].startswith("python -m attnet.ablation --only 'cutout, EMA' --seeds 0,1")
    assert [row["name"] for row in record["rows"]] == ["cutout", "EMA", TOGETHER, FLIP]
    assert capsys.readouterr().out.endswith(ablation_table(record) + "\n")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--only", "cutuot"], "only='cutuot': no such ingredient: did you mean 'cutout'?"),
        (["--seeds", "0,x"], "seeds='0,x': whole numbers with commas between"),
        (["--seeds", "0,0"], "seeds=[0, 0]: at least one is needed, and none twice"),
        (["--recipe_rows", "slow"], "recipe_rows=slow: choose among seed"),
        (["--total_epoch", "3"], "unknown parameter 'total_epoch': did you mean 'total_epochs'?"),
        (["--parallel", "0"], "parallel=0: at least 1"),
    ],
)
def test_mistakes_on_the_command_line(tmp_path, capsys, words, message):
    assert main([*words, "--folder", str(tmp_path)]) == 2
    assert message in capsys.readouterr().err


def test_help_names_every_ingredient(capsys):
    with pytest.raises(SystemExit):
        main(["--help"])
    text = " ".join(capsys.readouterr().out.split())
    assert all(name in text for name in INGREDIENTS)


def test_unknown_recipe_row():
    with pytest.raises(ConfigError, match="recipe_rows=slow"):
        row_configs(BASE, [], ["slow"])


def test_names_can_be_given_to_only():
    assert not any("," in name for name in INGREDIENTS)
    assert ablation._listed(", ".join(INGREDIENTS)) == list(INGREDIENTS)
