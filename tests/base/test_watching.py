"""The picture of a running training: when it is drawn, what from, and that it never costs the training anything."""

from __future__ import annotations

import itertools
from types import SimpleNamespace

import pytest
import torch

from attnet.base import watching
from attnet.base.watching import FIRST, SHARE, Sight, Watch

COST = 0.5  # seconds


class Drawn:
    """Somebody who draws, slowly; `seen` are the numbers of losses and rows at each look."""

    def __init__(self, clock: list[float]) -> None:
        self.clock, self.noted, self.seen = clock, [], []

    def note(self, sight: Sight) -> None:
        self.noted.append((len(sight.losses), len(sight.rows)))

    def picture(self, sight: Sight) -> str:
        self.clock[0] += COST
        self.seen.append((len(sight.losses), len(sight.rows)))
        return f"picture {len(self.seen)}"


@pytest.fixture
def clock(monkeypatch) -> list[float]:
    now = [0.0]
    monkeypatch.setattr(watching.time, "perf_counter", lambda: now[0])
    return now


@pytest.fixture
def cell(monkeypatch) -> list[str]:
    """What a cell shows, one after the other."""
    shown: list[str] = []

    def display(picture: str, display_id: bool) -> SimpleNamespace:
        shown.append(picture)
        return SimpleNamespace(update=shown.append)

    monkeypatch.setattr("IPython.display.display", display)
    return shown


def train(watch: Watch, clock: list[float], epochs: int, steps: int, seconds: float) -> None:
    watch.start(0, epochs * steps, steps)
    for epoch in range(1, epochs + 1):
        for _ in range(steps):
            clock[0] += seconds
            watch.step(torch.tensor(1.0))
        watch.end_epoch([{"epoch": e} for e in range(1, epoch + 1)])


def test_the_first_picture_comes_within_the_first_epoch_and_all_take_their_share_at_most(clock, cell):
    drawn = Drawn(clock)
    train(Watch(drawn, print, live=True), clock, epochs=2, steps=500, seconds=0.1)
    assert drawn.seen[0] == (round(FIRST / 0.1), 0)
    within = [losses for losses, rows in drawn.seen if losses not in (500, 1000)]
    assert all(later - earlier >= COST / SHARE / 0.1 - COST / 0.1 - 1 for earlier, later in itertools.pairwise(within))
    assert drawn.seen[-1] == (1000, 2) and cell[-1] == f"picture {len(drawn.seen)}"
    assert drawn.noted[0] == (0, 0), "the untrained network"


def test_where_nobody_looks_one_picture_is_shown_at_the_end(clock, cell):
    drawn = Drawn(clock)
    train(Watch(drawn, print, live=False), clock, epochs=3, steps=40, seconds=0.1)
    assert drawn.seen == [(120, 3)]
    assert cell == ["picture 1"]
    assert [rows for _, rows in drawn.noted] == [0, 1, 2, 3]


def test_a_picture_that_fails_costs_no_training(clock, cell):
    said = []
    drawn = SimpleNamespace(note=lambda sight: 1 / 0, picture=len)
    train(Watch(drawn, said.append, live=True), clock, epochs=2, steps=50, seconds=0.1)
    assert said == ["no picture of this training: ZeroDivisionError: division by zero"]
    assert cell == []
