"""The training loop on one device: recipe, test after each epoch, checkpoints, FPS as the document counts it."""

from __future__ import annotations

import math
import statistics
import time
from signal import Signals

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from attnet import checkpoint, device
from attnet.batches import Batch
from attnet.checkpoint import BEST, LAST, PREVIOUS, RunFolder
from attnet.config import TrainConfig, resolve_path
from attnet.errors import AttnetError
from attnet.evaluation import Evaluation, evaluate
from attnet.interrupt import StopSignal, TrainingInterrupted
from attnet.model import build_model
from attnet.plan import Plan, make_plan
from attnet.precision import Precision
from attnet.progress import Progress, make_progress
from attnet.result import Result
from attnet.weights import load_weights

# The document counts images per second from here on: the first steps also pay for start-up.
WARM_UP_STEPS = 5


def fit(config: TrainConfig) -> Result:
    """Train (or, with is_train=False, only evaluate) as `config` says.

    Returns:
        The result; the run folder `Result.output_dir` holds config.json, metrics.jsonl, last.pt, best.pt,
        log.txt and result.json.

    Raises:
        AttnetError: before anything is written, when configuration, data or weights do not work.
        TrainingInterrupted: after Ctrl-C or SIGTERM; saved, and the message says how to continue.
    """
    resumed = checkpoint.run_to_resume(config)
    if resumed is None:
        plan = make_plan(config)
    else:
        stored = TrainConfig.load(resumed / "config.json")
        plan = make_plan(checkpoint.inherit(stored, config))
        checkpoint.check_same_run(stored, plan.config)
    trainer = Trainer(plan)  # before the folder: what cannot start leaves nothing behind
    folder = checkpoint.new_run(plan.config) if resumed is None else RunFolder(resumed)
    with folder:
        return trainer.run(folder, make_progress(plan.config.progress, folder.log), resumed is not None)


def learning_rate(config: TrainConfig, epoch: int) -> float:
    """The rate of an epoch (counted from 0): divided by 10 after 30, 60 and 90 % of the epochs."""
    drops = sum(10 * epoch >= tenths * config.total_epochs for tenths in (3, 6, 9))
    return config.lr / 10**drops


def batch_loss(logits: Tensor, batch: Batch) -> Tensor:
    """Mean cross-entropy, nats; with mixup, weighted between both labels."""
    logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
    loss = F.cross_entropy(logits, batch.labels)
    if batch.other_labels is None:
        return loss
    return batch.weight * loss + (1 - batch.weight) * F.cross_entropy(logits, batch.other_labels)


