"""The README and those of the rooms say what is true: commands, files, names and figures."""

import itertools
import json
import re
import shlex
import statistics
from pathlib import Path

import pytest

import attnet
from attnet.__main__ import COMMANDS
from attnet.engine.recipes import MODES, RECIPES, SHORT
from attnet.masks.questions import QUESTIONS
from attnet.model.weights.opened import shipped_weights
from attnet.study.readme import MARKERS, readme_table
from attnet.study.study_tables import study_table

ROOT = Path(__file__).resolve().parents[2]
PAGES = {str(path.relative_to(ROOT)): path.read_text(encoding="utf-8")
         for path in (ROOT / "README.md", *sorted((ROOT / "attnet").glob("*/README.md")))}  # fmt: skip
README, EVERYTHING = PAGES["README.md"], "\n".join(PAGES.values())
RECORDS = {path.stem: json.loads(path.read_text(encoding="utf-8")) for path in (ROOT / "data/results").glob("*.json")}


def test_the_readme_is_a_first_look():
    assert len(README.splitlines()) < 200


def test_the_table_of_results_is_current():
    begin, end = MARKERS
    assert f"{begin}\n\n{readme_table()}\n\n{end}" in README, "attnet report --readme writes it"


def test_networks_and_recipes_are_all_there():
    for name, variant in attnet.variants().items():
        assert f"| `{name}` | {variant.input_size} |" in PAGES["attnet/model/README.md"]
        assert f"{variant.parameters:,}" in PAGES["attnet/model/README.md"]
    assert all(f"| `{name}` |" in PAGES["attnet/engine/README.md"] for name in RECIPES)


def test_notebooks_are_all_listed():
    for path in (ROOT / "notebooks").glob("*.ipynb"):
        assert f"`{path.name}`" in README


@pytest.mark.parametrize("page", PAGES)
def test_every_command_is_one_that_exists(page):
    text = PAGES[page]
    for name in re.findall(r"(?<![\w./-])(?<!import )(?<!from )attnet ([a-z][\w-]*)(?=[ `\n])", _code(text)):
        assert name in COMMANDS, name
    for script in re.findall(r"python (tests/\w+\.py)", text):
        assert (ROOT / script).exists(), script
    assert not re.findall(r"python -m attnet\.(?!train\b)\w+", text)
    targets = set(re.findall(r"^([\w-]+):.*##", (ROOT / "Makefile").read_text(), flags=re.MULTILINE))
    assert set(re.findall(r"`make ([\w-]+)", text)) <= targets


def test_every_flag_of_training_is_one_that_exists():
    fields = attnet.TrainConfig.fields()
    for line in re.findall(r"(?m)attnet train ([^\n`]*)", _code(EVERYTHING)):
        for word in shlex.split(re.split("#|&&", line)[0].replace("\\", ""), posix=False):
            assert not word.startswith("--") or word[2:] in fields or word == "--help", line


def _code(text: str) -> str:
    """What stands in code: blocks and spans."""
    return "\n".join(re.findall(r"```.*?```|`[^`\n]+`", text, flags=re.DOTALL))


@pytest.mark.parametrize("page", PAGES)
def test_files_that_are_named_exist(page):
    prose = re.sub(
        r"^```.*?^```", "", PAGES[page], flags=re.DOTALL | re.MULTILINE
    )  # commands also name what they write
    for name in re.findall(r"(?<!-p )\b(?:notebooks|data/results)/[\w./-]+\.(?:ipynb|json|png)", prose):
        assert (ROOT / name).exists() or "best.json" in name, name
    home = (ROOT / page).parent
    for link in re.findall(r"\]\(([\w./-]+)\)", PAGES[page]):
        assert (home / link).exists(), link


def test_every_record_has_its_command_and_date():
    assert all("command" in record and "date" in record for record in RECORDS.values())


