"""Ablations: which runs a study consists of, and how its record and table follow from their results."""

import json
import subprocess
import sys

import pytest
from made import make_result, of_data, save

from attnet.base.device import KINDS
from attnet.base.errors import AttnetError, ConfigError
from attnet.base.intervals import over_seeds
from attnet.base.words import listed
from attnet.engine.parameters import TrainConfig
from attnet.engine.recipes import LENGTHS, MODES, RECIPES, choose_preset
from attnet.model.variants import choose_variant, study_options
from attnet.study.ask import STUDIES, ablate, findings, lay_out
from attnet.study.ask_command import main
from attnet.study.ingredients import BASELINE, FLIP, INGREDIENTS, RECIPE, TOGETHER, flip_row
from attnet.study.paper import MODULES, PAPER, network
from attnet.study.questions import SIZES, difference
from attnet.study.study_tables import study_table
from attnet.study.sweeps import runner as runs
from attnet.study.sweeps.runs import LOG, Run, content_hash
from attnet.study.sweeps.sweep import Sweep, state_table

GIVEN = {"device_type": "CPU", "dataset": "shapes", "total_epochs": 10}
BASE = RECIPE.base("rehearsal", GIVEN)


def recipe_changes(*only: str, **given: object) -> dict[str, dict[str, object]]:
    base = RECIPE.base("rehearsal", GIVEN | given)
    return {row.name: dict(row.changes) for row in RECIPE.rows(base, "rehearsal", only)}


# ---- what a study trains ----


@pytest.mark.parametrize("name", INGREDIENTS)
def test_an_ingredient_changes_the_recipe_and_fits_into_the_epochs(name):
    seed = TrainConfig.recipe_values("seed")
    for epochs in (1, 2, 5, 7, 30, 300):
        changes = INGREDIENTS[name].changes(epochs)
        config = TrainConfig(**changes)
        assert all(seed[key] != getattr(config, key) for key in changes)
        assert changes.get("warmup_epochs", 0) < epochs and changes.get("mixup_off_epochs", 0) <= epochs
    assert INGREDIENTS[name].what and INGREDIENTS[name].source
    assert set(INGREDIENTS[name].replaces) <= set(INGREDIENTS)


def test_ingredients_are_single_changes_then_all_that_go_together():
    changes = recipe_changes()
    assert list(changes) == [BASELINE, *INGREDIENTS, TOGETHER]
    for name, ingredient in INGREDIENTS.items():
        assert changes[name] == ingredient.changes(10)
    together = changes[TOGETHER]
    assert together.keys() == {key for one in INGREDIENTS.values() for key in one.parameters}
    for name in ("one-cycle", "mixup off at the end", "cutout", "EMA"):
        assert together.items() >= INGREDIENTS[name].changes(10).items()


def test_a_choice_of_ingredients_and_their_sum():
    changes = recipe_changes("mixup", "cutout", "warm-up", "recipe best")
    assert list(changes) == [BASELINE, "warm-up", "mixup", "cutout", TOGETHER, "recipe best"]
    assert changes[TOGETHER] == {"cutout": 8, "warmup_epochs": 1, "mixup": 0.2}
    assert list(recipe_changes("cutout")) == [BASELINE, "cutout"]


@pytest.mark.parametrize("recipe", RECIPES)
def test_a_whole_recipe_shrinks_to_the_budget(recipe):
    length = LENGTHS.get(recipe, MODES["full"])["total_epochs"]
    for epochs in (length, 10):
        changes = recipe_changes(f"recipe {recipe}", total_epochs=epochs)[f"recipe {recipe}"]
        assert (
            changes.pop("recipe") == recipe and changes.pop("schedule") == TrainConfig.recipe_values(recipe)["schedule"]
        )
        assert changes.keys() == {"warmup_epochs", "mixup_off_epochs"}
        for name, here in changes.items():
            full = TrainConfig.recipe_values(recipe)[name]
            assert full / length <= here / epochs + 1e-3 and (here > 0) == (full > 0)
            assert here == full or epochs != length