class Trainer:
    """Network, optimiser, data and position of one run.

    `epoch` counts finished epochs, `step` the finished steps of the one after them; both are in every checkpoint.
    """

    folder: RunFolder
    progress: Progress

    def __init__(self, plan: Plan) -> None:
        config = plan.config
        self.plan, self.config = plan, config
        self.device = plan.device.activate()
        device.seed_everything(config.seed)
        self.model = build_model(config.model, config.num_classes)
        if config.pretrained and (config.is_pretrain or not config.is_train):
            load_weights(self.model, resolve_path(config.pretrained))
        layout = torch.channels_last if config.channels_last else torch.contiguous_format
        self.model.to(self.device.torch_device, memory_format=layout)
        self.precision = Precision(
            self.model,
            self.device,
            config.amp,
            loss_scale=config.loss_scale,
            momentum=config.momentum,
            weight_decay=config.weight_decay,
        )
        self.network: nn.Module = torch.compile(self.model) if config.compile else self.model
        self.train_batches = plan.train_batches() if config.is_train else None
        self.test_batches = plan.test_batches()
        self.epoch, self.step = 0, 0
        self.loss_sum = torch.zeros((), device=self.device.torch_device)
        self.seconds = 0.0  # spent on the current epoch
        self.rows: list[dict] = []
        self.best = -math.inf

    # -- one epoch -----------------------------------------------------------------------------------------------

    def train_step(self, micro_batches: list[Batch], lr: float) -> Tensor:
        """Forward, backward and one optimiser step; the mean loss, on the device."""
        total = torch.zeros((), device=self.device.torch_device)
        for batch in micro_batches:
            with self.precision.autocast():
                logits = self.network(batch.images.to(self.precision.input_dtype))
            loss = batch_loss(logits, batch) / len(micro_batches)
            self.precision.backward(loss)
            total += loss.detach()
        self.precision.step(lr)
        return total

    def train_epoch(self, stop: StopSignal) -> float | None:
        """The steps that are left of the current epoch; images/s, or None when stopped before the end."""
        lr = learning_rate(self.config, self.epoch)
        self.network.train()
        self.progress.begin_epoch(self.epoch + 1, self.step)
        begun = counted_from = time.perf_counter()
        counted_step = self.step
        warm = min(self.step + WARM_UP_STEPS, len(self.train_batches) - 1)
        for micro_batches in self.train_batches.epoch(self.epoch, self.step):
            loss = self.train_step(micro_batches, lr)
            self.loss_sum += loss
            self.step += 1
            self.progress.step(self.step, loss)
            if self.step == warm:
                self.device.synchronize()
                counted_from, counted_step = time.perf_counter(), self.step
            if stop.number is not None:
                break
        self.device.synchronize()
        now = time.perf_counter()
        self.seconds += now - begun
        if self.step < len(self.train_batches):
            return None
        images = (self.step - counted_step) * self.config.train_batch_size * self.config.accumulate
        return images * self.config.device_num / (now - counted_from)

    def test(self) -> Evaluation:
        """Evaluate on the test images."""
        return evaluate(
            self.network,
            self.test_batches,
            self.plan.dataset.classes,
            autocast=self.precision.autocast,
            input_dtype=self.precision.input_dtype,
        )

    # -- the run -------------------------------------------------------------------------------------------------

    def run(self, folder: RunFolder, progress: Progress, resumed: bool = False) -> Result:
        """Every epoch that is left, then result.json."""
        config = self.config
        self.folder, self.progress = folder, progress
        for line in self.plan.describe().splitlines():
            progress.emit(line)
        if resumed:
            self.restore()
        else:
            folder.write_json("config.json", config.to_dict())
        if not config.is_train:
            return self.finish(self.test())
        evaluation = None
        self.progress.start(self.epoch + 1, config.total_epochs, len(self.train_batches))
        try:
            with StopSignal() as stop:
                while self.epoch < config.total_epochs:
                    fps = self.train_epoch(stop)
                    if fps is None:
                        self.interrupt(stop.number)
                    evaluation = self.end_epoch(fps)
                    if stop.number is not None and self.epoch < config.total_epochs:
                        self.interrupt(stop.number)
        finally:
            self.progress.close()
        return self.finish(evaluation or self.test())

    def end_epoch(self, fps: float) -> Evaluation:
        """Test, record and save."""
        train_loss = self.loss_sum.item() / len(self.train_batches)
        if not math.isfinite(train_loss):
            kept = self.folder.path / LAST
            raise AttnetError(
                f"epoch {self.epoch + 1}: the training loss is {train_loss}; training has diverged. Lower lr "
                f"({self.config.lr:g}) or use a higher precision (amp={self.config.amp})"
                + (f"; {kept} holds the weights of the epoch before" if kept.exists() else "")
            )
        begun = time.perf_counter()
        evaluation = self.test()
        row = {
            "epoch": self.epoch + 1,
            "lr": learning_rate(self.config, self.epoch),
            "train_loss": train_loss,
            "test_loss": evaluation.loss,
            "top1": evaluation.top1,
            "fps": fps,
            "seconds": self.seconds + time.perf_counter() - begun,
        }
        self.rows.append(row)
        self.epoch, self.step, self.seconds = self.epoch + 1, 0, 0.0
        self.loss_sum.zero_()
        if row["top1"] > self.best:
            self.best = row["top1"]
            content = {"model": self.weights(), "epoch": self.epoch, "top1": self.best}
            checkpoint.save(content | {"config": self.config.to_dict()}, self.folder.path / BEST)
        self.save()
        self.folder.write_metrics(self.rows)
        self.progress.end_epoch(self.rows)
        return evaluation

    def finish(self, evaluation: Evaluation) -> Result:
        """Write result.json."""
        config, rows = self.config, self.rows
        label = {"NPU": "npu", "GPU": "gpu"}.get(self.device.kind, self.device.type)
        result = Result(
            top1=max((row["top1"] for row in rows), default=evaluation.top1),
            fps=statistics.median(row["fps"] for row in rows) if rows else None,
            epochs=self.epoch,
            amp=config.amp,
            device=f"{label}_{config.device_num}p",
            batch_size=config.train_batch_size,
            model=config.model,
            dataset=self.plan.dataset_label,
            last_top1=evaluation.top1,
            per_class=evaluation.per_class,
            confusion=evaluation.confusion.tolist(),
            peak_memory=self.device.peak_memory(),
            skipped_steps=int(self.precision.skipped.item()),
            environment=device.environment(self.device),
            output_dir=self.folder.path,
            history=list(rows),
        )
        self.folder.write_json("result.json", result.to_json())
        (self.folder.path / PREVIOUS).unlink(missing_ok=True)
        return result

    # -- saving --------------------------------------------------------------------------------------------------

    def weights(self) -> dict[str, Tensor]:
        """The network's weights in full precision."""
        return self.precision.full_weights(self.model)

    def save(self) -> None:
        """Write last.pt: everything needed to go on exactly from here."""
        content = {
            "model": self.weights(),
            "precision": self.precision.state(),
            "epoch": self.epoch,
            "step": self.step,
            "loss_sum": self.loss_sum,
            "seconds": self.seconds,
            "rows": self.rows,
            "best": self.best,
            "rng": torch.get_rng_state(),
            "config": self.config.to_dict(),
        }
        checkpoint.save(content, self.folder.path / LAST, keep=self.folder.path / PREVIOUS)

    def restore(self) -> None:
        """Go back to the newest checkpoint of the run folder; to the beginning when there is none."""
        state = checkpoint.load_newest(self.folder.path)
        if state is None:
            self.progress.emit(f"resume: no readable checkpoint in {self.folder.path}; from the beginning")
            return
        self.precision.load_full_weights(self.model, state["model"])
        self.precision.load_state(state["precision"])
        self.epoch, self.step, self.seconds = state["epoch"], state["step"], state["seconds"]
        self.loss_sum.copy_(state["loss_sum"])
        self.rows, self.best = state["rows"], state["best"]
        torch.set_rng_state(state["rng"])
        self.folder.write_metrics(self.rows)
        self.progress.emit(f"resume: {self.folder.path} goes on after epoch {self.epoch}, step {self.step}")

    def interrupt(self, number: int) -> None:
        """Save and raise TrainingInterrupted."""
        self.save()
        where = f"epoch {self.epoch + 1}, step {self.step} of {len(self.train_batches)}"
        message = (
            f"stopped by {Signals(number).name} in {where}; everything is saved. Go on with "
            f'resume="{self.folder.path}" (a parameter of the notebooks, --resume on the command line)'
        )
        self.folder.log(message)
        raise TrainingInterrupted(message, number)
