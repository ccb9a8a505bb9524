"""The training loop on one card or many: steps, test after each epoch, checkpoints, FPS as the document counts it."""

from __future__ import annotations

import functools
import math
import statistics
import time
from signal import SIGTERM, Signals

from attnet.base.errors import AttnetError
from attnet.base.host import environment
from attnet.base.processes import STOPPED, StopSignal, TrainingInterrupted
from attnet.base.progress import Progress
from attnet.engine.distributed import Requests, World
from attnet.engine.evaluation import Evaluation, check_finite, where_not_finite
from attnet.engine.hooks.hook import Hooks
from attnet.engine.names import BEST, CONFIG, LAST, PREVIOUS, RESULT, STEP
from attnet.engine.plan import Plan, task
from attnet.engine.result import Result, code_link, configuration_link, seal, weights_links
from attnet.engine.run_folder import RunFolder, checkpoint
from attnet.engine.status.pulse import Pulse
from attnet.engine.training import Training, traced_steps
from attnet.engine.trouble import dead_masks, signs
from attnet.model.network import ResidualAttentionNetwork

# The document counts images per second from here on: the first steps also pay for start-up.
WARM_UP_STEPS = 5
LOOKED_AT = 32  # test images, for masks that are dead
ASKED = 0  # what is posted for a request to stop that came through the run folder, in place of a signal
CLOCKED = 8  # steps an epoch, at most, whose forward pass is timed where there are several cards