@pytest.mark.parametrize("size", SIZES)
def test_no_two_rows_of_the_ingredients_train_alike(size):
    """What is left open is chosen by the length of a training, too: the baseline is the document's, short or long."""
    base = RECIPE.base(size, {"device_type": "CPU", "dataset": "shapes", "train_batch_size": 32})
    rows = RECIPE.rows(base, size, (*INGREDIENTS, *(f"recipe {name}" for name in RECIPES)))
    chosen = {row.name: choose_preset(base.replace(**row.changes), KINDS["CPU"](), []) for row in rows}
    assert chosen[BASELINE].schedule == "step" and chosen["recipe large_batch"].schedule == "step"
    assert chosen["recipe fast94"].schedule == chosen["one-cycle"].schedule == "onecycle"
    trained = [{k: v for k, v in config.to_dict().items() if k != "recipe"} for config in chosen.values()]
    assert all(one not in trained[:place] for place, one in enumerate(trained) if rows[place].name != "recipe seed")


def test_mode_quick_is_a_row_as_it_trains_and_the_others_have_its_time():
    asked = lay_out("quick", mode="quick", device_type="CPU")
    mode, fast94, seed = (choose_preset(asked.sweep.configs[row.name], KINDS["CPU"](), []) for row in asked.rows)
    alone = choose_preset(TrainConfig(mode="quick", device_type="CPU"), KINDS["CPU"](), [])
    assert mode == alone
    same = ("model", "train_images", "test_images")
    assert all(getattr(row, name) == getattr(mode, name) for row in (fast94, seed) for name in same)
    grown = ("image_sizes", "total_epochs", "train_batch_size")
    assert all(getattr(fast94, name) == getattr(mode, name) for name in grown)
    assert all(getattr(fast94, name) == value for name, value in RECIPES["fast94"].items() if name != "warmup_epochs")
    document = TrainConfig.recipe_values("seed") | {"schedule": "onecycle", "train_batch_size": 64}
    assert seed.total_epochs == 5 and all(getattr(seed, name) == value for name, value in document.items())


def test_the_mirror_images_are_a_row_only_where_they_were_tested():
    results = {0: make_result(top1_flip=None), 1: make_result(top1_flip=50.0)}
    row = flip_row(results, (0, 1))
    assert row["top1"] == [None, 50.0] and row["mean"] == 50.0


def test_what_is_given_wins_over_the_size_and_the_size_over_the_mode():
    residual = STUDIES["residual"]
    config = residual.base("rehearsal", {"total_epochs": "4", "train_images": 0, "recipe": "seed", "lr": None})
    assert (config.mode, config.total_epochs, config.train_images, config.recipe) == ("rehearsal", 4, 0, "seed")
    assert (config.test_images, config.lr) == (300, None)
    assert residual.base("rehearsal", {"dataset": "auto"}).dataset == "shapes", "where minutes show something"
    assert residual.base("rehearsal", {"dataset": "cifar10"}).dataset == "cifar10"
    assert residual.base("full", {"dataset": "auto"}).dataset == "auto"
    mine = {"dataset": "auto", "data_path": "my_images"}
    assert residual.base("rehearsal", mine).dataset == residual.base("rehearsal", mine | {"dataset": None}).dataset
    assert residual.base("rehearsal", mine).dataset == "auto", "data that are named are taken"
    config = residual.base("full", {})
    assert (config.mode, config.recipe, config.model) == ("full", "seed", "attention56_cifar")
    steps = config.total_epochs * 50_000 / config.train_batch_size
    assert steps == pytest.approx(160_000, rel=0.002) and config.train_images == 0
    expected = MODES["rehearsal"] | {"total_epochs": 10, "model": None}
    assert {name: getattr(BASE, name) for name in expected} == expected and BASE.test_flip
    assert RECIPE.base("rehearsal", {"mode": "performance"}).mode == "performance"
    with pytest.raises(ConfigError, match="size='small': choose one of rehearsal, full"):
        residual.base("small", {})


