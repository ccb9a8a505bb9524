"""What takes two rooms: training, and the picture of it that grows under the cell of a notebook."""

from __future__ import annotations

from typing import TYPE_CHECKING

from attnet.base.watching import Sight
from attnet.engine.fit import fit as _fit
from attnet.engine.fit import plan_run
from attnet.engine.launching.launch import launch as _launch
from attnet.engine.parameters import TrainConfig
from attnet.engine.plan import Plan
from attnet.engine.result import Result, standing

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from attnet.plots import LoggedPictures


def fit(config: TrainConfig | Plan, log: object = None) -> Result:
    """Train (or, with is_train=False, only evaluate) as `config` says; see `attnet.engine.fit.fit`."""
    return _fit(config, draw=Learning, log=log, pictures=_pictures)


def launch(config: TrainConfig | Plan) -> Result:
    """Train with `device_num` processes, one a card, through torchrun; see `attnet.engine.launching.launch.launch`."""
    return _launch(config, draw=Learning)


def make_plan(config: TrainConfig) -> Plan:
    """What `fit` will do and why, before it is done; see `attnet.engine.fit.plan_run`."""
    return plan_run(config)


def _pictures(plan: Plan) -> LoggedPictures:
    from attnet.plots import LoggedPictures  # here, since few logs ask for pictures

    return LoggedPictures(plan)


class Learning:
    """The picture of a training: its curves and, where the network is at hand, what becomes of one image's mask.

    The image is the one of 200 test images whose object stands out most, its map the maximum over the channels
    of the last module.
    """

    def __init__(self, config: TrainConfig, plan: Plan | None = None) -> None:
        self.kind = standing(config.to_dict(), {}, {})[0]
        self.chance = config.num_classes and 100 / config.num_classes  # None until the data are read
        self.plan, self.glimpses = plan, None

    def note(self, sight: Sight) -> None:
        """Look at the image's mask as it is now."""
        if self.plan is None or sight.look is None or (network := sight.look()) is None:
            return
        from attnet.masks.reduce import attention_maps  # these here, since a training in a shell does without
        from attnet.masks.scale import neutral
        from attnet.model.units import set_inplace

        set_inplace(network, False)  # what is looked at stays as it was
        modules = network.attention_modules()
        if network.variant.attention == "none" or not modules:
            return
        name, module = list(modules.items())[-1]
        if self.glimpses is None:
            self._choose(name, neutral(module, "mask", "max"))
        if (done := sight.epochs) not in self.glimpses.epochs:
            maps = attention_maps(network, self.images, "mask", "max", [name], full_size=False)
            self.glimpses.epochs.append(done)
            self.glimpses.maps.append(maps[name][0])

    def picture(self, sight: Sight) -> Figure:
        """All that is known so far."""
        from attnet.plots import plot_learning  # here, since matplotlib takes a second to import

        return plot_learning(sight, self.glimpses, self.chance, self.kind)

    def _choose(self, module: str, middle: float | None) -> None:
        import torch

        from attnet.masks.choose import plain_image
        from attnet.plots import Glimpses

        test = self.plan.dataset.test
        chosen = test.rows(torch.tensor([plain_image(test)]))
        self.images = next(iter(self.plan.test_batches(split=chosen))).images
        words = f"{module}, maximum over channels: the mask of one test image as it is learned"
        self.glimpses = Glimpses(chosen.images[0], words, middle)
