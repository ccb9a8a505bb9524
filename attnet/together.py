"""What takes two rooms: training, and a curve that grows under the cell of a notebook."""

from __future__ import annotations

from attnet.engine.fit import fit as _fit
from attnet.engine.fit import plan_run
from attnet.engine.launch import launch as _launch
from attnet.engine.parameters import TrainConfig
from attnet.engine.plan import Plan
from attnet.engine.result import Result


def fit(config: TrainConfig | Plan) -> Result:
    """Train (or, with is_train=False, only evaluate) as `config` says; see `attnet.engine.fit.fit`."""
    return _fit(config, draw=_curves)


def launch(config: TrainConfig | Plan) -> Result:
    """Train with `device_num` processes, one a card, through torchrun; see `attnet.engine.launch.launch`."""
    return _launch(config, draw=_curves)


def make_plan(config: TrainConfig) -> Plan:
    """What `fit` will do and why, before it is done; see `attnet.engine.fit.plan_run`."""
    return plan_run(config)


def _curves(rows: list[dict]) -> object:
    from attnet.plots import plot_curves  # here, since matplotlib takes a second to import

    return plot_curves(rows)
