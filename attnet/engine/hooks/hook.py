"""Hooks: what a training tells of itself to a log besides its own files, as TensorBoard, W&B, aim or MLflow.

    attnet.fit(config, log=lambda row: run.log(row))   # every epoch's row of metrics.jsonl
    attnet.fit(config, log=Mine())                      # any of start, epoch and end: see `Hook`
    attnet train --log tensorboard ...                  # ours; --log package.module:name imports yours

Rank 0 alone calls them. One that fails is said once and called no more; the training goes on, and its random numbers
are as if there were none.
"""

from __future__ import annotations

import contextlib
import importlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from attnet.base.errors import ConfigError, say
from attnet.engine.hooks.names import NAMED, check_log

if TYPE_CHECKING:
    import numpy as np
    from torch import nn

    from attnet.engine.evaluation import Evaluation
    from attnet.engine.parameters import TrainConfig
    from attnet.engine.plan import Plan
    from attnet.engine.result import Result

    # Makes pictures of a network and its evaluation: name -> uint8 [H, W, 3].
    Pictures = Callable[[nn.Module, Evaluation], Mapping[str, np.ndarray]]


@dataclass(frozen=True)
class Seen:
    """What there is to see after an epoch.

    `network` is the one that was tested, a copy for inference on the training's device; `evaluation` what it said of
    the test images. `is_kept` where `keep_epochs` keeps this epoch's weights, and after the last. `pictures()` draws
    masks and confusion, name -> uint8 [H, W, 3], which takes seconds; nothing where nobody can draw here.
    """

    network: nn.Module
    evaluation: Evaluation
    is_kept: bool
    pictures: Callable[[], Mapping[str, np.ndarray]]


class Hook:
    """What is called, and when; a class of your own may have only some of these, and need not be derived from it."""

    def start(self, config: TrainConfig, folder: Path, done: int) -> None:
        """Before the first step. `folder` is the run's, `done` how many epochs are done already, after a resume:
        the next one may have been told of before."""

    def epoch(self, row: Mapping[str, object], seen: Seen) -> None:
        """After an epoch, when it is saved; `row` is that of metrics.jsonl."""

    def end(self, result: Result | None) -> None:
        """At the end; None where it was stopped or failed."""


class _Rows(Hook):
    """A function that takes a row."""

    def __init__(self, function: Callable[[Mapping[str, object]], object]) -> None:
        self.function = function

    def epoch(self, row: Mapping[str, object], seen: Seen) -> None:
        self.function(row)


def as_hook(log: object) -> object:
    """What was given as `log`, with start, epoch and end: a name, a hook, a class of them, or a function of rows.

    Raises:
        ConfigError: none of these, or what cannot be imported or made.
    """
    given = log
    if isinstance(log, str):
        check_log(log)
        given = _imported(NAMED[log][1] if log in NAMED else log, log)
    if isinstance(given, type):
        try:
            given = given()
        except Exception as error:  # the user's class may raise anything
            raise ConfigError(f"log={log!r}: cannot be made ({type(error).__name__}: {error})") from error
    if any(hasattr(given, name) for name in ("start", "epoch", "end")):
        return given
    if callable(given):
        return _Rows(given)
    raise ConfigError(f"log={log!r}: a function of an epoch's row is needed, or what has start, epoch or end")


def _imported(place: str, log: str) -> object:
    module, _, name = place.partition(":")
    try:
        return getattr(importlib.import_module(module), name)
    except Exception as error:  # the user's module may raise anything
        raise ConfigError(
            f"log={log!r}: cannot be imported ({type(error).__name__}: {error}); package.module:name is needed, its "
            "folder on PYTHONPATH"
        ) from error


class Hooks:
    """The hooks of one training.

    Args:
        hooks: as `as_hook` gives them.
        plan: of the training.
        pictures: makes who draws, from the plan; None where nobody does.
        say: is told of a hook that fails.
    """

    def __init__(
        self,
        hooks: Sequence[object],
        plan: Plan,
        pictures: Callable[[Plan], Pictures] | None = None,
        say: Callable[[str], None] = say,
    ) -> None:
        self.hooks, self.plan, self.make, self.say = list(hooks), plan, pictures, say
        self.draw: Pictures | None = None
        self.begun = False

    def start(self, folder: Path, done: int) -> None:
        self.begun = True
        self._call("start", self.plan.config, folder, done)

    def epoch(self, row: Mapping[str, object], network: nn.Module, evaluation: Evaluation) -> None:
        """After an epoch; `network` is the copy that was tested."""
        config, epoch = self.plan.config, row["epoch"]
        is_kept = bool(config.keep_epochs and epoch % config.keep_epochs == 0) or epoch == config.total_epochs
        self._call("epoch", dict(row), Seen(network, evaluation, is_kept, lambda: self._pictures(network, evaluation)))

    def end(self, result: Result | None) -> None:
        if self.begun:
            self._call("end", result)

    def _pictures(self, network: nn.Module, evaluation: Evaluation) -> Mapping[str, np.ndarray]:
        if self.make is None:
            return {}
        if self.draw is None:
            self.draw = self.make(self.plan)
        return self.draw(network, evaluation)

    def _call(self, what: str, *words: object) -> None:
        for hook in list(self.hooks):
            function = getattr(hook, what, None)
            if function is None:
                continue
            try:
                with self._same_chance():
                    function(*words)
            except Exception as error:  # whatever it is: a training is worth more than what is told of it
                self.hooks.remove(hook)
                name = type(hook).__name__ if not isinstance(hook, _Rows) else getattr(hook.function, "__name__", "log")
                self.say(f"log: {name} is called no more, its {what} failed: {type(error).__name__}: {error}")

    @contextlib.contextmanager
    def _same_chance(self) -> Iterator[None]:
        """Leave the random numbers of the training as they were."""
        state = self.plan.device.rng_state()
        try:
            yield
        finally:
            self.plan.device.set_rng_state(state)
