"""A training without its files: network, optimiser, data, and where in them it stands."""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Callable

import torch
from torch import Tensor, nn

from attnet.base import device
from attnet.base.errors import ConfigError
from attnet.base.json_files import misfit
from attnet.base.progress import Stopwatch
from attnet.data.batches import Batch
from attnet.data.splits import Split
from attnet.engine.distributed import World
from attnet.engine.evaluation import Evaluation, evaluate
from attnet.engine.plan import Plan
from attnet.engine.result import ROW, data_link
from attnet.engine.schedule import learning_rate
from attnet.engine.step import TrainStep
from attnet.model.variants import build_model, study_options

# So many sums of losses an epoch are kept, evenly spread: by them somebody else can see that the same steps were taken.
TRACED = 8


class Training:
    """Network, optimiser, data and position of one run.

    `epoch` counts finished epochs, `step` the finished steps of the one after them; both are in every checkpoint.
    `loss_sum` is over the epoch's steps so far, `trace` the same after each eighth of them; this card's own.
    `mixed`: this epoch was begun on another number of cards.
    """

    def __init__(self, plan: Plan, world: World | None = None) -> None:
        config = plan.config
        self.plan, self.config, self.world = plan, config, world or World()
        self.device = plan.device
        device.seed_everything(config.seed)
        self.model = build_model(config.model, config.num_classes, **study_options(config.to_dict()))
        if plan.weights is not None:
            from attnet.engine.transfer import begin_from

            begin_from(self.model, plan)
        self.train_step = TrainStep(self.model, config, self.device, self.world)
        device.seed_everything(config.seed + self.world.rank)  # the same weights everywhere, but not the same dropout
        self.train_batches = plan.train_batches(self.world.rank, self.world.size) if config.is_train else None
        self.test_batches = plan.test_batches(self.world.rank, self.world.size)
        self.epoch, self.step = 0, 0
        self.loss_sum = torch.zeros((), device=self.device.torch_device)
        self.trace: list[Tensor] = []
        self.mixed = False
        self.rank_fps: list[float] = []  # each card's images/s in the current epoch, once its last step is done
        self.clock = Stopwatch()  # of the current epoch
        self.rows: list[dict] = []
        self.lr = config.lr  # of the last step
        self.best = -math.inf

    @functools.cached_property
    def data(self) -> dict[str, object]:
        """What the images and labels are, as `attnet.engine.result.data_link`; it takes a moment."""
        return data_link(self.plan.dataset)

    @property
    def shards(self) -> int:
        """Micro-batches that all cards together take in a step: what a position within an epoch depends on."""
        return self.world.size * self.config.accumulate

    def rate(self, done: float) -> float:
        """The learning rate after `done` epochs."""
        config = self.config
        return learning_rate(
            config.schedule,
            done,
            lr=config.lr,
            images=config.train_batch_size * config.accumulate * config.device_num,
            lr_batch=config.lr_batch,
            total_epochs=config.total_epochs,
            warmup_epochs=config.warmup_epochs,
        )

    def advance(self, micro_batches: list[Batch]) -> Tensor:
        """One step; its loss, on the device."""
        steps = len(self.train_batches)
        self.lr = self.rate(self.epoch + self.step / steps)
        loss = self.train_step(micro_batches, self.lr)
        self.loss_sum += loss
        self.step += 1
        if self.step in traced_steps(steps):
            self.trace.append(self.loss_sum.clone())
        return loss

    def next_epoch(self) -> None:
        """The epoch is done."""
        self.epoch, self.step, self.clock, self.trace = self.epoch + 1, 0, Stopwatch(), []
        self.rank_fps, self.mixed = [], False
        self.loss_sum.zero_()

    def test(
        self,
        split: Split | None = None,
        network: nn.Module | None = None,
        *,
        mirror: bool = True,
        before: Callable[[int], None] = lambda _done: None,
    ) -> Evaluation:
        """Evaluate on the test images, or on another split, each card its share.

        `network` is what `TrainStep.for_testing` gave, where it is at hand. `mirror`: over the mirror images as well,
        where `test_flip` asks for it; `before` as in `evaluate`.
        """
        world, precision = self.world, self.train_step.precision
        batches = self.test_batches if split is None else self.plan.test_batches(world.rank, world.size, split)
        mine = evaluate(
            self.train_step.for_testing() if network is None else network,
            batches,
            self.plan.dataset.classes,
            autocast=precision.autocast,
            input_dtype=precision.input_dtype,
            mirror=mirror and self.config.test_flip,
            before=before,
        )
        parts = zip(*world.gather((mine.logits, mine.labels, mine.mirrored)), strict=True)
        logits, labels, mirrored = (batches.whole(rows) if rows[0] is not None else None for rows in parts)
        return Evaluation(logits, labels, mine.classes, mirrored)

    # -- everything needed to go on exactly from here --------------------------------------------------------------

    def about(self) -> dict[str, object]:
        """What somebody needs besides the weights to use them: the parameters, the class names, the colours."""
        colour = self.plan.colour and dataclasses.asdict(self.plan.colour)
        return {"config": self.config.to_dict(), "classes": list(self.plan.dataset.classes), "colour": colour}

    def state(self) -> dict[str, object]:
        """A checkpoint: plain values and tensors. Every rank calls it after the same step."""
        loss_sums, rng = self.world.gather(self.loss_sum.cpu()), self.world.gather(self.device.rng_state())
        return {
            **{"epoch": self.epoch, "step": self.step, "shards": self.shards, "rows": self.rows, "best": self.best},
            **{"seconds": self.clock.wall, "processor_seconds": sum(self.world.gather(self.clock.processor))},
            **{"loss_sums": loss_sums, "trace": self.trace, "mixed": self.mixed, "rank_fps": self.rank_fps},
            **{"rng": rng, "data": self.data},
            **self.train_step.state(),
            **self.about(),
        }

    def load_state(self, state: dict[str, object]) -> None:
        """The inverse of `state`.

        Raises:
            ConfigError: the checkpoint's data were others, or it is no checkpoint of this run.
        """
        begun = state.get("data") or {}  # nothing in checkpoints from before
        for name in begun.keys() & self.data.keys():
            if begun[name] != self.data[name]:
                raise ConfigError(
                    f"resume: this run was begun with other data: {name} {begun[name]} there, {self.data[name]} now, "
                    f"from {self.plan.dataset.source}; bring them back, or begin a new run without resume"
                )
        try:
            self._take(state)
        except (AttributeError, IndexError, KeyError, RuntimeError, TypeError, ValueError) as error:
            why = str(error).split("\n")[0] or type(error).__name__
            raise ConfigError(
                f"resume: the checkpoint is none of this run ({why}); bring its own back, or begin a new run without "
                "resume"
            ) from error

    def _take(self, state: dict[str, object]) -> None:
        """What `load_state` does; of a foreign checkpoint any error may come."""
        epochs, steps = self.config.total_epochs, len(self.train_batches)
        if not (0 <= state["epoch"] <= epochs and 0 <= state["step"] <= steps):
            raise ValueError(f"it is after epoch {state['epoch']}, step {state['step']}, of {epochs} epochs")
        if problem := next(filter(None, (misfit(row, ROW) for row in state["rows"])), ""):
            raise ValueError(f"of one of its epochs {problem}")
        self.train_step.load_state(state)
        self.epoch, self.step, self.rows = (state[name] for name in ("epoch", "step", "rows"))
        self.best = float(state["best"])
        if self.step:
            self.lr = self.rate(self.epoch + (self.step - 1) / steps)
        self.rank_fps = [*map(float, state.get("rank_fps", ()))]
        if not all(0 < fps < math.inf for fps in self.rank_fps):
            raise ValueError(f"rank_fps is {self.rank_fps}")
        self.trace = [value.to(self.loss_sum.device) for value in state.get("trace", ())]
        sums = state.get("loss_sums") or [state["loss_sum"]]  # one for all in checkpoints from before
        as_then = len(sums) == self.world.size
        self.mixed = bool(self.step) and (state.get("mixed", False) or not as_then)
        self.loss_sum.copy_(sums[self.world.rank] if as_then else sum(sums) / len(sums))
        if self.world.is_main:
            self.clock = Stopwatch(state["seconds"], state.get("processor_seconds", 0.0))
        if len(state["rng"]) == self.world.size:
            self.device.set_rng_state(state["rng"][self.world.rank])


def traced_steps(steps: int) -> list[int]:
    """After which steps of an epoch the sum of losses is kept."""
    return sorted({-(-steps * part // TRACED) for part in range(1, TRACED + 1)})
