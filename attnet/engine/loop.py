"""The training loop on one card or many: steps, test after each epoch, checkpoints, FPS as the document counts it."""

from __future__ import annotations

import dataclasses
import math
import statistics
import time
from signal import Signals

import torch

from attnet.base import device
from attnet.base.errors import AttnetError
from attnet.base.files import save
from attnet.base.host import environment
from attnet.base.processes import STOPPED, StopSignal, TrainingInterrupted
from attnet.base.progress import Progress, Stopwatch
from attnet.data.splits import Split
from attnet.engine.distributed import Requests, World
from attnet.engine.evaluation import Evaluation, check_finite, evaluate, where_not_finite
from attnet.engine.plan import Plan, task
from attnet.engine.run_folder import BEST, CONFIG, LAST, PREVIOUS, RESULT, STEP, Result, RunFolder, load_newest
from attnet.engine.schedule import learning_rate
from attnet.engine.step import TrainStep
from attnet.model.variants import build_model, study_options

# The document counts images per second from here on: the first steps also pay for start-up.
WARM_UP_STEPS = 5


class Trainer:
    """Network, optimiser, data and position of one run.

    `epoch` counts finished epochs, `step` the finished steps of the one after them; both are in every checkpoint.
    """

    folder: RunFolder
    progress: Progress

    def __init__(self, plan: Plan, world: World | None = None) -> None:
        config = plan.config
        self.plan, self.config, self.world = plan, config, world or World()
        self.device = plan.device
        device.seed_everything(config.seed)
        self.model = build_model(config.model, config.num_classes, **study_options(config.to_dict()))
        if plan.weights is not None:
            from attnet.model.weights import load_weights

            load_weights(self.model, plan.weights, new_head=bool(config.is_train and config.new_head))
        self.train_step = TrainStep(self.model, config, self.device, self.world)
        device.seed_everything(config.seed + self.world.rank)  # the same weights everywhere, but not the same dropout
        self.train_batches = plan.train_batches(self.world.rank, self.world.size) if config.is_train else None
        self.test_batches = plan.test_batches(self.world.rank, self.world.size)
        self.epoch, self.step = 0, 0
        self.loss_sum = torch.zeros((), device=self.device.torch_device)
        self.clock = Stopwatch()  # of the current epoch
        self.rows: list[dict] = []
        self.lr = config.lr  # of the last step
        self.best = -math.inf
        self.requests, self.save_at, self.stopped_by = Requests(self.world), math.inf, None

    # -- one epoch -----------------------------------------------------------------------------------------------

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

    def train_epoch(self, stop: StopSignal) -> list[float] | None:
        """The steps that are left of the current epoch; each card's images/s, or None when stopped before the end."""
        self.train_step.train()
        self.progress.begin_epoch(self.epoch + 1, self.step)
        self.clock.start()
        counted_from, counted_step = time.perf_counter(), self.step
        warm = min(self.step + WARM_UP_STEPS, len(self.train_batches) - 1)
        for micro_batches in self.train_batches.epoch(self.epoch, self.step):
            self.lr = self.rate(self.epoch + self.step / len(self.train_batches))
            loss = self.train_step(micro_batches, self.lr)
            self.loss_sum += loss
            self.step += 1
            self.progress.step(self.step, loss)
            if self.step == warm:
                self.device.synchronize()
                counted_from, counted_step = time.perf_counter(), self.step
            if self.step < len(self.train_batches) and self.stop_or_save(stop):
                return None
        self.device.synchronize()
        seconds = time.perf_counter() - counted_from
        images = (self.step - counted_step) * self.config.train_batch_size * self.config.accumulate
        return self.world.gather(images / seconds)

    def stop_or_save(self, stop: StopSignal) -> bool:
        """Do what any rank has asked for after this step; True when training is to stop."""
        here = self.epoch * len(self.train_batches) + self.step
        together = here + (self.world.size > 1)
        if stop.number is not None:
            self.requests.post("stop", together, stop.number)
        if self.world.is_main and time.monotonic() >= self.save_at:
            self.requests.post("save", together)
            self.save_at = math.inf
        self.stopped_by = self.requests.due("stop", here)
        wants_save = self.requests.due("save", here) is not None
        if self.step and (wants_save or self.stopped_by is not None):
            self.save(STEP)
        return self.stopped_by is not None

    def test(self, split: Split | None = None) -> Evaluation:
        """Evaluate on the test images, or on another split, each card its share."""
        world, precision = self.world, self.train_step.precision
        batches = self.test_batches if split is None else self.plan.test_batches(world.rank, world.size, split)
        mine = evaluate(
            self.train_step.for_testing(),
            batches,
            self.plan.dataset.classes,
            autocast=precision.autocast,
            input_dtype=precision.input_dtype,
            mirror=self.config.test_flip,
        )
        parts = zip(*world.gather((mine.logits, mine.labels, mine.mirrored)), strict=True)
        logits, labels, mirrored = (batches.whole(rows) if rows[0] is not None else None for rows in parts)
        return Evaluation(logits, labels, mine.classes, mirrored)

    # -- the run -------------------------------------------------------------------------------------------------

    def run(self, folder: RunFolder, progress: Progress, resumed: bool = False) -> Result:
        """Every epoch that is left, then result.json."""
        config = self.config
        self.folder, self.progress = folder, progress
        if resumed:
            self.restore()
        elif self.world.is_main:
            folder.write_json(CONFIG, config.to_dict())
            if config.is_train and config.keep_epochs:
                self.save_weights("epoch_000.pt")
        if not config.is_train:
            return self.finish(check_finite(self.test(), self.model.state_dict(), config.pretrained))
        evaluation = None
        progress.start(self.epoch + 1, config.total_epochs, len(self.train_batches))
        self.save_at = self._next_save()
        try:
            with StopSignal() as stop:
                while self.epoch < config.total_epochs:
                    rank_fps = self.train_epoch(stop)
                    if rank_fps is None:
                        self.interrupt(self.stopped_by)
                    evaluation = self.end_epoch(rank_fps)
                    if self.epoch < config.total_epochs and self.stop_or_save(stop):
                        self.interrupt(self.stopped_by)
        finally:
            progress.close()
        return self.finish(evaluation or self.test())

    def end_epoch(self, rank_fps: list[float]) -> Evaluation:
        """Test, record and save."""
        train_loss = self.world.sum(self.loss_sum).item() / (len(self.train_batches) * self.world.size)
        if not math.isfinite(train_loss):
            self.diverged(f"the training loss is {train_loss}")
        evaluation = self.test()
        if evaluation.not_finite:
            where = where_not_finite(self.train_step.weights())
            self.diverged(f"the logits of {evaluation.not_finite:,} test images are no finite numbers ({where})")
        self.clock.stop()
        row = {
            "epoch": self.epoch + 1,
            "lr": self.lr,
            "train_loss": train_loss,
            "test_loss": evaluation.loss,
            "top1": evaluation.top1,
            "fps": min(rank_fps) * len(rank_fps),
            "seconds": self.clock.wall,
            "processor_seconds": sum(self.world.gather(self.clock.processor)),
        }
        if self.config.image_sizes:
            row["image_size"] = self.train_batches.shown(self.epoch)
        if evaluation.mirrored is not None:
            row["top1_flip"] = evaluation.top1_flip
        if len(rank_fps) > 1:
            row["rank_fps"] = rank_fps
        self.rows.append(row)
        self.epoch, self.step, self.clock = self.epoch + 1, 0, Stopwatch()
        self.loss_sum.zero_()
        is_best = row["top1"] > self.best
        self.best = max(self.best, row["top1"])
        if self.world.is_main and is_best:
            self.save_weights(BEST, row["top1"])
        if self.world.is_main and self.config.keep_epochs and self.epoch % self.config.keep_epochs == 0:
            self.save_weights(f"epoch_{self.epoch:03d}.pt", row["top1"])
        self.save(LAST)
        if self.world.is_main:
            self.folder.write_metrics(self.rows)
        self.progress.end_epoch(self.rows)
        return evaluation

    def diverged(self, how: str) -> None:
        """Raise AttnetError; what the folder holds of the epoch before stays."""
        kept = self.folder.path / LAST
        raise AttnetError(
            f"epoch {self.epoch + 1}: {how}; training has diverged. Lower lr ({self.config.lr:g}) or use a higher "
            f"precision (amp={self.config.amp})"
            + (f"; {kept} holds the weights of the epoch before" if kept.exists() else "")
        )

    def finish(self, evaluation: Evaluation) -> Result:
        """Write result.json."""
        config, rows = self.config, self.rows
        full = [row["fps"] for row in rows if row.get("image_size") == rows[-1].get("image_size")]
        result = Result(
            top1=max((row["top1"] for row in rows), default=evaluation.top1),
            fps=statistics.median(full) if full else None,
            epochs=self.epoch,
            amp=config.amp,
            device=f"{self.device.label}_{config.device_num}p",
            batch_size=config.train_batch_size,
            model=self.model.variant.label,
            dataset=self.plan.dataset_label,
            last_top1=evaluation.top1,
            top1_flip=None if evaluation.mirrored is None else evaluation.top1_flip,
            test_loss=evaluation.loss,
            per_class=evaluation.per_class,
            confusion=evaluation.confusion.tolist(),
            memorisation=self.memorisation(),
            peak_memory=max(self.world.gather(self.device.memory().peak)),
            skipped_steps=int(self.train_step.precision.skipped.item()),
            environment=environment(self.device),
            task=task(config),
            images=self.images(),
            parameters=config.to_dict(),
            output_dir=self.folder.path,
            history=list(rows),
        )
        if self.world.is_main:
            self.folder.write_json(RESULT, result.to_json())
            (self.folder.path / PREVIOUS).unlink(missing_ok=True)
        return result

    def memorisation(self) -> dict[str, float] | None:
        """What the network says of wrongly labelled training images; None where there are none."""
        if self.plan.dataset.train.true_labels is None:
            return None
        from attnet.data.noise import memorisation

        return memorisation(self.plan.dataset.train, lambda split: self.test(split).predictions)

    def images(self) -> dict[str, int]:
        """How many images of how many, as `Result.images`."""
        data, (train_total, test_total) = self.plan.dataset, self.plan.whole
        return {"train": len(data.train), "train_total": train_total, "test": len(data.test), "test_total": test_total}

    # -- saving --------------------------------------------------------------------------------------------------

    def save_weights(self, name: str, top1: float | None = None) -> None:
        """Write the weights alone, with what they are: what somebody who does not train needs."""
        content = {"model": self.train_step.weights(), "epoch": self.epoch, "top1": top1}
        save(content | self.about(), self.folder.path / name)

    def about(self) -> dict[str, object]:
        """What somebody needs besides the weights to use them: the parameters, the class names, the colours."""
        colour = self.plan.colour and dataclasses.asdict(self.plan.colour)
        return {"config": self.config.to_dict(), "classes": list(self.plan.dataset.classes), "colour": colour}

    def _next_save(self) -> float:
        return time.monotonic() + (self.config.checkpoint_seconds or math.inf)

    def save(self, name: str) -> None:
        """Write last.pt at the end of an epoch, step.pt within one: everything needed to go on exactly from here.

        Every rank calls it after the same step; rank 0 writes.
        """
        loss_sum, rng = self.world.sum(self.loss_sum), self.world.gather(self.device.rng_state())
        processor_seconds = sum(self.world.gather(self.clock.processor))
        self.save_at = self._next_save()
        if not self.world.is_main:
            return
        content = {
            "epoch": self.epoch,
            "step": self.step,
            "shards": self.world.size * self.config.accumulate,
            "loss_sum": loss_sum,
            "seconds": self.clock.wall,
            "processor_seconds": processor_seconds,
            "rows": self.rows,
            "best": self.best,
            "rng": rng,
        }
        content |= self.train_step.state() | self.about()
        folder = self.folder.path
        save(content, folder / name, keep=folder / PREVIOUS if name == LAST else None)
        if name == LAST:
            (folder / STEP).unlink(missing_ok=True)

    def restore(self) -> None:
        """Go back to the newest checkpoint of the run folder; to the beginning when there is none.

        A position within an epoch means nothing to another number of micro-batches a step; then the end of the
        epoch before it is taken.
        """
        folder, shards = self.folder.path, self.world.size * self.config.accumulate
        state = load_newest(folder)
        if state is not None and state["step"] and state["shards"] != shards:
            self.progress.emit(
                f"resume: step {state['step']} of epoch {state['epoch'] + 1} was reached with {state['shards']} "
                f"micro-batches a step, now there are {shards}; going on from the end of epoch {state['epoch']}"
            )
            state = load_newest(folder, names=(LAST, PREVIOUS))
        if state is None:
            self.progress.emit(f"resume: no usable checkpoint in {folder}; from the beginning")
            return
        self.train_step.load_state(state)
        self.epoch, self.step = state["epoch"], state["step"]
        if self.world.is_main:
            self.clock = Stopwatch(state["seconds"], state.get("processor_seconds", 0.0))
            self.loss_sum.copy_(state["loss_sum"])
            self.folder.write_metrics(state["rows"])
        self.rows, self.best = state["rows"], state["best"]
        if len(state["rng"]) == self.world.size:
            self.device.set_rng_state(state["rng"][self.world.rank])
        self.progress.emit(f"resume: {folder} goes on after epoch {self.epoch}, step {self.step}")

    def interrupt(self, number: int) -> None:
        """Raise TrainingInterrupted; the position is saved already."""
        where = f"epoch {self.epoch + 1}, step {self.step} of {len(self.train_batches)}"
        message = (
            f"{STOPPED} {Signals(number).name} in {where}; everything is saved. Go on with "
            f'resume="{self.folder.path}" (a parameter of the notebooks, --resume on the command line)'
        )
        self.folder.log(message)
        raise TrainingInterrupted(message, number)
