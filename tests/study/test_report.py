"""The table of results: its form, which rows it shows, its files, and the command."""

import csv
import io
import json
import os
import sys
from pathlib import Path

import pytest
from made import make_result, of_data, save
from PIL import Image

from attnet.base.errors import AttnetError, ConfigError
from attnet.base.files import paths
from attnet.base.words import as_csv
from attnet.report import main
from attnet.study.published import DOCUMENT
from attnet.study.readme import MARKERS, readme_table, write_readme
from attnet.study.report import collect, scaling
from attnet.study.rows import Row
from attnet.study.tables import COLUMNS, csv_table, frame, result_table

FIELDS = [column.name for column in COLUMNS]
TITLES = [column.title for column in COLUMNS if column.title]

ALL = of_data("cifar10", 50_000)


def parse(text: str) -> list[dict[str, str]]:
    """The rows of the first Markdown table of a text by column name."""
    lines = [line for line in text.split("\n\n")[0].splitlines() if line.startswith("|")]
    assert len({len(line) for line in lines}) == 1, "columns are not aligned"
    names, _, *rows = ([cell.strip() for cell in line.strip("|").split("|")] for line in lines)
    assert names == TITLES
    return [dict(zip(names, cells, strict=True)) for cells in rows]


@pytest.fixture
def runs(tmp_path) -> Path:
    """Three finished runs; the newest by time is neither first nor last by name."""
    for age, (name, top1, data) in enumerate(
        [("m/newest", 70.0, of_data("shapes", 2_000)), ("a/oldest", 50.0, ALL), ("z/middle", 60.0, ALL)]
    ):
        rows = [{"epoch": 1, "top1": top1, "test_loss": 1.0, "seconds": 1.0}]
        folder = save(make_result(top1=top1, history=rows, **data), tmp_path / "runs" / name)
        os.utime(folder / "result.json", (1e9, 1e9 - {0: 0, 1: 200, 2: 100}[age]))
    (tmp_path / "runs" / "b" / "unfinished").mkdir(parents=True)
    (tmp_path / "runs" / "b" / "unfinished" / "metrics.jsonl").write_text("")
    return tmp_path / "runs"


# -- the table -----------------------------------------------------------------------------------------------------


def test_a_measured_row():
    result = make_result(fps=12345.6, output_dir=Path("runs/x"), **ALL)
    [row] = parse(result_table([result]))
    assert list(row.values()) == [
        *("measured", "71.25", "12,346", "3", "O2", "gpu_1p", "64"),
        *("attention56_tiny", "cifar10, 50,000 images", "measured: runs/x"),
    ]


def test_what_a_source_does_not_give_is_a_dash_and_zero_is_not():
    nothing = Row("published", "x", "somewhere", "attention92", "cifar10")
    zero = Row("measured", "x", "x", "attention92", "cifar10", top1=0.0, fps=0.0, epochs=0, amp="O0", batch_size=1)
    first, second = parse(result_table([nothing, zero]))
    assert [first[name] for name in TITLES[1:7]] == ["–"] * 6
    assert [second[name] for name in TITLES[1:5]] == ["0.00", "0", "0", "O0"]


def test_a_mean_has_its_interval():
    row = Row("measured", "x", "x", "attention92", "cifar10", top1=71.0, low=58.29, high=83.71, seeds=2)
    assert parse(result_table([row]))[0]["Top-1 (%)"] == "71.00 ± 12.71"


def test_the_documents_rows_are_its_table():
    rows = parse(result_table(DOCUMENT))
    assert [" ".join(row[name] for name in TITLES[:7]) for row in rows] == [
        "published – 1,432 1 O2 npu_1p 512",
        "published 85.48 9,587 300 O2 npu_8p 512",
        "published – 1,396 1 O2 gpu_1p 512",
        "published 85.37 8,342 300 O2 gpu_8p 512",
        "published 94.13 723 300 O2 npu_8p 32",
        "published 94.32 2,461 300 O2 gpu_8p 32",
    ]


