"""The explorer: choose an image, a module and what to show of it, replace masks, and see at once what changes.

In JupyterLab it is live; where a notebook is only read (GitHub, a papermill output) its picture stands there alone.
"""

from __future__ import annotations

import base64
import html
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import ipywidgets as widgets
from torch import Tensor, nn

from attnet.base.errors import AttnetError, ConfigError
from attnet.base.files import relative_to_root, resolve_path, write_text
from attnet.base.progress import somebody_looks
from attnet.data.pictures import read_picture
from attnet.data.splits import Dataset
from attnet.masks.foreign import Foreign
from attnet.masks.look import GRAD_CAM, Look, Looker, View
from attnet.masks.reduce import REDUCTIONS
from attnet.masks.replace import INTERVENTIONS
from attnet.model.modules import PARTS, module_parts
from attnet.model.network import attention_network
from attnet.model.pretrained import Pretrained
from attnet.plots.view import plot_look

DPI = 100
_PARTS = {
    "mask": "soft mask M",
    "trunk": "trunk T (before the mask)",
    "masked": "after the mask",
    "input": "input of both branches",
}
_REDUCTIONS = [*((kind.words, name) for name, kind in REDUCTIONS.items()), ("one channel", "channel")]


@dataclass(frozen=True)
class _Own:
    """A picture of the user's: how it is called, as the network takes it, and its file's bytes."""

    name: str
    image: Tensor
    content: bytes


def _dropdown(label: str, options: Sequence[tuple[str, object]], width: str = "280px") -> widgets.Dropdown:
    return widgets.Dropdown(options=options, description=label, layout=widgets.Layout(width=width))


def _number(label: str, high: int, value: int, tip: str, step: int = 1) -> widgets.BoundedIntText:
    style = {"description": label, "tooltip": tip, "layout": widgets.Layout(width="140px")}
    return widgets.BoundedIntText(value, min=0, max=high, step=step, **style)


