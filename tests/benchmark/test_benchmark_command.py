"""The command: flags, mistakes as sentences, results as tables and side by side."""

import json

import pytest
import torch

from attnet.base.device import choose
from attnet.base.errors import ConfigError
from attnet.base.host import environment
from attnet.benchmark import command
from attnet.benchmark.command import main, make_parser, measure
from attnet.benchmark.loops import Setting
from attnet.benchmark.tables import busy, compare, result_table

TINY = "attention56_tiny"


@pytest.mark.parametrize(
    ("words", "kind"),
    [("", "steps"), ("--sweep --batch_size 32", "steps"), ("--profile", "profile"), ("--epoch", "epoch"),
     ("--growth --curves memory", "growth")],
)  # fmt: skip
def test_the_flags_say_what_is_measured(words, kind):
    assert make_parser().parse_args(words.split()).kind == kind


def test_lists_are_separated_by_commas(capsys):
    options = make_parser().parse_args(["--model", "a, b", "--batch_size", "8,16", "--device_num", "1"])
    assert (options.model, options.batch_size, options.device_num) == (["a", "b"], [8, 16], [1])
    for bad in (["--batch_size", "8,"], ["--batch_size", "x"], ["--growth_ranks", "0,1"], ["--amp", ""],
                ["--epoch", "--growth"]):  # fmt: skip
        with pytest.raises(SystemExit):
            make_parser().parse_args(bad)
    said = capsys.readouterr().err
    assert "'0,1': numbers from 1 on" in said and "--growth: not allowed with argument --epoch" in said


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("--epoch --batch_size 8,16", "--batch_size 8,16: --epoch takes one value"),
        ("--growth --device_num 1,2", "--device_num 1,2: --growth takes one value"),
        ("--growth --curves speed", "curves='speed': choose from images, memory, start_up, ranks"),
        ("--resume", "--resume: it goes on with the sweep in --output"),
        ("--sweep --rounds 0", "rounds=0: at least 1"),
        ("--sweep --output {}", "give a file that ends in .json"),
        ("--compare {0}/a.json {0}/b.json", "a.json: cannot be read: no such file"),
    ],
)
def test_a_mistake_is_a_sentence(words, message, capsys, tmp_path):
    assert main(words.format(tmp_path).split()) == 2
    said = capsys.readouterr().err
    assert message in said and said.startswith("attnet: ")


def test_a_notebook_measures_as_the_command_line_does(monkeypatch, tmp_path):
    asked = []
    monkeypatch.setattr(command.profile, "measure", lambda options: asked.append(options) or {"kinds": {}})
    result = measure("--profile", model=TINY, device_type="CPU", output=tmp_path / "new" / "x.json")
    assert result == json.loads((tmp_path / "new" / "x.json").read_text())
    assert (asked[0].model, asked[0].memory_format, asked[0].rounds) == (TINY, "channels_last", 9)
    assert list(result)[:3] == ["kind", "what", "model"] and result["compile"] == "off"
    assert result["command"].startswith(f"attnet benchmark --profile --model={TINY} --device_type=CPU --output=")


# ---- tables, and side by side ----


def steps_result(**speeds: float | None) -> dict:
    rows = []
    for name, speed in speeds.items():
        row = Setting(TINY, int(name.removeprefix("batch"))).to_dict()
        rows.append(
            row | ({"error": "no"} if speed is None else {"images_per_second": speed, "peak_memory_bytes": 1e9})
        )
    return {"kind": "steps", "rows": rows, "environment": environment(choose("CPU")), "date": "2026-01-02"}


def epoch_result(ours: list[float], workers: int = 2) -> dict:
    parts = {"ours": {"train": ours, "test": [1.0]}, "plain": {"train": [8.0], "test": [2.0]}}
    return {
        "kind": "epoch", "what": "an epoch", "model": TINY, "batch_size": 8, "workers": workers, "parts": parts,
        "seconds": {"ours": [value + 1 for value in ours], "plain": [10.0]}, "top1": {"ours": [90.0], "plain": [80.0]},
        "ratio": {"median": 5.0, "low": 4.0, "high": 6.0}, "environment": environment(choose("CPU")),
    }  # fmt: skip


def growth_result(slope: float, batch_size: int = 8) -> dict:
    fit = {"slope": slope, "intercept": 1.0, "r2": 1.0}
    curve = {"x": [1000, 2000], "y": [[slope, slope + 1], [2 * slope]], "median": [slope + 0.5, 2 * slope], "fit": fit}
    single = {"x": [8], "y": [[7.0]], "median": [7.0], "fit": None}
    return {
        "kind": "growth", "what": "cost", "images": curve | {"batch_size": batch_size}, "memory": single,
        "environment": environment(choose("CPU")),
    }  # fmt: skip