def test_measured_figures_are_those_on_record():
    *ours, theirs = RECORDS["cpu_step"]["rows"]
    assert [row["amp"] for row in ours] == ["O0", "O2"]
    for row, page in zip(ours, (EVERYTHING, README), strict=True):
        ratio = row["ratio"]
        assert f"{ratio['median']:.2f} ({ratio['low']:.2f} to {ratio['high']:.2f}) times" in page
    single, half, reference = (f"{row['images_per_second']:.0f}" for row in (*ours, theirs))
    assert f"{half} and {single} against {reference} images/s" in PAGES["attnet/benchmark/README.md"]
    ratio = RECORDS["cpu_epoch"]["ratio"]
    assert f"{ratio['median']:.2f} ({ratio['low']:.2f} to {ratio['high']:.2f}" in EVERYTHING
    kinds = RECORDS["cpu_profile"]["kinds"]["ours"]
    assert f"{round(100 * kinds['convolution'] / sum(kinds.values()))} %" in PAGES["attnet/benchmark/README.md"]
    growth = RECORDS["cpu_growth"]
    assert f"{1e3 * growth['images']['fit']['slope']:.2f} ms an image" in EVERYTHING
    residual, (naive,) = RECORDS["ablation_residual"]["baseline"], RECORDS["ablation_residual"]["rows"]
    for row in (residual, naive):
        assert f"{row['mean']:.2f} % ({row['low']:.2f} to {row['high']:.2f})" in EVERYTHING
    kills = RECORDS["kill_sweep"]
    assert f"{kills['struck']} blows at random moments" in EVERYTHING
    assert kills["sound"] == kills["runs"] and kills["missing"] == kills["left"] == 0
    kills = RECORDS["kill_workers"]
    assert f"{kills['workers']} workers, {kills['runs']} runs, {kills['struck']} blows" in EVERYTHING
    assert f"{kills['taken_over']} times until another had taken the run" in EVERYTHING
    assert f"for {kills['woken_and_awake_beside_the_new_one_s']:.1f} s at most" in EVERYTHING
    assert kills["sound"] == kills["finished_once"] == kills["runs"]
    assert kills["missing"] == kills["left"] == kills["trained_by_two_at_once"] == 0
    costs = RECORDS["finetune"]["step_seconds"]
    assert f"{costs['body frozen'] / costs['fine-tuned']:.2f} times the processor time" in EVERYTHING
    kills = RECORDS["kill_harness"]
    assert f"{kills['jobs']} jobs of two ranks, struck {kills['struck']} times" in EVERYTHING
    assert kills["equal"] == kills["jobs"] and kills["orphans"] == kills["torn_files"] == 0


def test_what_was_reached_is_on_record():
    cards = (ROOT / "attnet/model/shipped/README.md").read_text(encoding="utf-8")
    for name in shipped_weights():
        record = RECORDS[name]
        if record["task"] == "cifar10":
            assert f"`{name}`" in README and f"{record['last_top1']:.2f} % in {record['seconds']:.0f} s" in README
        assert f"**{record['last_top1']:.2f} %** after the last epoch" in cards
        assert ", ".join(f"{word} {share:.1f}" for word, share in record["per_class"].items()) in cards
    fastest = max(row["images_per_second"] for row in RECORDS["gpu_fps"]["rows"])
    assert f"{fastest:,.0f} images/s" in README and f"{fastest:,.0f} images/s" in PAGES["attnet/benchmark/README.md"]


def test_what_is_said_of_mode_quick_is_on_record():
    """What it reaches, and what its recipe brings beside others in the same time."""
    page, reached, study = PAGES["attnet/engine/README.md"], RECORDS["quick"], RECORDS["ablation_quick"]
    config, seconds = reached["parameters"], reached["processor_seconds"]
    wanted = MODES["quick"] | SHORT["quick"] | {"image_sizes": "16,24,32", "mode": "quick", "recipe": "seed", "seed": 0}
    assert {name: config[name] for name in wanted} == wanted and reached["images"]["train"] == 50_000
    assert (reached["amp"], reached["environment"]["threads"]) == ("O2", 1)
    assert f"`quick` reaches {reached['last_top1']:.2f} % Top-1" in page and f"{seconds:,.0f} processor seconds" in page
    assert f"to {reached['last_top1']:.2f} % ({seconds / 60:.0f} processor minutes with bfloat16" in README
    assert f"a small network to {reached['last_top1']:.2f} % in {seconds / 60:.0f} processor minutes" in README
    assert 15 < seconds / 60 < 30, "so about a quarter of an hour on two cores, where steps take some 0.65 of the time"
    assert f"一个小网络训练到 {reached['last_top1']:.2f} %" in README
    base, rows = study["baseline"], study["rows"]
    assert (base["name"], [row["name"] for row in rows]) == ("mode quick", ["recipe fast94", "recipe seed"])
    assert reached["last_top1"] == base["top1"][0] and study["budget"]["seeds"] == [0, 1, 2]
    said = [f"mode quick {base['mean']:.2f} % ({base['low']:.2f} to {base['high']:.2f})"]
    for row in rows:
        mean, low, high = (f"{row['difference'][key]:+.2f}".replace("-", "−") for key in ("mean", "low", "high"))
        said.append(f"{mean} ({low} to {high})")
        assert 0.8 < row["seconds"] / base["seconds"] < 1.25, "in about the same time"
    leads = [-gap for gap in rows[0]["difference"]["by_seed"].values()]
    said.append(f"leads with every seed, by {min(leads):.2f} to {max(leads):.2f}, and three seeds cannot tell")
    assert min(leads) > 0 > -rows[0]["difference"]["high"] and rows[1]["difference"]["high"] < 0
    assert all(words in page for words in said)