def test_networks_of_all_depths_have_the_papers_modules_at_both_sizes():
    for size in SIZES:
        for depth, count in MODULES.items():
            base = STUDIES["depth"].base(size, {})
            config = base.replace(**network(depth, size))
            variant = choose_variant(config.model or "attention56_tiny", **study_options(config.to_dict()))
            assert variant.modules == (count,) * 3
            assert (variant.p, variant.t, variant.r) == ((2, 4, 3) if depth == 452 else (1, 2, 1))
            assert depth == 452 or 36 * count + 20 == depth


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("name", [study.name for study in PAPER])
def test_the_papers_questions(name, size):
    study = STUDIES[name]
    base = study.base(size, {"device_type": "CPU"})
    rows = study.rows(base, size, ())
    configs = {row.name: base.replace(**row.changes) for row in rows}
    hashes = {content_hash(config) for config in configs.values()}
    assert len(hashes) == len(rows), "no row says the same as another"
    Sweep(configs, study.seeds, "runs/none")  # names can be folders
    assert rows[0].against == "" and {row.against for row in rows} <= {"", *configs}
    for row in rows:
        if row.published:
            assert row.published.study in (name, "residual", "attention") and row.published.dataset != "cifar100"
        else:
            assert (name, row.name) == ("attention", "none") or name in ("sums", "choices")
        assert (row.x is not None) == bool(row.line) == bool(study.axis)


def test_published_figures_stand_at_their_rows():
    def top1(name: str) -> dict[str, float]:
        study = STUDIES[name]
        rows = study.rows(study.base("full", {}), "full", ())
        return {row.name: row.published and row.published.top1 for row in rows}

    assert top1("residual")["naive 164"] == 92.82 and top1("residual")["residual"] == 94.48
    assert top1("attention") == {"mixed": 94.48, "channel": 93.76, "spatial": 93.67, "none": None}
    assert top1("depth") == {"56": 94.48, "92": 95.01, "236": 95.86, "452": 96.1}
    assert (top1("noise")["trunk 70"], top1("noise")["attention 70"]) == (82.79, 84.25)
    assert top1("unit")["inception"] == 79.64


# ---- records ----


def test_differences_are_paired_by_seed():
    found = difference({0: 71.0, 1: 75.0, 2: 60.0}, {1: 74.0, 0: 69.0, 3: 0.0})
    assert found == {**over_seeds([2.0, 1.0]), "by_seed": {"0": 2.0, "1": 1.0}}
    assert found["mean"] == 1.5
    assert difference({0: 70.0}, {1: 70.0}) == {"mean": None, "low": None, "high": None, "by_seed": {}}


SEEDS = (0, 1)
# name -> Top-1 of the last epoch by seed; the best epoch's is another one.
TOP1 = {BASELINE: (60.0, 64.0), "cutout": (61.0, 66.0), "EMA": (59.0, None), TOGETHER: (65.0, 65.0)}


def finish(study: str, only: list[str], folder, top1: dict[str, tuple], **changes: object) -> None:
    """Runs of a study as if they had been trained; one without Top-1 has failed."""
    question = STUDIES[study]
    base = question.base("rehearsal", GIVEN)
    configs = {row.name: base.replace(**row.changes) for row in question.rows(base, "rehearsal", only)}
    for run in Sweep(configs, SEEDS, folder).runs():
        value, config = top1[run.name][run.config.seed], run.config
        if value is None:
            run.folder.mkdir(parents=True)
            (run.folder / LOG).write_text("no luck\n")
            continue
        if config.label_noise:
            changes |= of_data("shapes", 480, noise=config.label_noise)
            changes["memorisation"] = {"images": 9, "true": 50.0, "wrong": value / 2}
        flipped = value + 1 + config.seed
        save(make_result(**{"top1": 99.0, "last_top1": value, "top1_flip": flipped, "amp": "O0"} | changes), run.folder)


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """Finished runs of an ablation of two ingredients, one of which failed with seed 1."""
    finish("recipe", ["cutout", "EMA"], tmp_path / "runs", TOP1)
    monkeypatch.setattr(runs, "POLL", 0.02)
    monkeypatch.setattr(Run, "start", lambda *_: subprocess.Popen([sys.executable, "-S", "-c", "exit(1)"]))
    return tmp_path / "runs"


