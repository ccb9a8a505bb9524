"""States of a network to move through: its weights, and those of the epochs that its run kept."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass, field

from attnet.base.errors import AttnetError
from attnet.base.files.paths import resolve_path
from attnet.base.json_files import read_lines
from attnet.data.splits import Dataset
from attnet.engine.result import ROW
from attnet.engine.run_folder import METRICS, epoch_files
from attnet.masks.choose import telling_images
from attnet.masks.foreign import Foreign
from attnet.masks.look import Looker
from attnet.model.pretrained import Pretrained, load_pretrained

AMONG = 60  # images considered for the first sight, so that nobody waits for it


@dataclass(frozen=True)
class Epoch:
    """Weights along a training: their file, the epochs done, and Top-1 (%) then, where it is known."""

    weights: str
    name: str
    top1: float | None = None


@dataclass
class States:
    """A network and, where its run kept them, the weights of other epochs; each is opened when it is looked at.

    `epochs` are in their order; `given` is the place of the network's own weights among them.
    """

    network: Pretrained | Foreign
    epochs: list[Epoch] = field(init=False)
    given: int = field(init=False)

    def __post_init__(self) -> None:
        own = Looker(self.network)  # says what is wrong with a network that cannot be looked into
        self.epochs, self.given = _epochs(self.network)
        self._lookers = {self.given: own}

    @property
    def name(self) -> str:
        """What a menu calls it."""
        return getattr(self.network, "weights", "") or type(self.network).__name__

    @property
    def title(self) -> str:
        """One line: which network."""
        return self.network.describe() if isinstance(self.network, Pretrained) else self.name

    def facts(self) -> list[dict[str, object]]:
        """Name and Top-1 of each epoch, for the viewer."""
        return [{"name": epoch.name, "top1": epoch.top1} for epoch in self.epochs]

    def weights(self, epoch: int) -> str:
        """What `load_pretrained` takes for them."""
        return self.epochs[epoch].weights

    def looker(self, epoch: int) -> Looker:
        """What looks at the weights of an epoch, by its place in `epochs`."""
        if epoch not in self._lookers:
            self._lookers[epoch] = Looker(load_pretrained(self.epochs[epoch].weights, classes=self.network.classes))
        return self._lookers[epoch]

    def telling(self, dataset: Dataset, count: int) -> list[int]:
        """Test images to begin with, by `telling_images` among a few."""
        model = self.network.model
        return telling_images(model, dataset.test, count, among=AMONG).tolist()


def _epochs(network: Pretrained | Foreign) -> tuple[list[Epoch], int]:
    """The network's own weights among those that its run kept, in order, and their place."""
    if isinstance(network, Foreign):
        return [Epoch("", "as given")], 0
    own = Epoch(network.weights, f"epoch {network.epoch}" if network.epoch else "as given", network.top1)
    folder = resolve_path(network.weights or ".")
    files = epoch_files(folder if folder.is_dir() else folder.parent) if network.weights else []
    kept = {int(file.stem[6:]): file for file in files if file.stem[6:].isdecimal()}
    if not kept or network.epoch is None:
        return [own], 0
    rows: list[dict[str, object]] = []
    with contextlib.suppress(AttnetError, OSError):
        rows = read_lines(files[0].parent / METRICS, ROW, ("epoch", "top1"))
    top1 = {row["epoch"]: row["top1"] for row in rows}
    found = {number: Epoch(str(file), f"epoch {number}", top1.get(number)) for number, file in kept.items()}
    order = sorted((found | {network.epoch: own}).items())
    return [epoch for _, epoch in order], [number for number, _ in order].index(network.epoch)
