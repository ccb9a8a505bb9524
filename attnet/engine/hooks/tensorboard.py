"""TensorBoard: `tensorboard --logdir RUN` shows what metrics.jsonl holds, masks and confusion beside it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from torch.utils.tensorboard import SummaryWriter

from attnet.base.files.opening import own_folder
from attnet.engine.hooks.hook import Hook, Seen

if TYPE_CHECKING:
    from attnet.engine.parameters import TrainConfig
    from attnet.engine.result import Result

FOLDER = "tensorboard"  # in the run's
# Scalar -> entry of a row. Names with the same beginning stand together.
SCALARS = {
    **{"loss/train": "train_loss", "loss/test": "test_loss", "learning rate": "lr"},
    **{"top1/test": "top1", "top1/with mirror images": "top1_flip"},
    **{"speed/images a second": "fps", "speed/seconds an epoch": "seconds"},
}


class TensorBoard(Hook):
    """Scalars every epoch; pictures where weights are kept, and of the last epoch."""

    def start(self, config: TrainConfig, folder: Path, done: int) -> None:
        """A resumed run goes on in the same folder: what an earlier start told of later epochs is not shown twice."""
        self.writer = SummaryWriter(str(own_folder(folder / FOLDER)), purge_step=done + 1 if done else None)
        given = "\n".join(f"    {name} = {value!r}" for name, value in config.given().items())
        self.writer.add_text("parameters", given, done)
        self.writer.flush()

    def epoch(self, row: Mapping[str, object], seen: Seen) -> None:
        for name, entry in SCALARS.items():
            if entry in row:
                self.writer.add_scalar(name, row[entry], row["epoch"])
        for card, fps in enumerate(row.get("rank_fps", ())):
            self.writer.add_scalar(f"cards/rank {card} images a second", fps, row["epoch"])
        if seen.is_kept:
            for name, picture in seen.pictures().items():
                self.writer.add_image(name, picture, row["epoch"], dataformats="HWC")
        self.writer.flush()

    def end(self, result: Result | None) -> None:
        self.writer.close()