def test_what_is_said_of_how_mode_quick_was_tuned_is_on_record():
    """Seven changes in eight runs: every two of them come together, and alone, as often as not."""
    page, rows = PAGES["attnet/engine/README.md"], RECORDS["tuning"]["rows"]
    changes = {"lr": 0.2, "train_batch_size": 128, "cutout": 0, "label_smoothing": 0.0, "ema": 0.995}
    changes |= {"weight_decay": 1e-3, "image_sizes": ""}
    made = {name: [row["changed"][name] == value for row in rows] for name, value in changes.items()}
    assert all(sum(a == b for a, b in zip(made[one], made[other], strict=True)) == 4
               for one, other in itertools.combinations(made, 2))  # fmt: skip
    top1 = [row["mean"] for row in rows]
    effects = {
        name: sum(value if on else -value for on, value in zip(made[name], top1, strict=True)) / 4 for name in made
    }
    for name, words in {
        "cutout": "no cutout in place of 8 pixels",
        "lr": "rate 0.2 in place of 0.1",
        "weight_decay": "weight decay 1e-3 in place of 5e-4",
        "train_batch_size": "batch 128 in place of 64",
        "label_smoothing": "no label smoothing",
        "ema": "averaged weights (EMA 0.995)",
    }.items():
        assert f"{words} {effects[name]:+.1f}".replace("-0", "−0") in page
    assert f"in about the same time {-effects['image_sizes']:+.1f} points" in page
    scatter = statistics.mean(
        statistics.variance(row["top1"])
        for row in (RECORDS["ablation_quick"]["baseline"], *RECORDS["ablation_quick"]["rows"])
    )
    assert f"seeds scatter by {scatter**0.5:.1f} points, an effect by about {(scatter / 2) ** 0.5:.1f}" in page
    kept = {name for name, effect in effects.items() if effect > 0} - {"image_sizes"}
    assert kept == {
        name for name, value in changes.items() if ({"ema": 0.0} | MODES["quick"] | SHORT["quick"]).get(name) == value
    }


def test_what_is_said_of_the_explorer_is_on_record():
    moves = RECORDS["explorer_moves"]["moves"].values()
    medians = [move["median_ms"] for move in moves]
    said = f"{min(medians):.0f} to {max(medians):.0f} ms with `attention92`"
    assert (
        f"{said} on two cores of an old CPU, the slowest in twenty {max(move['p95_ms'] for move in moves):.0f}"
        in (PAGES["attnet/plots/README.md"])
    )


def test_what_is_said_of_shapes_is_on_record():
    record, page = RECORDS["controls_shapes"], PAGES["attnet/masks/README.md"]
    now, before = record["now"]["strongest"], record["before"]["strongest"]
    assert f"reaches AUROC {now['auroc']['value']:.3f} and IoU {now['iou']['value']:.3f}" in page
    assert now["auroc"]["control"] == now["iou"]["control"] == "edges x centre"
    assert f"had {before['auroc']['value']:.3f} and {before['iou']['value']:.3f}" in page
    assert f"a linear classifier {record['now']['linear_top1']:.1f} %" in page
    for control in record["now"]["controls"]:
        scores = [
            record[when]["controls"][control][what]
            for what in ("auroc", "iou", "pointing")
            for when in ("before", "now")
        ]
        assert f"| {control} | {' | '.join(f'{score:.3f}' for score in scores)} |" in page