def test_record_of_ingredients(folder):
    record = ablate(seeds=SEEDS, folder=str(folder), only=["cutout", "EMA"], **GIVEN)
    assert json.loads(json.dumps(record)) == record
    assert (record["kind"], record["study"], record["size"]) == ("ablation", "recipe", "rehearsal")
    budget = {"total_epochs": 10, "seeds": [0, 1], "amp": "O0", "recipe": "seed", "model": "attention56_tiny"}
    assert record["budget"].items() >= budget.items()
    assert record["budget"]["dataset"] == make_result().dataset
    assert {"environment", "date", "question", "what"} <= record.keys()
    assert record["baseline"]["top1"] == [60.0, 64.0] and "difference" not in record["baseline"]
    rows = {row["name"]: row for row in record["rows"]}
    assert list(rows) == ["cutout", "EMA", TOGETHER, FLIP]
    assert rows["cutout"]["difference"] == difference({0: 61.0, 1: 66.0}, {0: 60.0, 1: 64.0})
    assert (rows["cutout"]["changed"], rows["cutout"]["mean"]) == ({"cutout": 8}, 63.5)
    assert rows["EMA"]["top1"] == [59.0, None] and rows["EMA"]["failures"] == ["seed 1: exit status 1; no luck"]
    assert rows["EMA"]["difference"]["by_seed"] == {"0": -1.0} and rows["EMA"]["difference"]["low"] is None
    assert rows[FLIP]["top1"] == [61.0, 66.0] and rows[FLIP]["difference"]["by_seed"] == {"0": 1.0, "1": 2.0}
    assert all(row["what"] and row["against"] == BASELINE for row in rows.values())

    lines = study_table(record).splitlines()
    assert lines[0].startswith("attention56_tiny, recipe seed, 10 epochs; cifar10, 2,000 of 50,000 images, batch 32")
    names = [line.split("|")[1].strip() for line in lines[4:9]]
    assert names == [BASELINE, "cutout", "EMA", TOGETHER, FLIP]
    gap = rows["cutout"]["difference"]
    cells = [[cell.strip() for cell in line.split("|")[1:-1]] for line in lines[4:9]]
    assert cells[0][-2:] == ["–", "–"]
    assert cells[1][-2:] == [f"+1.50 ({gap['low']:+.2f} to {gap['high']:+.2f})", "cannot tell"]
    assert cells[2][-3:] == ["59.00", "-1.00", "–"], "one seed tells nothing apart"
    assert lines[9:] == ["", "- EMA, seed 1: exit status 1; no luck"]


def test_rows_are_held_against_their_own_and_stand_beside_the_paper(tmp_path):
    top1 = {"trunk 30": (40.0, 42.0), "attention 30": (41.0, 44.0), "trunk 70": (30.0, 30.0)}
    top1["attention 70"] = (28.0, 29.0)
    only = ["attention 30", "attention 70"]
    finish("noise", only, tmp_path, top1)
    record = ablate("noise", seeds=SEEDS, folder=str(tmp_path), only=only, **GIVEN)
    assert record["baseline"]["name"] == "trunk 30" and record["budget"]["dataset"] == "shapes, 480 images"
    first, reference, second = record["rows"]
    assert "against" not in reference
    assert [row["against"] for row in (first, second)] == ["trunk 30", "trunk 70"]
    assert second["difference"]["by_seed"] == {"0": -2.0, "1": -1.0}
    assert second["memorisation"][1] == {"images": 9, "true": 50.0, "wrong": 14.5}
    assert (second["published"]["network"], second["published"]["top1"]) == ("Attention-92", 84.25)
    assert (second["x"], second["line"], record["axis"]) == (70, "with masks", "wrong training labels (%)")
    lines = study_table(record).splitlines()
    assert "+1.50 (-4.85 to +7.85) to trunk 30 |" in lines[5]
    assert " 363,938 |" in lines[4] and " 458,434 |" in lines[5], "the masks' parameters"
    assert " 14.2 | 84.25 (Attention-92) |" in lines[7]
    assert lines[-1].startswith("published: Wang et al., CVPR 2017, table 5; cifar10, with another network")