def test_a_spreadsheet_runs_nothing_that_a_file_says():
    text = as_csv(["@name", "top1"], [["=cmd|' /C calc'!A0", -1.5], ["-foo", 90], ["cat", None]])
    assert list(csv.reader(io.StringIO(text))) == [
        ["'@name", "top1"],
        ["'=cmd|' /C calc'!A0", "-1.5"],
        ["'-foo", "90"],
        ["cat", ""],
    ]


def test_csv_holds_every_figure_unrounded():
    rows = [Row("measured", "x", "runs/x", "attention92", "cifar10, 50,000 images", top1=71.123456, fps=1234.5),
            Row.of_published(DOCUMENT[1])]  # fmt: skip
    first, second = csv.DictReader(io.StringIO(csv_table(rows)))
    assert list(first) == FIELDS
    assert (first["kind"], first["top1"], first["fps"], first["dataset"]) == (
        "measured", "71.123456", "1234.5", "cifar10, 50,000 images",
    )  # fmt: skip
    assert (first["epochs"], second["epochs"], second["kind"]) == ("", "300", "published")
    assert second["source"].startswith("published: the document")
    table = frame(rows, every=True)
    assert list(table.columns) == FIELDS and table.top1.max() == DOCUMENT[1].top1
    assert list(table[table.kind == "published"].epochs) == [300]


# -- what is shown -------------------------------------------------------------------------------------------------


def test_everything_is_shown_by_default_and_no_run_is_needed(tmp_path):
    found = collect([str(tmp_path)])
    assert {row.kind for row in found.rows} >= {"measured", "published", "rehearsal"}
    assert found.others and not found.warnings


@pytest.mark.parametrize(
    ("where", "tops"),
    [
        ("kind=measured", [60.0, 50.0]),
        ("kind=measured,rehearsal", [60.0, 50.0, 70.0]),
        ("dataset=shapes", [70.0]),
        ("dataset=cifar* model=attention56_tiny", [60.0, 50.0]),
        ("device=gpu name=middle,newest", [60.0, 70.0]),
        ("device=gpu_1p batch_size=64 amp=O2 epochs=3", [60.0, 50.0, 70.0]),
        ("device=npu", []),
        ("model=attention56", []),
    ],
)
def test_where_chooses_rows(runs, where, tops):
    rows = collect([str(runs)], results="", published="", where=where).rows
    assert [row.top1 for row in rows] == tops


def test_a_network_is_asked_for_with_or_without_its_options():
    def models(where: str) -> set[str]:
        return {row.model for row in collect([], results="", published="all", where=where).rows}

    naive = "attention56_cifar with combine=naive"
    assert {"attention56_cifar", naive} < models("model=attention56_cifar")
    assert models("'model=attention56_cifar with combine=naive'") == {naive}


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ({"where": "top1=3"}, "where='top1=3': name=value is needed, with a name of kind, name, "),
        ({"where": "shapes"}, "where='shapes': name=value"),
        ({"where": "name='mine"}, "a quotation mark has no partner"),
        ({"sort": "size"}, "sort='size': choose one of network, top1"),
        ({"published": "some"}, "published='some': choose beside, all"),
    ],
    ids=["name", "no-value", "quotation", "sort", "published"],
)
def test_what_cannot_be_chosen_is_a_sentence(words, message):
    with pytest.raises(ConfigError, match=message):
        collect([], results="", **words)


def test_scaling_is_told_by_the_newest_run_alike_on_one_card(tmp_path):
    assert scaling(make_result(), tmp_path) == "one card: nothing to compare"
    environment = {"device": "H100"}
    both = {"rank_fps": [900.0, 700.0], "rank_forward": [0.01, 0.03]}
    eight = make_result(fps=1600.0, environment=environment, history=[both, both])
    assert scaling(eight, tmp_path).splitlines()[1:] == [
        "forward pass of each card, waiting for nobody: 10, 30 ms",
        "slowest over mean: 1.50 (card 1)",
        "scaling efficiency: unknown, since no one-card run with the same settings is below runs/",
    ]
    for name, changes in {"alike": {}, "other": {"amp": "O0", "fps": 9.0}}.items():
        save(make_result(**{"fps": 1000.0, "environment": environment} | changes), tmp_path / name)
    last = scaling(eight, tmp_path).splitlines()[-1]
    assert last == f"scaling efficiency: 0.800 of one card's 1,000 images/s ({tmp_path / 'alike'})"