def test_what_is_said_of_the_jpeg_pass_is_on_record():
    record, page = RECORDS["jpeg"], PAGES["attnet/study/README.md"]

    def said(gap: dict[str, float]) -> str:
        return f"{gap['mean']:+.2f} ({gap['low']:+.2f} to {gap['high']:+.2f}".replace("-", "−")

    gaps = {name: row["difference"] for name, row in record["tested"].items()}
    other, trained = record["tested"]["other grid"], record["differences"]["other grid"]
    assert f"{record['untouched']['top1']:.2f} % become {other['top1']:.2f} %" in page
    assert f"changes {other['levels_changed']:.1f} of 255 levels" in page
    for gap in (gaps["same grid"], gaps["quality 50"], trained):
        assert said(gap) in page
    assert said(gaps["other grid"]).replace(" (", " points (") in page
    means = {row["name"]: row["mean"] for row in record["trained"]}
    assert f"it has {means['other grid']:.2f} %, with images as they are {means['as they are']:.2f} %" in page
    gap = gaps["other grid"]
    assert f"takes {-gap['mean']:.1f} points ({-gap['high']:.1f} to {-gap['low']:.1f}) from the weights" in README
    assert f"and {-trained['mean']:.1f} ({-trained['high']:.1f} to {-trained['low']:.1f}; three seeds)" in README
    assert trained["low"] < gap["mean"] < trained["high"], "getting used to it may give back nothing or much"


def test_the_training_on_a_processor_is_the_one_on_record():
    """Its command, its Top-1, what it cost, and what small images save of that."""
    record = RECORDS["attention56_cifar_cpu"]
    hours = f"{record['top1']:.2f} % in {record['processor_seconds'] / 3600:.1f} processor hours"
    minutes = round(record["seconds"] / 60)
    assert README.count(hours) == 2 and f"{minutes // 60} h {minutes % 60} min on two cores" in README
    assert README.count(f"{record['top1']:.2f} %") == 4, "of its masks and in Chinese too"
    (command,) = re.findall(r"(?m)^attnet train (--mode full --model attention56_cifar .*)$", README)
    given, was = attnet.TrainConfig.parse(shlex.split(command)), record["parameters"]
    assert given.given().keys() == {
        *("mode", "model", "recipe", "total_epochs", "train_batch_size", "cutout", "image_sizes")
    }
    assert all(value == was[name] for name, value in given.given().items())

    def median(what: str, size: int) -> float:
        return statistics.median(row[what] for row in record["history"] if row["image_size"] == size)

    engine = PAGES["attnet/engine/README.md"]
    small, middle, full = (median("fps", size) for size in (16, 24, 32))
    assert f"on {small:.0f}, {middle:.0f} and {full:.0f} images a second at 16, 24 and 32 pixels" in engine
    assert f"takes {full / small:.2f} of the time" in engine
    assert f"the {record['epochs']} epochs on a processor end at {record['history'][-1]['train_loss']:.2f}" in engine
    whole = record["epochs"] * median("processor_seconds", 32) / 3600
    assert f"{record['processor_seconds'] / 3600:.1f} processor hours, where full images would" in engine
    assert f"about {whole:.1f} (" in engine
    assert f"{record['top1']:.2f} %, with mirror images {record['top1_flip']:.2f})" in engine
    older = RECORDS["attention56_cifar_float32"]
    assert f"{older['top1']:.2f} % in {older['processor_seconds'] / 3600:.1f} processor hours" in engine


def test_the_documents_network_beside_the_references_own_training_is_on_record():
    """At equal processor time; nothing is said of where both would end."""
    run, race = RECORDS["attention92_cpu"], RECORDS["attention92_race"]
    last, ours, theirs = race["beside"][-1], race["ours"][-1], race["reference"][-1]
    assert (last["ours"], ours["processor_seconds"]) == (run["last_top1"], run["processor_seconds"])
    assert run["top1"] == run["last_top1"] and run["model"] == race["training"]["model"] == "attention92"
    assert 0 <= theirs["processor_seconds"] - ours["processor_seconds"] < 30, "a step"
    assert last["reference_tested"] == theirs["processor_seconds"] / 3600
    hours, reached = run["processor_seconds"] / 3600, f"{last['reference']:.2f} %"
    assert f"{run['top1']:.2f} % in {hours:.1f} processor hours; the reference repository's own training" in README
    assert f"given as many beside it, {reached} (`data/results/attention92_race.json`)" in README
    assert f"`attention92` has had {run['epochs']} epochs here" in README
    page = PAGES["attnet/benchmark/README.md"]
    assert f"after {hours:.2f} hours ours has {run['top1']:.2f} % ({run['epochs']} epochs of" in page
    assert f"training {reached} ({theirs['images']:,} images, {theirs['images'] / 50_000:.1f} epochs" in page


