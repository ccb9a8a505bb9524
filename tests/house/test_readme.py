"""The README says what the package does."""

import json
import re
from pathlib import Path

import attnet
from attnet.study import finetuning as finetune
from attnet.study.tables import MARKERS, readme_table

ROOT = Path(__file__).resolve().parents[2]
README = (ROOT / "README.md").read_text()


def test_parameter_table_is_current():
    assert parameter_table() in README


def test_networks_are_all_there_with_their_counts():
    for name, variant in attnet.variants().items():
        assert f"| `{name}` | {variant.input_size} |" in README and f"{variant.parameters:,}" in README


def test_the_table_of_results_is_current():
    begin, end = MARKERS
    assert f"{begin}\n\n{readme_table()}\n\n{end}" in README, "attnet report --readme writes it"


def test_measured_figures_are_those_on_record():
    records = {path.stem: json.loads(path.read_text()) for path in (ROOT / "data" / "results").glob("*.json")}
    assert all("command" in record and "date" in record for record in records.values())
    ratio = records["cpu_step"]["ratio"]
    assert f"{ratio['median']:.2f} ({ratio['low']:.2f} to {ratio['high']:.2f}" in README
    ratio = records["cpu_epoch"]["ratio"]
    assert f"{ratio['median']:.2f} ({ratio['low']:.2f} to {ratio['high']:.2f}" in README
    kinds = records["cpu_profile"]["kinds"]["ours"]
    for kind, words in (("convolution", "convolutions, {} %"), ("batch norm", "batch norm {} %")):
        assert words.format(round(100 * kinds[kind] / sum(kinds.values()))) in README
    steps = {row["compile"]: row for row in records["cpu_compile"]["rows"]}
    assert f"{steps['on']['images_per_second'] / steps['off']['images_per_second']:.2f} times the speed" in README
    growth = records["cpu_growth"]
    assert f"{1e3 * growth['images']['fit']['slope']:.2f} ms an image" in README
    assert f"{growth['memory']['fit']['slope'] / 1e6:.1f} MB an image" in README
    assert f"the baseline reaches {records['ablation']['baseline']['mean']:.2f} %" in README
    residual, (naive,) = records["ablation_residual"]["baseline"], records["ablation_residual"]["rows"]
    for row in (residual, naive):
        assert f"{row['mean']:.2f} % ({row['low']:.2f} to {row['high']:.2f})" in README
    gap = {key: f"{naive['difference'][key]:+.2f}".replace("-", "−") for key in ("mean", "low", "high")}
    assert "{mean} points ({low} to {high})".format(**gap) in README
    ranks = records["two_ranks_cpu"]["efficiency"]
    assert f"{ranks['median']:.2f} times" in README and f"{ranks['low']:.2f} to {ranks['high']:.2f}" in README
    kills = records["kill_sweep"]
    assert f"{kills['struck']} blows at random moments" in README and f"All {kills['runs']} runs ended" in README
    assert kills["sound"] == kills["runs"] and kills["missing"] == kills["left"] == 0
    assert finetune.study_table(records["finetune"]) in README
    costs = records["finetune"]["step_seconds"]
    assert f"{costs['body frozen'] / costs['fine-tuned']:.2f} times the processor time" in README
    assert f"Top-1 {records['finetune']['pretraining']['top1']:.1f} %" in README
    kills = records["kill_harness"]
    assert f"{kills['disturbed']} jobs of two ranks" in README and f": {kills['equal']} ended" in README


def test_what_is_said_of_the_masks_is_on_record():
    results = ROOT / "data" / "results"
    record = {name: json.loads((results / f"masks_{name}.json").read_text()) for name in ("cifar10", "shapes")}
    scores = {row["method"]: row["scores"]["auroc"] for row in record["shapes"]["localisation"]}
    best = max((method for method in scores if method.endswith("std")), key=lambda method: scores[method]["mean"])
    for method in (best, "Grad-CAM", "centre prior"):
        auroc = scores[method]
        assert f"{auroc['mean']:.3f} ({auroc['low']:.3f}–{auroc['high']:.3f})" in README
    effects = {(row["module"], row["intervention"]): row for row in record["cifar10"]["effects"]}
    assert f"(Top-1 {effects['none', 'none']['top1']:.1f} %)" in README
    assert f"every mask to 0 costs {-effects['all', 'zero']['change']['mean']:.0f} points" in README
    change = effects["all", "shuffled"]["change"]
    text = f"{change['mean']:+.1f} ({change['low']:+.1f} to {change['high']:+.1f}) points"
    assert text.replace("-", "−") in README


def test_files_and_commands_that_are_named_exist():
    prose = re.sub(r"^```.*?^```", "", README, flags=re.DOTALL | re.MULTILINE)  # commands also name what they write
    for name in re.findall(r"\b(?:notebooks|data/results)/[\w./-]+\.(?:ipynb|json|png)", prose):
        assert (ROOT / name).exists(), name
    for module in re.findall(r"python -m (attnet\.\w+)", README):
        place = ROOT / module.replace(".", "/")
        assert place.with_suffix(".py").exists() or (place / "__main__.py").exists(), module
    targets = set(re.findall(r"^(\w+):.*##", (ROOT / "Makefile").read_text(), flags=re.MULTILINE))
    assert set(re.findall(r"`?make (\w+)", README)) <= targets


def test_notebooks_are_all_listed():
    for path in (ROOT / "notebooks").glob("*.ipynb"):
        assert f"`{path.name}`" in README