def test_runs_on_different_data_are_not_compared(folder):
    path = next((folder / BASELINE).glob("*/result.json"))
    path.write_text(json.dumps(make_result(**of_data("shapes", 64)).to_json()))
    with pytest.raises(AttnetError, match=r"holds runs on cifar10 and on shapes; give dataset, or another folder"):
        ablate(seeds=SEEDS, folder=str(folder), only=["cutout", "EMA"], **GIVEN)


def test_an_interval_without_0_tells_two_apart():
    def row(low: float, high: float) -> dict[str, object]:
        gap = {"mean": (low + high) / 2, "low": low, "high": high, "by_seed": {}}
        plain = {"name": "x", "changed": {}, "mean": 50.0, "low": 49.0, "high": 51.0, "failures": []}
        return plain | {"against": "first", "difference": gap}

    first = {name: value for name, value in row(0, 0).items() if name not in ("against", "difference")}
    budget = {"model": "m", "recipe": "r", "total_epochs": 1, "dataset": "d", "train_batch_size": 1, "seeds": [0, 1]}
    rows = [row(0.1, 2.0), row(-2.0, -0.1), row(-1.0, 1.0), row(0.0, 1.0)]
    lines = study_table({"budget": budget, "baseline": first, "rows": rows}).splitlines()
    found = [line.split("|")[-2].strip() for line in lines[4:]]
    assert found == ["–", "higher", "lower", "cannot tell", "cannot tell"]


def test_findings_are_what_is_measured_here_and_what_is_on_record(folder):
    options = {"seeds": "0,1", "folder": str(folder), "only": ["cutout", "EMA"], **GIVEN}
    found = findings("recipe", "residual, recipe", **options)
    assert next(iter(found)) == "measured here" and found["measured here"]["baseline"]["mean"] == 62.0
    recorded = {where: record for where, record in found.items() if "on record: data/results/ablation.json" in where}
    assert [record["study"] for record in recorded.values()] == ["recipe"]
    assert findings("recipe", "depth") == recorded
    with pytest.raises(ConfigError, match="study='dept': no such study: did you mean 'depth'"):
        findings("recipe", "dept")


# ---- the command ----


def test_command_line(folder, tmp_path, capsys):
    output = tmp_path / "new" / "ablation.json"
    words = ["--only", "cutout, EMA", "--seeds", "0,1", "--folder", str(folder), "--output", str(output)]
    words += ["--device_type", "CPU", "--dataset", "shapes", "--total_epochs", "10"]
    assert main(words) == 1  # a run failed; the record is there all the same
    record = json.loads(output.read_text())
    assert record["command"].startswith("attnet ablation --only 'cutout, EMA' --seeds 0,1")
    assert [row["name"] for row in record["rows"]] == ["cutout", "EMA", TOGETHER, FLIP]
    assert capsys.readouterr().out.endswith(study_table(record) + "\n")