def rows_of(text: str, begins: str) -> list[list[str]]:
    lines = [line for line in text.splitlines() if line.startswith(f"| {begins}")]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]


def test_two_sweeps_are_matched_by_configuration():
    a, b = steps_result(batch8=10.0, batch16=300.0, batch32=5.0), steps_result(batch16=450.0, batch64=1.0, batch8=None)
    text = compare(a, b)
    assert [row[1:] for row in rows_of(text, TINY)] == [
        ["10", "–", "–"], ["1", "–", "–"], ["300", "450", "1.50"], ["1", "1", "1.00"],
    ]  # fmt: skip
    assert f"Only in A: {Setting(TINY, 32)}: images/s; " in text and f"Only in B: {Setting(TINY, 64)}" in text
    assert "Warning" not in text
    assert f"A: {a['environment']['device']}, torch {torch.__version__}, 2026-01-02" in text


def test_another_machine_is_told():
    a, b = steps_result(batch8=10.0), steps_result(batch8=20.0)
    b["environment"] = b["environment"] | {"torch": "1.0", "device": "abacus"}
    text = compare(a, b)
    assert f"Warning: torch differs: {torch.__version__} in A, 1.0 in B" in text
    assert "Warning: device differs" in text and "Warning: threads" not in text


def test_epochs_side_by_side():
    b = epoch_result([2.0], workers=4) | {"ratio": {"median": 7.0, "low": 7.0, "high": 7.0}}
    text = compare(epoch_result([3.0, 4.0, 9.0]), b)
    assert "Warning: workers differs: 2 in A, 4 in B" in text
    assert rows_of(text, "ours, s training") == [["ours, s training", "4", "2", "0.50"]]
    assert rows_of(text, "plain / ours") == [["plain / ours", "5", "7", "1.40"]]
    assert text.count("Warning") == 1, "what is measured is no condition"


def test_growth_side_by_side():
    b = growth_result(6.0, batch_size=16)
    del b["memory"]
    text = compare(growth_result(3.0), b)
    assert rows_of(text, "images, ") == [
        ["images, x = 1,000", "3.5", "6.5", "1.86"], ["images, x = 2,000", "6", "12", "2.00"],
        ["images, slope", "3", "6", "2.00"],
    ]  # fmt: skip
    assert "Warning: images: batch_size differs: 8 in A, 16 in B" in text and "Only in A: memory" in text


def test_epochs_and_growth_as_tables():
    assert "| whole epoch" in result_table(epoch_result([3.0])) and "5 (4–6)" in result_table(epoch_result([3.0]))
    text = result_table(growth_result(3.0))
    assert "1 + 3 x, r² = 1.0000" in text and "| memory" in text and "no line: less than three points" in text


@pytest.mark.parametrize(
    ("a", "b", "message"),
    [
        (steps_result(), growth_result(1.0), "A is of kind 'steps', B of kind 'growth'"),
        ({"kind": "losses"}, {"kind": "losses"}, "results of kind 'losses' are not compared; give two of steps"),
        ({}, {}, "kind None"),
    ],
)
def test_only_the_same_kind_compares(a, b, message):
    with pytest.raises(ConfigError, match=message):
        compare(a, b)


def test_files_are_compared_from_the_command_line(tmp_path, capsys):
    for name, speed in (("a", 10.0), ("b", 30.0)):
        (tmp_path / f"{name}.json").write_text(json.dumps(steps_result(batch8=speed)))
    assert main(["--compare", str(tmp_path / "a.json"), str(tmp_path / "b.json")]) == 0
    assert "| 3.00 |" in capsys.readouterr().out.replace("  ", " ")
    (tmp_path / "b.json").write_text("[1]")
    assert main(["--compare", str(tmp_path / "a.json"), str(tmp_path / "b.json")]) == 2
    assert "b.json: holds a list where an object is needed" in capsys.readouterr().err


def test_a_busy_machine_is_told_by_its_slowest_step():
    row = {"model": "attention92", "batch_size": 16, "amp": "O0", "channels_last": False, "compile": "off"}
    row |= {"device_num": 1, "implementation": "ours"}

    def steps(high: float) -> dict:
        return {"kind": "steps", "rows": [row | {"step_seconds": {"low": 0.1, "median": 0.2, "high": high}}]}

    assert busy(steps(0.29)) == "" == busy({"kind": "growth"})
    assert "busy" in busy(steps(0.42)) and "4.2 times" in busy(steps(0.42)) and "attention92" in busy(steps(0.42))
