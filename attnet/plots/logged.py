"""Pictures for a training's log: masks of some test images, and what is taken for what."""

from __future__ import annotations

import numpy as np
import torch
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from torch import nn

from attnet.engine.evaluation import Evaluation
from attnet.engine.plan import Plan
from attnet.engine.result import standing
from attnet.masks.capture import capture
from attnet.masks.choose import plain_image
from attnet.masks.reduce import reduce_channels
from attnet.model.units import set_inplace
from attnet.plots import sheet
from attnet.plots.training import plot_confusion

__all__ = ["LoggedPictures"]

IMAGES, DPI = 8, 100


class LoggedPictures:
    """Draws a network and its evaluation: name -> uint8 [H, W, 3].

    Images are the same at every epoch: the one whose object stands out most, then the first of each class.
    """

    def __init__(self, plan: Plan) -> None:
        test = plan.dataset.test
        labels = test.labels.cpu().tolist()
        firsts = [labels.index(label) for label in sorted(set(labels))]
        chosen = list(dict.fromkeys([plain_image(test), *firsts]))[:IMAGES]
        self.part = test.rows(torch.tensor(chosen))
        self.batch = next(iter(plan.test_batches(split=self.part))).images[: len(chosen)]
        self.kind = standing(plan.config.to_dict(), {}, {})[0]
        self.classes = plan.dataset.classes

    def __call__(self, network: nn.Module, evaluation: Evaluation) -> dict[str, np.ndarray]:
        """The masks of every module, where it has some, and the confusion matrix."""
        set_inplace(network, False)  # what is looked at stays as it was
        found = {"confusion": plot_confusion(evaluation.confusion, self.classes, self.kind)}
        if (masks := self._masks(network)) is not None:
            found["masks"] = masks
        return {name: pixels(figure) for name, figure in found.items()}

    def _masks(self, network: nn.Module) -> Figure | None:
        """A column an image, a row a module: the mean of its mask over channels, each module on its own scale."""
        seen = capture(network, self.batch)
        maps = {name: reduce_channels(parts["mask"], "mean").float() for name, parts in seen.features.items() if parts}
        if not maps:
            return None
        titles = sheet.make_titles(seen.logits, self.classes, self.part.labels, apart="\n")
        above = [sheet.title_room(titles), *[sheet.GAP] * len(maps)]
        before = [1.25, *[sheet.GAP] * (len(self.batch) - 1)]
        figure, axes = sheet.make_sheet(self.part.images, above, before, 1.0, "mask M, mean over channels")
        scales = []
        for place, image in enumerate(self.part.images):
            sheet.draw_image(axes[0, place], image, titles[place])
        for row, (name, masks) in enumerate(maps.items(), 1):
            scales.append(sheet.scale_of(network, name, masks, "mask", "mean"))
            words = f"{name}\nM {sheet.colours_and_all(scales[-1])}"
            style = {"xycoords": "axes fraction", "fontsize": 8, "linespacing": 1.2}
            axes[row, 0].annotate(words, (-0.06, 0.5), ha="right", va="center", **style)
            for ax, mask in zip(axes[row], masks, strict=True):
                sheet.draw_map(ax, mask, scales[-1])
        sheet.own_bar(figure, axes, scales, "mask M")
        return figure


def pixels(figure: Figure) -> np.ndarray:
    """A figure as uint8 [H, W, 3]."""
    figure.set_dpi(DPI)
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    return np.asarray(canvas.buffer_rgba())[..., :3].copy()
