"""The table of results: its form, its rows, and that measured and published figures stay apart."""

import os
from pathlib import Path

import pytest
from test_result import make_result, save

from attnet import paths, report
from attnet.report import COLUMNS, DOCUMENT, Row, main, result_table


def parse(table: str) -> list[dict[str, str]]:
    """The rows of a Markdown table by column name."""
    header, rule, *lines = table.splitlines()
    assert set(rule) == {"|", "-"}
    assert len({len(line) for line in table.splitlines()}) == 1, "columns are not aligned"
    names, *rows = ([cell.strip() for cell in line.strip("|").split("|")] for line in (header, *lines))
    assert tuple(names) == COLUMNS
    return [dict(zip(names, cells, strict=True)) for cells in rows]


@pytest.fixture
def runs(tmp_path) -> Path:
    """Three finished runs; the newest by time is neither first nor last by name."""
    for age, (name, top1) in enumerate([("m/newest", 70.0), ("a/oldest", 50.0), ("z/middle", 60.0)]):
        folder = save(make_result(top1=top1), tmp_path / name)
        os.utime(folder / "result.json", (1e9, 1e9 - {0: 0, 1: 200, 2: 100}[age]))
    (tmp_path / "b" / "unfinished").mkdir(parents=True)
    (tmp_path / "b" / "unfinished" / "metrics.jsonl").write_text("")
    return tmp_path


def test_a_measured_row():
    (row,) = parse(result_table([make_result(fps=12345.6, output_dir=Path("runs/x"))]))
    assert row == {
        "Top-1 (%)": "71.25",
        "FPS (images/s)": "12,346",
        "Epochs": "3",
        "AMP": "O2",
        "Device": "gpu_1p",
        "Bs": "64",
        "Network": "attention56_tiny",
        "Data": "cifar10, 2,000 of 50,000 images",
        "Source": "measured: runs/x",
    }


def test_what_a_source_does_not_give_is_a_dash_and_zero_is_not():
    nothing = Row(None, None, None, "", "gpu_1p", None, "attention92", "cifar10", "published: somewhere")
    zero = Row(0.0, 0.0, 0, "O0", "cpu_1p", 1, "attention92", "cifar10", "measured: x")
    first, second = parse(result_table([nothing, zero]))
    assert [first[name] for name in COLUMNS[:6]] == ["–", "–", "–", "–", "gpu_1p", "–"]
    assert [second[name] for name in COLUMNS[:4]] == ["0.00", "0", "0", "O0"]


def test_paths_inside_the_repository_are_shown_relative_to_it(monkeypatch, tmp_path):
    monkeypatch.setattr(paths, "repository_root", lambda: tmp_path)
    assert Row.of(make_result(output_dir=tmp_path / "runs" / "a")).source == "measured: runs/a"
    elsewhere = tmp_path.parent / "elsewhere"
    assert Row.of(make_result(output_dir=elsewhere)).source == f"measured: {elsewhere}"


def test_the_documents_rows_are_its_table():
    rows = parse(result_table(DOCUMENT))
    names = ("Top-1 (%)", "FPS (images/s)", "Epochs", "AMP", "Device", "Bs")
    assert [" ".join(row[name] for name in names) for row in rows] == [
        "– 1,432 1 O2 npu_1p 512",
        "85.48 9,587 300 O2 npu_8p 512",
        "– 1,396 1 O2 gpu_1p 512",
        "85.37 8,342 300 O2 gpu_8p 512",
        "94.13 723 300 O2 npu_8p 32",
        "94.32 2,461 300 O2 gpu_8p 32",
    ]


@pytest.mark.parametrize(
    ("arguments", "tops"),
    [
        (["{0}"], ["50.00", "60.00", "70.00"]),
        (["--newest", "{0}"], ["70.00"]),
        (["--newest", "{0}/m", "{0}/a", "{0}/z"], ["70.00"]),
        (["{0}/z/middle", "{0}"], ["50.00", "60.00", "70.00"]),
    ],
    ids=["all", "newest", "newest-of-several", "overlapping"],
)
def test_command_line_lists_finished_runs_oldest_first(runs, capsys, arguments, tops):
    assert main([argument.format(runs) for argument in arguments]) == 0
    rows = parse(capsys.readouterr().out)
    assert [row["Top-1 (%)"] for row in rows] == tops
    assert all(row["Source"].startswith("measured: ") for row in rows)


def test_published_rows_come_after_the_measured_ones_and_never_instead(runs, capsys):
    assert main([str(runs), "--published"]) == 0
    sources = [row["Source"].split(":")[0] for row in parse(capsys.readouterr().out)]
    assert sources == ["measured"] * 3 + ["published"] * len(DOCUMENT)


def test_without_arguments_it_looks_below_runs(runs, capsys, monkeypatch):
    monkeypatch.setattr(report, "resolve_path", lambda path: runs.parent / {"runs": runs.name}[str(path)])
    assert main([]) == 0
    assert len(parse(capsys.readouterr().out)) == 3


def test_no_finished_run_is_a_sentence_even_when_published_rows_are_asked_for(runs, capsys):
    assert main([str(runs / "b"), "--published"]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err == f"attnet: no finished run (result.json) below {runs / 'b'}; make one with `make run`\n"


def test_a_damaged_result_is_a_sentence_that_names_it(runs, capsys):
    (runs / "a" / "oldest" / "result.json").write_text("{")
    assert main([str(runs)]) == 2
    assert f"attnet: {runs / 'a' / 'oldest'}: not a finished run" in capsys.readouterr().err