class Trainer(Training):
    """A training with its run folder: epochs, tests, checkpoints, the result."""

    folder: RunFolder
    progress: Progress

    def __init__(self, plan: Plan, world: World | None = None) -> None:
        super().__init__(plan, world)
        self.requests, self.save_at, self.stopped_by = Requests(self.world), math.inf, None
        self.step_before = self.device.synchronize  # waits until the device is done with it
        self.warnings: dict[str, str] = {}  # what -> sentence, each said once
        self.hooks = Hooks((), plan)
        self.pulse = Pulse(self.world.rank, self.world.size, self.where)

    # -- one epoch -----------------------------------------------------------------------------------------------

    def train_epoch(self, stop: StopSignal) -> bool:
        """The steps that are left of the current epoch; sets `rank_fps`. False when stopped before the end."""
        self.train_step.train()
        self.progress.begin_epoch(self.epoch + 1, self.step)
        self.clock.start()
        if self.rank_fps:  # stopped in the test
            return True
        counted_from, counted_step = time.perf_counter(), self.step
        warm = min(self.step + WARM_UP_STEPS, len(self.train_batches) - 1)
        # A recorded step cannot be timed in part.
        several, every = (
            self.world.size > 1 and self.config.compile not in ("graphs", "both"),
            max(1, len(self.train_batches) // CLOCKED),
        )
        for micro_batches in self.train_batches.epoch(self.epoch, self.step):
            self.train_step.clocked = several and self.step >= warm and self.step % every == 0
            loss = self.advance(micro_batches)
            self.progress.step(self.step, loss)
            if self.step == warm:
                self.device.synchronize()
                counted_from, counted_step = time.perf_counter(), self.step
            if self.step < len(self.train_batches) and self.stop_or_save(stop):
                return False
        self.device.synchronize()
        seconds = time.perf_counter() - counted_from
        images = (self.step - counted_step) * self.config.train_batch_size * self.config.accumulate
        self.rank_fps = self.world.gather(images / seconds)
        return True

    def stop_or_save(self, stop: StopSignal) -> bool:
        """Do what any rank has asked for after this step; True when training is to stop."""
        self.folder.beat()
        here = self.epoch * len(self.train_batches) + self.step
        together = here
        if self.world.size > 1:
            self.step_before()  # of `Requests`, which says why
            self.step_before, together = self.device.mark(), here + Requests.AHEAD
        if stop.number is not None:
            self.requests.post("stop", together, stop.number)
        elif self.pulse.asked:
            self.requests.post("stop", together, ASKED)
        if self.world.is_main and time.monotonic() >= self.save_at:
            self.requests.post("save", together)
            self.save_at = math.inf
        self.stopped_by = self.requests.due("stop", here)
        wants_save = self.requests.due("save", here) is not None
        if self.step and (wants_save or self.stopped_by is not None):
            self.save(STEP)
        return self.stopped_by is not None

    # -- the run -------------------------------------------------------------------------------------------------

    def run(self, folder: RunFolder, progress: Progress, resumed: bool = False, hooks: Hooks | None = None) -> Result:
        """Every epoch that is left, then result.json; `hooks` are told of it."""
        config, result = self.config, None
        self.folder, self.progress, self.hooks = folder, progress, hooks or self.hooks
        if resumed:
            self.restore()
        elif self.world.is_main:
            folder.write_json(CONFIG, config.to_dict())
            if config.is_train and config.keep_epochs:
                self.save_weights("epoch_000.pt")
        with self.pulse.beating(folder.path):
            try:
                result = self._run()
            finally:
                self.hooks.end(result)
        return result

    def _run(self) -> Result:
        config, progress = self.config, self.progress
        if not config.is_train:
            return self.finish(check_finite(self.test(), self.model.state_dict(), config.pretrained))
        evaluation = None
        look = self.train_step.for_testing if self.world.size == 1 else None  # of several cards, all would have to
        progress.start(self.epoch + 1, config.total_epochs, len(self.train_batches), self.step, look)
        self.hooks.start(self.folder.path, self.epoch)
        self.save_at = self._next_save()
        try:
            with StopSignal() as stop:
                while self.epoch < config.total_epochs:
                    if not self.train_epoch(stop):
                        self.interrupt(self.stopped_by)
                    evaluation = self.end_epoch(stop)
                    if self.epoch < config.total_epochs and self.stop_or_save(stop):
                        self.interrupt(self.stopped_by)
        finally:
            progress.close()
        return self.finish(evaluation or self.test())

    def within_test(self, stop: StopSignal, done: int) -> None:
        """On a processor a test takes minutes, and a batch system does not wait for so long: one process stops within
        it, and goes on with the test. Several cards, which could not stop at the same batch, have a share of it each.
        """
        self.progress.test(done, len(self.test_batches))
        if self.world.size == 1 and self.stop_or_save(stop):
            self.interrupt(self.stopped_by)

    def end_epoch(self, stop: StopSignal) -> Evaluation:
        """Test, record and save."""
        rank_fps = self.rank_fps
        train_loss = self.world.sum(self.loss_sum).item() / (len(self.train_batches) * self.world.size)
        if not math.isfinite(train_loss):
            self.diverged(f"the training loss is {train_loss}")
        network = self.train_step.for_testing()
        is_last = self.epoch + 1 == self.config.total_epochs  # mirror images would double the cost of every test
        evaluation = self.test(network=network, mirror=is_last, before=functools.partial(self.within_test, stop))
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
            forwards, self.train_step.forwards = self.world.gather(self.train_step.forwards), []
            if all(forwards):
                row["rank_forward"] = [statistics.median(seconds) for seconds in forwards]
        trace = [value.item() for value in self.trace]
        if self.world.size == 1 and not self.mixed:
            row["trace"] = trace
        else:  # rank 0's own: to be drawn, not to be repeated on one card
            row["steps"], row["trace_of_rank_0"] = len(self.train_batches), trace
        self.rows.append(row)
        self.next_epoch()
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
        self.look_out(evaluation, network)
        self.hooks.epoch(row, network, evaluation)
        return evaluation

    def look_out(self, evaluation: Evaluation, network: ResidualAttentionNetwork) -> None:
        """Say what goes wrong, once each, in the epoch in which it shows; `network` is the one that was tested."""
        found = dict(signs(self.rows, self.config.num_classes, len(evaluation.labels)))
        batch = next(iter(self.test_batches), None)
        if batch is not None and self.world.is_main:
            step = self.train_step
            images = batch.images[:LOOKED_AT].to(step.precision.input_dtype, memory_format=step.layout)
            found |= dead_masks(network, images)
        for what in found.keys() - self.warnings.keys():
            self.warnings[what] = f"epoch {self.epoch}: {found[what]}"
            self.progress.emit(f"warning: {self.warnings[what]}")

    def where(self) -> dict[str, object]:
        """Where the training stands, for `Pulse`, whose thread asks: nothing here waits for the device."""
        config, steps = self.config, len(self.train_batches) if self.train_batches else 0
        position = {"epochs": config.total_epochs, "epoch": self.epoch, "step": self.step, "steps": steps}
        position["images"] = config.train_batch_size * self.shards
        if not self.device.is_accelerator:
            trace = [value.item() for value in [*self.trace]]
            position |= {"trace": trace, "traced": traced_steps(steps)[len(trace) - 1] if trace else 0}
        return position

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
            warnings=list(self.warnings.values()),
            output_dir=self.folder.path,
            history=list(rows),
        )
        if self.world.is_main:
            result.chain["configuration"] = configuration_link(result.parameters)
            result.chain["data"], result.chain["code"] = self.data, code_link()
            result.chain["weights"] = weights_links(self.folder.path)
            result.chain["seal"] = seal(result.to_json(), rows)
            self.folder.write_json(RESULT, result.to_json())
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
        self.folder.save(name, content | self.about())

    def _next_save(self) -> float:
        return time.monotonic() + (self.config.checkpoint_seconds or math.inf)

    def save(self, name: str) -> None:
        """Write last.pt at the end of an epoch, step.pt within one: everything needed to go on exactly from here.

        Every rank calls it after the same step; rank 0 writes.
        """
        content = self.state()
        self.save_at = self._next_save()
        if not self.world.is_main:
            return
        self.folder.save(name, content, keep=PREVIOUS if name == LAST else "")
        if name == LAST:
            (self.folder.path / STEP).unlink(missing_ok=True)

    def restore(self) -> None:
        """Go back to the newest checkpoint of the run folder; to the beginning when there is none.

        Raises:
            ConfigError: the checkpoint's data were others.
        """
        folder = self.folder.path
        state, remark = checkpoint(folder, self.shards)
        if remark:
            self.progress.emit(remark)
        if state is None:
            self.progress.emit(f"resume: no usable checkpoint in {folder}; from the beginning")
            return
        self.load_state(state)
        if self.world.is_main:
            self.folder.write_metrics(self.rows)
        self.progress.emit(f"resume: {folder} goes on after epoch {self.epoch}, step {self.step}")

    def interrupt(self, number: int) -> None:
        """Raise TrainingInterrupted; the position is saved already."""
        if number == ASKED:
            self.world.gather(None)  # rank 0 has written everything
        by = "a request" if number == ASKED else Signals(number).name
        steps = len(self.train_batches)
        where = f"epoch {self.epoch + 1}, " + (f"step {self.step} of {steps}" if self.step < steps else "its test")
        message = (
            f"{STOPPED} {by} in {where}; everything is saved. Go on with "
            f'resume="{self.folder.path}" (a parameter of the notebooks, --resume on the command line)'
        )
        self.folder.log(message)
        raise TrainingInterrupted(message, number or SIGTERM, was_asked=number == ASKED)