# -- the command ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "tops"),
    [
        (["{0}"], ["60.00", "50.00", "70.00"]),
        (["--newest", "{0}"], ["70.00"]),
        (["--newest", "{0}/m", "{0}/a", "{0}/z"], ["70.00"]),
        (["{0}/z/middle", "{0}", "--sort", "top1"], ["70.00", "60.00", "50.00"]),
        (["{0}", "--where", "kind=measured", "--where", "name=mid*"], ["60.00"]),
    ],
    ids=["all", "newest", "newest-of-several", "overlapping-sorted", "where"],
)
def test_the_runs_that_are_named(runs, capsys, arguments, tops):
    assert main([argument.format(runs) for argument in arguments]) == 0
    rows = parse(capsys.readouterr().out)
    assert [row["Top-1 (%)"] for row in rows] == tops
    assert all(row["Source"].startswith(row["Kind"]) for row in rows)


def test_published_rows_and_records_come_beside_never_instead(runs, capsys):
    assert main([str(runs), "--published", "--results"]) == 0
    out = capsys.readouterr().out
    kinds = [row["Kind"] for row in parse(out)]
    assert {"published", "measured", "rehearsal"} == set(kinds)
    assert all(f"runs/{name}" in out for name in ("m/newest", "a/oldest", "z/middle"))
    assert "record train_1p_tiny_cifar10" in out and "| kill_harness " in out
    assert main([str(runs), "--published", "all", "--where", "kind=published"]) == 0
    assert "combine=naive" in capsys.readouterr().out


def test_without_arguments_everything_is_shown(runs, capsys, monkeypatch):
    monkeypatch.setattr(paths, "repository_root", lambda: runs.parent)
    assert main([]) == 0
    kinds = [row["Kind"] for row in parse(capsys.readouterr().out)]
    assert (kinds.count("measured"), kinds.count("rehearsal")) == (2, 1) and "published" in kinds


def test_files(runs, capsys, tmp_path):
    assert main([str(runs), "--output", str(tmp_path / "new" / "x.csv"), "--curves", str(tmp_path / "x.png")]) == 0
    assert capsys.readouterr().out == f"3 rows: {tmp_path / 'new' / 'x.csv'}\n"
    assert [row["top1"] for row in csv.DictReader((tmp_path / "new" / "x.csv").open())] == ["60.0", "50.0", "70.0"]
    assert Image.open(tmp_path / "x.png").width > 900
    assert main([str(runs), "--results", "--output", str(tmp_path / "x.md")]) == 0
    assert "Records that are no rows" in (tmp_path / "x.md").read_text()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["{0}/b"], "no finished run (result.json) below {0}/b; make one with `make run`"),
        (["{0}/b", "--published"], "no finished run (result.json) below {0}/b; make one with `make run`"),
        (["{0}", "--where", "device=npu"], "where='device=npu': no row is so; without --where all are shown"),
        (["--results", "{0}"], "results={0}: no record (*.json) that gives a row is there"),
        (["{0}", "--output", "{0}/x.txt"], "output='{0}/x.txt': give a file that ends in .md or .csv"),
        (["{0}", "--output", "{0}"], "output='{0}': give a file that ends in .md or .csv"),
    ],
    ids=["no-run", "published-alone", "where", "no-record", "ending", "folder"],
)
def test_what_cannot_be_done_is_a_sentence(runs, capsys, arguments, message):
    assert main([argument.format(runs) for argument in arguments]) == 2
    out, err = capsys.readouterr()
    assert (out, err) == ("", f"attnet: {message.format(runs)}\n")


def test_a_picture_that_cannot_be_written_is_a_sentence(runs, capsys):
    assert main([str(runs), "--curves", str(runs / "x.docx")]) == 2
    assert f"attnet: curves={runs / 'x.docx'}: it cannot be written" in capsys.readouterr().err