def test_every_network_that_comes_along_has_a_card():
    cards = (ROOT / "attnet/model/shipped/README.md").read_text(encoding="utf-8")
    for name, path in shipped_weights().items():
        opened = attnet.load_pretrained(name)
        assert f"## `{name}`" in cards and f"**{opened.top1:.2f} %**" in cards, path.name
    study = RECORDS["ablation_choices"]
    first, second, third = study["baseline"]["top1"]
    said = f"after {study['budget']['total_epochs']} epochs, at seeds 0, 1 and 2, `{study['budget']['model']}` has "
    assert f"{said}{first:.2f}, {second:.2f} and {third:.2f} %" in cards


def test_the_fine_tuning_study_on_record_is_told():
    baseline, rows = RECORDS["finetune"]["baseline"], RECORDS["finetune"]["rows"]
    assert f"From scratch {baseline['mean']:.1f} % ({baseline['low']:.1f} to {baseline['high']:.1f})" in EVERYTHING
    table = study_table(RECORDS["finetune"])
    for row in rows:
        gap = row["difference"]
        assert f"{gap['mean']:+.1f}" in EVERYTHING and f"({gap['low']:+.1f} to {gap['high']:+.1f})" in EVERYTHING
        assert f"{gap['mean']:+.2f}" in table


def test_what_is_said_of_the_masks_is_the_verdict_on_record():
    """Question by question, for both shipped networks; the notebook, which asks them anew, says what it means."""
    for key, question in QUESTIONS.items():
        cells = [question.words]
        cells += [_told(RECORDS[f"verdict_{name}"]["answers"][key]) for name in ("cifar10", "shapes")]
        row = f"| {' | '.join(cells)} |"
        assert row in README, row
    images = {RECORDS[f"verdict_{name}"]["images"] for name in ("cifar10", "shapes")}
    assert images == {500} and "500 test images" in README
    assert {RECORDS[f"verdict_{name}"]["images_for_road"] for name in ("cifar10", "shapes")} == {150}
    least = {key: question.least for key, question in QUESTIONS.items()}
    units = (
        "points of Top-1 of a linear",
        "of AUROC",
        "point of the network's Top-1, twice",
        "of ROAD",
        "of the images",
    )
    for number, unit in zip((least[key] for key in least if key != "places"), units, strict=True):
        assert f" {number:g} {unit}" in README
    assert least["places"] == least["needed"]
    pixels = RECORDS["verdict_cifar10"]["answers"]["pixels"]
    name, control = pixels["control"]
    untrained = max(of["mean"] for label, of in pixels["controls"].items() if "untrained" in label)
    means = (
        f"{control['mean']:.2f} against {pixels['claim'][1]['mean']:.2f}; an untrained network's masks {untrained:.2f}"
    )
    assert f'"{name}", which has seen no network, does better ({means.replace("-", "−")}; Grad-CAM' in README
    book = json.loads((ROOT / "notebooks/attention_masks.ipynb").read_text(encoding="utf-8"))
    prose = "\n".join("".join(cell["source"]) for cell in book["cells"])
    findings = re.search(r"\n((?:- \*\*.*\n)+)\n`attnet masks", README)[1].splitlines()
    assert len(findings) == 4
    for line in findings:
        assert line in prose, line


def test_a_second_training_gets_the_same_answers():
    first, second = (RECORDS[name]["answers"] for name in ("verdict_cifar10", "verdict_cifar10_cpu"))
    assert {key: of["verdict"] for key, of in first.items()} == {key: of["verdict"] for key, of in second.items()}
    told = ", ".join(re.sub(r"\*\*.*?\*\* ", "", _told(second[key])).strip("*") for key in QUESTIONS)
    assert f"all six answers of the first column again: {told} (" in README
    trained = RECORDS["attention56_cifar_cpu"]
    assert f"{trained['epochs']} epochs, Top-1 {trained['top1']:.2f} %" in RECORDS["verdict_cifar10_cpu"]["network"]
    epochs = f"{trained['epochs']} epochs in place of {RECORDS['attention56_cifar']['epochs']}"
    assert f"{epochs}, {trained['top1']:.2f} %" in README


def _told(answer: dict) -> str:
    """An answer as a cell of a table: the verdict, and the difference with its interval."""
    gap, digits = answer["difference"], 1 if "%" in answer["measure"] else 2
    if gap is None:
        return f"**{answer['verdict']}**"
    mean, low, high = (f"{gap[part]:+.{digits}f}".replace("-", "−") for part in ("mean", "low", "high"))
    return f"**{answer['verdict']}** {mean} ({low} to {high})"


