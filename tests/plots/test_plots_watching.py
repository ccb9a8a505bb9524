"""A run under a notebook's cell: what is shown, how it follows, and the button that stops it."""

import json
from types import SimpleNamespace

import pytest
from made import ROW, begun_run, wait_until

from attnet.engine.status.watched import watched
from attnet.plots.viewer import watching
from attnet.plots.viewer.watching import WatchView, view


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    monkeypatch.setattr(watching, "EVERY", 0.02)
    monkeypatch.setattr(watching, "SHARE", 1.0)


@pytest.fixture
def run(tmp_path):
    return begun_run(tmp_path / "run", size=2)


@pytest.fixture
def live(run):
    what = watched(run)
    what.look()
    shown = WatchView(what)
    yield shown
    shown.close()


def test_where_nobody_looks_it_is_one_look(run):
    page = view(watched(run))
    assert "epoch 3 of 10, step 5 of 10 · 32 images/s" in repr(page), "in a plain Python too"
    html = page._repr_html_()
    assert "data:image/png;base64," in html and "epoch 3 of 10, step 5 of 10" in html and "epoch 2/10" in html


def test_it_follows_the_run_until_that_ends(live, run):
    assert "epoch 3 of 10" in live.head.value and "process" in live.ranks.value
    picture = live.picture.value
    with open(run / "metrics.jsonl", "a") as file:
        file.write(json.dumps(ROW | {"epoch": 3}) + "\n")
    wait_until(lambda: live.picture.value != picture, 20)
    assert "epoch 2/10" in live.lines.value
    (run / "result.json").write_text("{}")
    wait_until(live.over.is_set, 20)
    assert "finished" in live.head.value and live.stop.layout.display == "none"


def test_the_button_asks_before_it_stops_the_run(live, run):
    live.stop.click()
    assert live.sure in live.buttons.children and not (run / "stop").exists()
    live.no.click()
    assert live.buttons.children[0] is live.stop and not (run / "stop").exists()
    live.stop.click()
    live.sure.click()
    assert (run / "stop").exists() and "asked to stop" in live.note.value
    wait_until(lambda: "asked to stop" in live.head.value, 20)


def test_an_interrupted_cell_ends_it_and_no_other_does(live):
    live._after_a_cell(SimpleNamespace(error_in_exec=ValueError()))
    assert not live.over.is_set()
    live._after_a_cell(SimpleNamespace(error_in_exec=KeyboardInterrupt()))
    assert live.over.is_set() and "the run goes on" in live.note.value


def test_a_folder_that_is_taken_away_is_a_sentence(live, run):
    run.rename(run.with_name("elsewhere"))
    wait_until(live.over.is_set, 20)
    assert "no run is there" in live.note.value


def test_nothing_of_a_file_is_markup(tmp_path):
    run = begun_run(tmp_path / "<b>run", ended="<script>alert(1)</script>", size=2)
    (run / "config.json").write_text(json.dumps({"model": "<img src=x>", "dataset": "<i>"}))
    (run / "log.txt").write_text("<script>alert(2)</script>\n")
    html = view(watched(run))._repr_html_()
    assert "<script" not in html and "<img src=x>" not in html and "<i>" not in html and "<b>run" not in html


def test_figures_that_cannot_be_drawn_are_a_sentence(tmp_path):
    run = begun_run(tmp_path / "run")
    rows = [ROW | {"train_loss": 1e-300, "trace": [1e18, 2e18]}, ROW | {"epoch": 2, "top1": -1e18}]
    (run / "metrics.jsonl").write_text("\n".join(map(json.dumps, rows)))
    html = view(watched(run))._repr_html_()
    assert "no picture: " in html or "data:image/png" in html


def test_several_runs_are_a_table(tmp_path):
    begun_run(tmp_path / "lr=0.1" / "abc-seed0")
    begun_run(tmp_path / "lr=0.2" / "abc-seed0", ended="stopped")
    html = view(watched(tmp_path))._repr_html_()
    assert "lr=0.1/abc-seed0" in html and "2 runs: 1 stopped, 1 running" in html