def test_a_damaged_run_is_left_out_and_named(runs, capsys):
    (runs / "a" / "oldest" / "result.json").write_text("{")
    assert main([str(runs)]) == 0
    out, err = capsys.readouterr()
    assert len(parse(out)) == 2
    assert err.startswith(f"attnet: left out: {runs / 'a' / 'oldest'}: not a finished run's folder")
    assert main([str(runs / "a")]) == 2


@pytest.mark.parametrize(
    ("file", "text", "says"),
    [
        ("result.json", '{"top1": "many"}', "top1 is text where float is needed"),
        ("result.json", "[" * 9999, "nested too deeply"),
        ("result.json", "[]", "holds a list"),
        ("metrics.jsonl", '{"epoch": 1}', "line 1: lacks top1"),
        ("metrics.jsonl", '{"epoch": "one", "top1": 1}', "epoch is text where int is needed"),
    ],
)
def test_one_damaged_file_is_left_out_and_the_others_are_shown(runs, capsys, file, text, says):
    (runs / "a" / "oldest" / file).write_text(text)
    assert main([str(runs)]) == 0
    out, err = capsys.readouterr()
    assert len(parse(out)) == 2 and says in err


def test_parameters_of_another_type_are_damage(runs, capsys):
    file = runs / "a" / "oldest" / "result.json"
    content = json.loads(file.read_text())
    content["parameters"]["test_images"] = "all"
    file.write_text(json.dumps(content))
    assert main([str(runs)]) == 0
    out, err = capsys.readouterr()
    assert len(parse(out)) == 2 and "test_images='all'" in err


def test_no_file_makes_a_report_import_anything(runs, tmp_path, monkeypatch):
    """Neither a run nor a record, wherever it names a unit of somebody's."""
    (tmp_path / "evil.py").write_text("raise SystemExit('imported')")
    monkeypatch.syspath_prepend(tmp_path)
    for file in runs.rglob("result.json"):
        content = json.loads(file.read_text())
        content["parameters"] |= {"unit": "evil:Unit"}
        file.write_text(json.dumps(content))
    records = tmp_path / "records"
    records.mkdir()
    row = {"name": "a", "changed": {"unit": "evil:Unit"}, "mean": 5.0, "top1": [5.0]}
    row["result"] = json.loads(next(runs.rglob("result.json")).read_text())
    content = {"kind": "ablation", "rows": [row], "environment": {}, "date": "2026-01-01"}
    (records / "study.json").write_text(json.dumps(content))
    assert main([str(runs), "--results", str(records), "--published", "all"]) == 0
    assert "evil" not in sys.modules


# -- the README ----------------------------------------------------------------------------------------------------


def test_the_readmes_table_holds_no_rehearsal_and_replaces_the_one_before(tmp_path, monkeypatch):
    table = readme_table()
    rows = parse(table)
    assert {row["Kind"] for row in rows} == {"measured", "published"}
    timed = {row["Network"] for row in rows if row["Kind"] == "measured" and row["Top-1 (%)"] == "–"}
    assert timed == {"attention92"}, "throughput stands there only where it is published, too"
    ours = [(row["Network"], row["Device"], row["Top-1 (%)"] == "–") for row in rows if row["Kind"] == "measured"]
    assert len(set(ours)) == len(ours), "the best of each network and device"
    readme = tmp_path / "README.md"
    readme.write_text(f"before\n\n{MARKERS[0]}\nold\n{MARKERS[1]}\n\nafter\n")
    monkeypatch.setattr("attnet.study.readme.resolve_path", lambda path: tmp_path / path)
    monkeypatch.setattr("attnet.study.readme.readme_table", lambda: table)
    write_readme()
    write_readme()
    assert readme.read_text() == f"before\n\n{MARKERS[0]}\n\n{table}\n\n{MARKERS[1]}\n\nafter\n"
    readme.write_text("no markers")
    with pytest.raises(AttnetError, match="belongs between the lines"):
        write_readme()
