"""The study whether masks are needed: what it changes, and what each row costs."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from attnet.model.anatomy import totals
from attnet.study.ask import _described as described
from attnet.study.ask import lay_out
from attnet.study.needed import MASKS, NEEDED


@pytest.mark.parametrize("size", ["rehearsal", "full"])
def test_every_row_goes_on_from_the_same_weights_with_other_masks(size):
    base = NEEDED.base(size, {"device_type": "CPU"})
    rows = NEEDED.rows(base, size, ())
    assert (
        base.is_pretrain and base.pretrained == {"rehearsal": "attention56_shapes", "full": "attention56_cifar"}[size]
    )
    assert [row.changes["attention"] for row in rows] == ["mixed", "gain", "constant", "none"]
    assert [row.against for row in rows] == ["", MASKS, MASKS, MASKS]
    assert [row.name for row in NEEDED.rows(base, size, ("none",))] == [MASKS, "none"]


def test_the_cost_of_a_row_is_that_of_its_network():
    def costs(attention: str) -> dict:
        parameters = {"model": "attention56_tiny", "num_classes": 10, "attention": attention}
        return NEEDED.measure({3: SimpleNamespace(parameters=parameters, history=[{"top1": 80.0}, {"top1": 90.0}])})

    found = {attention: costs(attention) for attention in ("mixed", "gain", "constant", "none")}
    assert found["mixed"] == {"flops": totals("attention56_tiny").flops, "first_epoch": {"3": 80.0}}
    assert found["gain"]["flops"] == found["mixed"]["flops"] > found["constant"]["flops"] == found["none"]["flops"]


def test_a_row_none_of_whose_runs_came_to_an_end_has_no_costs(tmp_path):
    """Its failures are told with the others' figures; asking what nobody knows would lose these."""
    asked = lay_out("masks", folder=str(tmp_path), device_type="CPU")
    none, config = {row.name: {} for row in asked.rows}, asked.sweep.configs["gain"]
    (row,) = (row for row in asked.rows if row.name == "gain")
    told = described(NEEDED, row, config, none, (0,))
    assert "flops" not in told and told["against"] == MASKS and told["difference"]["mean"] is None