class Explorer(widgets.VBox):
    """Look into a trained network: `Explorer(load_pretrained(), dataset)` as the last line of a notebook cell.

    Args:
        network: from `load_pretrained`; or a `Foreign`; or, with `masks`, any classifier of images in [0, 1] that are
            as large as the data set's and have its classes.
        dataset: whose test images to choose from; None: only your own pictures.
        pictures: files of your own to begin with (any format and size); more can be uploaded.
        folder: where "Save" puts views; from the repository root.
        masks: as `attnet.capture_masks`.

    Raises:
        ConfigError: neither images nor pictures, a network without attention modules, or as `Foreign`.
        DataError: a picture that cannot be read.
    """

    def __init__(
        self,
        network: Pretrained | nn.Module,
        dataset: Dataset | None = None,
        pictures: Sequence[str | Path] = (),
        folder: str | Path = "runs/explorer",
        masks: Mapping[str, str] | None = None,
    ) -> None:
        if dataset is None and not pictures:
            raise ConfigError("dataset=None and pictures=(): give a data set or at least one picture to look at")
        if masks is not None:
            if dataset is None:
                raise ConfigError(
                    "masks without a dataset: the size of images is not known; give Foreign(..., size=...)"
                )
            network = Foreign(network, masks, tuple(dataset.test.images.shape[-2:]), classes=dataset.classes)
        self.network, self.dataset, self.folder = network, dataset, Path(folder)
        self.looker = Looker(network)
        self.modules = attention_network(network.model).attention_modules()
        files = [resolve_path(path) for path in pictures]
        self.own = [_Own(path.name, read_picture(path, network.size), path.read_bytes()) for path in files]
        self.png = b""
        self.busy = False  # while the explorer itself moves controls
        rows = self._make_controls()
        self.picture = widgets.HTML()
        self.message = widgets.HTML()
        wrap = widgets.Layout(flex_flow="row wrap")
        super().__init__([*(widgets.HBox(row, layout=wrap) for row in rows), self.picture, self.message])
        for control in [child for row in rows for child in row if child not in (self.upload, self.save)]:
            control.observe(self._moved, "value")
        self.upload.observe(self._uploaded, "value")
        self.save.on_click(lambda _button: self._save())
        self._moved()

    # -- controls ----------------------------------------------------------------------------------------------------

    def _make_controls(self) -> list[list[widgets.Widget]]:
        """All that can be moved, row by row."""
        last = len(self.dataset.test) - 1 if self.dataset else 0
        tip = "look at a picture of your own: any format, any size"
        self.source = _dropdown("images", self._sources())
        self.number = _number("number", last, 0, f"which test image, 0 to {last}")
        self.upload = widgets.FileUpload(accept="image/*", description="your picture", tooltip=tip)
        self.module = _dropdown("module", [(name, name) for name in self.modules], "190px")
        self.part = _dropdown("show", self._parts(), "265px")
        self.reduction = _dropdown("channels", _REDUCTIONS, "215px")
        self.channel = _number("channel", self._channels() - 1, 0, "which channel, when one is shown")
        self.strength = _number("overlay %", 100, 60, "how strongly the map is laid over the image", step=10)
        self.intervention = _dropdown("mask is", [("its own", "none"), *((kind, kind) for kind in INTERVENTIONS)])
        narrow, tip = widgets.Layout(width="150px"), "write this view as PNG, and the code that draws it"
        self.everywhere = widgets.Checkbox(description="in every module", indent=False, layout=narrow)
        self.save = widgets.Button(description="Save view", icon="save", tooltip=tip)
        return [
            [self.source, self.number, self.upload],
            [self.module, self.part, self.reduction, self.channel],
            [self.strength, self.intervention, self.everywhere, self.save],
        ]

    def _sources(self) -> list[tuple[str, int]]:
        """The data set is -1, your own pictures count from 0."""
        own = [(f"your picture: {own.name}", i) for i, own in enumerate(self.own)]
        return [*([(f"{self.dataset.name}, test", -1)] if self.dataset else []), *own]

    def _parts(self) -> list[tuple[str, str]]:
        there = module_parts(self.modules[self.module.value])
        scales = {part: f"mask branch at {part}" for part in there if part not in PARTS}
        return [(label, part) for part, label in (_PARTS | scales).items() if part in there] + [(GRAD_CAM, GRAD_CAM)]

    def _channels(self) -> int:
        return self.modules[self.module.value].channels

    @property
    def view(self) -> View:
        """The view that the controls stand for."""
        reduction = self.reduction.value
        return View(
            module=self.module.value,
            part=self.part.value,
            reduction=f"channel:{self.channel.value}" if reduction == "channel" else reduction,
            strength=self.strength.value / 100,
            intervention=self.intervention.value,
            everywhere=self.everywhere.value,
        )

    @property
    def image(self) -> Tensor:
        """The image looked at, uint8 [3, H, W]."""
        own = self.source.value
        return self.own[own].image if own >= 0 else self.dataset.test.images[self.number.value]

    @property
    def label(self) -> str:
        """The name of its true class; "" for a picture of your own, or classes that the network does not know."""
        if self.source.value >= 0:
            return ""
        name = self.dataset.classes[int(self.dataset.test.labels[self.number.value])]
        return name if name in self.network.classes else ""

    # -- what happens ------------------------------------------------------------------------------------------------

    def _moved(self, change: object = None) -> None:
        """Draw anew after any control has moved."""
        if self.busy:
            return
        self._offer()
        self.number.disabled = self.source.value >= 0
        self.reduction.disabled = self.part.value == GRAD_CAM
        self.channel.disabled = self.reduction.disabled or self.reduction.value != "channel"
        try:
            self._draw(self.looker.look(self.image, self.view))
        except AttnetError as error:
            self._say(str(error), alarm=True)

    def _offer(self) -> None:
        """What the module and the pictures at hand allow to choose; what was chosen stays where it still exists."""
        self.busy = True
        for control, options in ((self.part, self._parts()), (self.source, self._sources())):
            if list(control.options) != options:
                chosen = control.value
                control.options = options
                control.value = chosen if chosen in [value for _, value in options] else options[0][1]
        self.channel.max = self._channels() - 1
        self.busy = False

    def _draw(self, look: Look) -> None:
        buffer = io.BytesIO()
        plot_look(look, self.label).savefig(buffer, dpi=DPI)
        self.png = buffer.getvalue()
        words = html.escape(look.sentence(self.label))
        data = base64.b64encode(self.png).decode()
        self.picture.value = (
            f'<img src="data:image/png;base64,{data}" alt="{words}" style="max-width:100%;height:auto">'
            f'<p role="status" aria-live="polite" style="margin:0">{words}</p>'
        )
        self.message.value = ""

    def _say(self, text: str, alarm: bool = False, code: str = "") -> None:
        colour = "color:#B00020" if alarm else ""
        shown = f'<pre style="margin:4px 0;line-height:1.3">{html.escape(code)}</pre>' if code else ""
        role = "alert" if alarm else "status"
        self.message.value = f'<p role="{role}" style="margin:4px 0;{colour}">{html.escape(text)}</p>{shown}'

    def _uploaded(self, change: object) -> None:
        if not change.new:
            return
        name, content = change.new[-1]["name"], bytes(change.new[-1]["content"])
        self.upload.value = ()  # so that the same file can come again
        try:
            self.own.append(_Own(name, read_picture(content, self.network.size, name), content))
        except AttnetError as error:
            self._say(str(error), alarm=True)
            return
        self._offer()
        self.source.value = len(self.own) - 1

    def _save(self) -> None:
        """Write view-NNN.png, and view-NNN.py that draws it again."""
        try:
            folder = resolve_path(self.folder)
            folder.mkdir(parents=True, exist_ok=True)
            taken = {path.stem[:8] for path in folder.glob("view-*")}
            stem = next(name for name in (f"view-{n:03d}" for n in range(1, 10**6)) if name not in taken)
            picture = ""
            if self.source.value >= 0:
                own = self.own[self.source.value]
                picture = str(folder / f"{stem}-input{Path(own.name).suffix}")
                Path(picture).write_bytes(own.content)
            code = self.code(picture, stem)
            (folder / f"{stem}.png").write_bytes(self.png)
            write_text(folder / f"{stem}.py", code)
        except OSError as error:
            self._say(f"{self.folder}: could not be written ({error}); give another folder=", alarm=True)
            return
        self._say(f"Saved {relative_to_root(folder / stem)}.png and the code that draws it, {stem}.py:", code=code)

    def code(self, picture: str = "", stem: str = "view") -> str:
        """A script that draws the current view again; `picture` is the file of a picture of your own."""
        if self.source.value >= 0:
            reading = "from attnet.data.pictures import read_picture\n"
            source = f"image = read_picture({picture or self.own[self.source.value].name!r}, network.size)"
        else:
            reading = ""
            path = None if self.dataset.name == "shapes" else self.dataset.source
            size = f", {self.network.size}" if self.dataset.name == "folder" else ""
            source = f"dataset = attnet.load_dataset({path!r}, {self.dataset.name!r}{size})\n"
            source += f"image = dataset.test.images[{self.number.value}]"
        label = f", label={self.label!r}" if self.label else ""
        network = "attnet.load_pretrained({!r})".format(getattr(self.network, "weights", ""))
        if isinstance(self.network, Foreign):
            reading += "from attnet.masks.foreign import Foreign\n"
            asked = f"{self.network.paths!r}, {self.network.image_size!r}, classes={self.network.classes!r}"
            network = f"Foreign(..., {asked})  # in the place of ... your network, as you made it"
        return (
            f"import attnet\nfrom attnet import plots\n{reading}from attnet.masks.look import View\n\n"
            f"network = {network}\n{source}\n"
            f"view = {self.view.code()}\n"
            f'plots.plot_view(network, view, image{label}).savefig("{stem}.png", dpi={DPI})\n'
        )

    def _repr_mimebundle_(self, **options: object) -> dict[str, object] | tuple[dict, dict]:
        """Widget and picture; the picture alone when nobody looks, since controls without a kernel are dead."""
        picture = {"image/png": base64.b64encode(self.png).decode(), "text/plain": "attnet explorer"}
        if not somebody_looks():
            return picture
        bundle = super()._repr_mimebundle_(**options)
        return {**picture, **bundle} if isinstance(bundle, dict) else bundle