def test_what_is_said_of_networks_whose_answers_are_known_is_on_record():
    """What has learned nothing never gets a yes; masks that are the object get it where they must."""
    asked, page = RECORDS["verdict_controls"], PAGES["attnet/masks/README.md"]
    untrained, knowing = (asked["networks"][name]["answers"] for name in ("untrained", "the object's own mask"))
    for key, question in QUESTIONS.items():
        shipped = (RECORDS[f"verdict_{name}"]["answers"][key] for name in ("shapes", "cifar10"))
        cells = [_told(answer) for answer in (untrained[key], knowing[key], *shipped)]
        assert f"| {question.words} | {' | '.join(cells)} |" in page
        assert untrained[key]["verdict"] in ("no", "does not apply")
    said = {key: answer["verdict"] for key, answer in knowing.items()}
    assert said.pop("learned") == "no" and said.pop("polarity") != "no" and set(said.values()) == {"yes"}
    assert {network["images"] for network in asked["networks"].values()} == {500} and "500 images of `shapes`" in page


def test_what_is_said_of_the_study_of_masks_is_on_record():
    record = RECORDS["ablation_masks"]
    budget, rows = record["budget"], record["rows"]
    assert [row["against"] for row in rows] == ["masks"] * 3 and budget["seeds"] == [0, 1, 2]
    for page in (README, PAGES["attnet/study/README.md"]):
        assert f"{record['baseline']['mean']:.2f} %" in page
        for row in rows:
            numbers = (f"{row['difference'][part]:+.2f}".replace("-", "−") for part in ("mean", "low", "high"))
            assert "{} ({} to {})".format(*numbers) in page
    steps = budget["train_images"] // budget["train_batch_size"] * budget["total_epochs"]
    assert f"{steps} steps" in README and f"{budget['train_images']:,} images" in README
    assert f"{budget['test_images']:,} test images" in README


def test_what_is_said_of_the_paper_s_choices_is_on_record():
    """Every row with its answer: an interval that holds 0 is no answer."""
    record = RECORDS["ablation_choices"]
    budget, default, rows = record["budget"], record["baseline"], {row["name"]: row for row in record["rows"]}
    assert {name: row["against"] for name, row in rows.items()} == dict.fromkeys(
        ("naive", "no masks", "paper sums"), "default"
    )
    assert budget["seeds"] == [0, 1, 2] and default["result"]["images"] == {
        **{"train": 50_000, "train_total": 50_000, "test": 10_000, "test_total": 10_000}
    }
    (said,) = re.findall(r"(?m)^- `ablation_choices\.json`.*$", PAGES["attnet/study/README.md"])
    for page in (said, README):
        assert f"{budget['total_epochs']} epochs of all 50,000 images" in page and "all 10,000 test images" in said
    sizes = default["result"]["parameters"]["image_sizes"].replace(",", ", ").rpartition(", ")
    assert f"`{budget['model']}`" in said and f"({sizes[0]} and {sizes[2]} pixels; " in said
    assert f"{default['mean']:.2f} % ({default['low']:.2f} to {default['high']:.2f})" in said
    for name, row in rows.items():
        gap = row["difference"]
        mean, low, high = (f"{gap[part]:+.2f}".replace("-", "−") for part in ("mean", "low", "high"))
        answer = "cannot tell" if gap["low"] <= 0 <= gap["high"] else "lower" if gap["high"] < 0 else "higher"
        assert f"{mean} ({low} to {high}): **{answer}**" in said, name
        assert name != "no masks" or f"{mean} ({low} to {high}) points" in README
    leads = {name: sorted(row["difference"]["by_seed"].values()) for name, row in rows.items()}
    least, _, most = leads["naive"]
    assert f"each leads with every seed (naive by {least:.2f} to {most:.2f} points, " in said
    for name, words in (("no masks", "no masks by"), ("paper sums", "the authors' sums by")):
        assert f"{words} {leads[name][0]:.2f} to {leads[name][-1]:.2f}" in said
    assert all(lead[0] > 0 for lead in leads.values())
    whole = RECORDS["attention56_cifar_cpu"]
    reached = next(number for number, row in enumerate(whole["history"], 1) if row["top1"] > 88)
    spent = sum(row["processor_seconds"] for row in whole["history"][:reached]) / 3600
    assert f"in epoch {reached} of {whole['epochs']}, after {spent:.1f} processor hours" in said
    assert f"twelve such trainings take {12 * whole['processor_seconds'] / 3600:.0f}" in said