def test_a_dry_run_lists_every_run_and_touches_nothing(folder, tmp_path, capsys):
    given = [word for name, value in GIVEN.items() for word in (f"--{name}", str(value))]
    common = ["--seeds", "0,1", "--folder", str(folder), *given, "--dry_run"]
    assert main(["recipe", *common, "--only", "cutout, EMA"]) == 0
    runs = lay_out("recipe", seeds=SEEDS, folder=str(folder), only=["cutout", "EMA"], **GIVEN).sweep.runs()
    shown = capsys.readouterr().out
    assert shown.endswith(state_table(runs) + "\n") and shown.count("finished") == 8 and shown.count("to do") == 2
    assert [(run.name, run.config.seed) for run in runs[:2]] == [(BASELINE, 0), ("cutout", 0)], "seed by seed"

    before = sorted(folder.rglob("*"))
    other = ["--folder", str(tmp_path / "new"), "--seeds", "0", "--dry_run"]
    assert main(["residual", "finetune", *other]) == 0
    shown = capsys.readouterr().out
    assert "naive 92" in shown and "body frozen" in shown
    assert not (tmp_path / "new").exists() and sorted(folder.rglob("*")) == before


def test_several_studies_leave_a_file_each(tmp_path, capsys):
    finish("residual", ["residual"], tmp_path / "runs", {"residual": (70.0, 71.0)})
    finish("unit", ["resnext"], tmp_path / "runs", {"preact": (70.0, 71.0), "resnext": (72.0, 75.0)})
    given = [word for name, value in GIVEN.items() for word in (f"--{name}", str(value))]
    common = ["--seeds", "0,1", "--folder", str(tmp_path / "runs"), *given]
    assert main(["unit", *common, "--only", "resnext", "--output", str(tmp_path / "x.json")]) == 0
    assert json.loads((tmp_path / "x.json").read_text())["rows"][0]["difference"]["mean"] == 3.0
    assert STUDIES["unit"].see in capsys.readouterr().out
    words = ["residual", "unit", *common, "--only", "resnext", "--output", str(tmp_path / "x.json")]
    assert main(words) == 2 and "only='resnext': no such row: " in capsys.readouterr().err
    assert main(["residual", "residual", *common, "--only", "residual", "--output", str(tmp_path / "x.json")]) == 0
    record = json.loads((tmp_path / "x_residual.json").read_text())
    assert (record["study"], record["rows"]) == ("residual", [])


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["dept"], "study='dept': no such study: did you mean 'depth'?"),
        (["--only", "cutuot"], "only='cutuot': no such row: did you mean 'cutout'?"),
        (["--seeds", "0,x"], "seeds='0,x': whole numbers with commas between"),
        (["--recipe_rows", "slow"], "only='recipe slow': no such row"),
        (["--total_epoch", "3"], "unknown parameter 'total_epoch': did you mean 'total_epochs'?"),
        (["--size", "tiny"], "size='tiny': choose one of rehearsal, full"),
        (["--mode", "slow"], "mode='slow': choose one of"),
        (["noise", "--label_noise", "0.2"], "label_noise='0.2': study noise sets label_noise itself; leave it out"),
        (["depth", "--modules", "2,2,2"], "modules='2,2,2': study depth sets modules itself"),
        (["finetune", "--lr", "0.1"], "lr='0.1': study finetune sets lr itself"),
        (["finetune", "--data_path", "mine"], "data_path='mine': study finetune sets data_path itself"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_mistakes_on_the_command_line(tmp_path, capsys, words, message):
    assert main([*words, "--folder", str(tmp_path / "runs")]) == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "runs").exists()


def test_data_that_is_not_there_is_missed_before_the_first_run(tmp_path, capsys):
    assert main(["unit", "--data_path", str(tmp_path / "nowhere"), "--folder", str(tmp_path / "runs")]) == 2
    assert str(tmp_path / "nowhere") in capsys.readouterr().err
    assert not (tmp_path / "runs").exists()


def test_help_names_every_study_and_ingredient(capsys):
    with pytest.raises(SystemExit):
        main(["--help"])
    text = " ".join(capsys.readouterr().out.split())
    assert all(name in text for name in [*STUDIES, *INGREDIENTS])


def test_names_can_be_given_to_only():
    assert not any("," in name for name in INGREDIENTS)
    assert listed(", ".join(INGREDIENTS)) == list(INGREDIENTS)
