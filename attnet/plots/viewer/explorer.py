"""The explorer: an image, every module's mask, its channels, the values under the pointer; two states side by side.

In JupyterLab it is live; where a notebook is only read (GitHub, a papermill output) its picture stands there alone.
"""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import anywidget
import traitlets
from PIL import Image
from torch import Tensor, nn

from attnet.base.errors import AttnetError, ConfigError
from attnet.base.files.atomic import write_text
from attnet.base.files.outputs import writing
from attnet.base.files.paths import relative_to_root, resolve_path
from attnet.base.progress import somebody_looks
from attnet.data.pictures import read_whole
from attnet.data.pixels import cut
from attnet.data.splits import Dataset
from attnet.masks.foreign import Foreign
from attnet.masks.frames import BEST, make_frames
from attnet.masks.look import GRAD_CAM, Looker
from attnet.masks.reduce import REDUCTIONS
from attnet.model.pretrained import Pretrained
from attnet.plots.view import plot_look
from attnet.plots.viewer.film import Reel, best_module, facts, pack, picture_url, viewer_code, viewer_style
from attnet.plots.viewer.selection import Selection, read_selection
from attnet.plots.viewer.states import States
from attnet.plots.viewer.stills import Shown, plot_still, stacked
from attnet.plots.viewer.theatre import stage

DPI = 100
CHEAP = tuple(name for name, kind in REDUCTIONS.items() if not kind.looks_first)  # a principal component is not
STRIP = 12  # test images to choose from by a click
_THUMB = 76  # pixels of a side


@dataclass(frozen=True)
class _Own:
    """A picture of the user's, in RGB, and what it is called."""

    name: str
    whole: Image.Image


class Explorer(anywidget.AnyWidget):
    """Look into a trained network: `Explorer(load_pretrained(), dataset)` as the last line of a notebook cell.

    Args:
        network: from `load_pretrained`; or a `Foreign`; or, with `masks`, any classifier of images in [0, 1] that are
            as large as the data set's and have its classes.
        dataset: whose test images to choose from; None: only your own pictures.
        pictures: files of your own to begin with (any format and size); more can be uploaded.
        folder: where "Save" puts views; from the repository root.
        masks: as `attnet.capture_masks`.
        others: more networks of the same modules' names to hold against the first, from `load_pretrained`.

    Where `network` came from a run with `keep_epochs`, a slider goes through the weights of these epochs.

    Raises:
        ConfigError: neither images nor pictures, a network without attention modules, or as `Foreign`.
        DataError: a picture that cannot be read.
    """

    _esm = viewer_code()
    _css = viewer_style()
    film = traitlets.Dict().tag(sync=True)
    asked = traitlets.Dict().tag(sync=True)
    answer = traitlets.Dict().tag(sync=True)
    numbers = traitlets.Bytes(b"").tag(sync=True)

    def __init__(
        self,
        network: Pretrained | nn.Module,
        dataset: Dataset | None = None,
        pictures: Sequence[str | Path] = (),
        folder: str | Path = "runs/explorer",
        masks: Mapping[str, str] | None = None,
        others: Sequence[Pretrained] = (),
    ) -> None:
        if dataset is None and not pictures:
            raise ConfigError("dataset=None and pictures=(): give a data set or at least one picture to look at")
        if masks is not None:
            if dataset is None:
                raise ConfigError(
                    "masks without a dataset: the size of images is not known; give Foreign(..., size=...)"
                )
            network = Foreign(network, masks, tuple(dataset.test.images.shape[-2:]), classes=dataset.classes)
        self.states = [States(each) for each in (network, *others)]
        self.network, self.dataset, self.folder = network, dataset, Path(folder)
        self.own = [_Own(Path(path).name, read_whole(path)) for path in pictures]
        self.said: dict[str, object] = {}  # the last message to the reader
        super().__init__()
        self.film = self._film()
        self.observe(self._answer, "asked")
        self.on_msg(self._told)
        self.asked = {**self.film["start"], "id": 0}

    # -- what there is -----------------------------------------------------------------------------------------------

    def _film(self) -> dict[str, object]:
        known = facts(self.network)
        names = [module["name"] for module in known["modules"]]
        images = self._strip()
        first = next((image for image in images if image["set"] == "own"), images[0])
        start = {
            "image": {"set": first["set"], "n": first["n"]},
            "module": best_module(names) if names else "",
            "part": known["parts"][0][0],
            "reduction": BEST,
            "replaced": "none",
            "everywhere": False,
            "epoch": self.states[0].given,
            "network": 0,
        }
        return known | {
            "title": self.states[0].title,
            "live": True,
            "total": len(self.dataset.test) if self.dataset else 0,
            "images": images,
            "epochs": self.states[0].facts(),
            "networks": [state.name for state in self.states],
            "start": start,
        }

    def _strip(self) -> list[dict[str, object]]:
        """Images to choose by a click: all of your own, and telling ones of the data set."""
        strip = [self._entry("own", n, own.name, "", _thumbnail(own.whole)) for n, own in enumerate(self.own)]
        for n in self.states[0].telling(self.dataset, STRIP) if self.dataset else ():
            strip.append(self._entry("test", n, f"test image {n}", self._label(n), picture_url(self._test(n))))
        return strip

    @staticmethod
    def _entry(kind: str, n: int, name: str, label: str, src: str) -> dict[str, object]:
        return {"set": kind, "n": n, "name": name, "label": label, "src": src}

    def _test(self, number: int) -> Tensor:
        return self.dataset.test.images[number]

    def _label(self, number: int) -> str:
        """The name of its true class; "" for classes that the network does not know."""
        name = self.dataset.classes[int(self.dataset.test.labels[number])]
        return name if name in self.network.classes else ""

    def _label_of(self, asked: Selection) -> str:
        return "" if asked.own else self._label(asked.number)

    # -- what is asked -----------------------------------------------------------------------------------------------

    def _answer(self, change: object) -> None:
        try:
            asked = self._selection(self.asked)
            self._show(asked)
        except AttnetError as error:
            self._say(str(error), alarm=True, id=self.asked.get("id"))

    def _selection(self, said: Mapping[str, object]) -> Selection:
        tests = len(self.dataset.test) if self.dataset else 0
        epochs = [len(state.epochs) for state in self.states]
        return read_selection(said, tests, [own.whole.size for own in self.own], epochs)

    def _images(self, asked: Selection) -> Tensor:
        """What goes through the network: [N, 3, S, S], the active region first."""
        if not asked.own:
            return self._test(asked.number)[None]
        return cut(self.own[asked.number].whole, asked.regions, self.film["size"])

    def _looker(self, asked: Selection) -> Looker:
        return self.states[asked.network].looker(asked.epoch)

    def _show(self, asked: Selection) -> None:
        images, looker = self._images(asked), self._looker(asked)
        frames = make_frames(looker, images, asked.view, _reductions(asked.view.reduction), effects=asked.effects)
        reel = Reel(16)
        header = pack(frames[asked.active], reel)
        if len(frames) > 1:
            header["regions"] = [pack(frame, reel, channels=0) for frame in frames]
        label = self._label_of(asked)
        picture: dict[str, object] = {"name": f"test image {asked.number}", "label": label}
        if asked.own:
            own = self.own[asked.number]
            photo = {"w": own.whole.width, "h": own.whole.height, "regions": asked.regions, "active": asked.active}
            eye = picture_url(images[asked.active])
            picture |= {"name": own.name, "src": picture_url(own.whole), "photo": photo, "eye": eye}
        else:
            picture["src"] = picture_url(images[0])
        header |= {"id": asked.id, "picture": picture}
        self._asked, self.said = asked, {}
        with self.hold_sync():
            self.numbers, self.answer = reel.bytes(), header

    def _told(self, _widget: object, message: Mapping[str, object], buffers: Sequence[memoryview]) -> None:
        try:
            kind = message.get("kind")
            if kind == "upload" and buffers:
                self.add_picture(bytes(buffers[0]), str(message.get("name", "your picture")))
            elif kind == "save":
                self.save(self._selection(message))
            elif kind == "html":
                self._save_html(self._selection(message))
        except (AttnetError, OSError) as error:
            self._say(str(error), alarm=True)

    def _say(self, text: str, **more: object) -> None:
        self.said = {"kind": "say", "text": text, **more}
        self.send(self.said)

    def move(self, **changes: object) -> None:
        """Choose something else, as the controls do: image, module, part, reduction, channel, replaced, epoch ..."""
        self.asked = {**self.asked, **changes, "id": self.asked["id"] + 1}

    # -- pictures of your own, saving --------------------------------------------------------------------------------

    def add_picture(self, source: str | Path | bytes, name: str = "") -> None:
        """Look at a picture of your own; DataError where it cannot be read."""
        self.own.append(_Own(name or Path(str(source)).name, read_whole(source, name=name)))
        new = self._entry("own", len(self.own) - 1, self.own[-1].name, "", _thumbnail(self.own[-1].whole))
        self.film = {**self.film, "images": [new, *self.film["images"]]}
        self.send({"kind": "images", "look": {"set": "own", "n": new["n"]}})

    def save(self, asked: Selection | None = None) -> Path:
        """Write view-NNN.png of what is shown, and view-NNN.py that draws it again; its path without an ending."""
        asked = asked or self._asked
        image = self._images(asked)[asked.active]
        label = self._label_of(asked)
        with writing(f"folder={str(self.folder)!r}"):
            folder, stem = self._free("view")
            file = ""
            if asked.own:
                file = str(folder / f"{stem}-input.png")  # the region as the network takes it, without loss
                Image.fromarray(image.permute(1, 2, 0).numpy()).save(file)
            code = self.code(file, stem, asked)
            plot_look(self._looker(asked).look(image, asked.view), label).savefig(folder / f"{stem}.png", dpi=DPI)
            write_text(folder / f"{stem}.py", code)
        where = relative_to_root(folder / stem)
        self._say(f"Saved {where}.png and the code that draws it, {stem}.py:", code=code)
        return folder / stem

    def _free(self, kind: str) -> tuple[Path, str]:
        """The folder, made, and a name in it with which no file begins."""
        folder = resolve_path(self.folder)
        folder.mkdir(parents=True, exist_ok=True)
        taken = {path.stem[: len(kind) + 4] for path in folder.glob(f"{kind}-*")}
        return folder, next(name for name in (f"{kind}-{n:03d}" for n in range(1, 10**6)) if name not in taken)

    def _save_html(self, asked: Selection) -> None:
        """Write masks-NNN.html: what is shown now, and the test images of the strip."""
        now = self._images(asked)
        names = [self.own[asked.number].name] * len(now) if asked.own else [f"test image {asked.number}"]
        labels = [self._label_of(asked)] * len(now)
        shown = [Shown(*each) for each in zip(now, names, labels, strict=True)]
        for image in self.film["images"]:
            if image["set"] == "test" and (asked.own or image["n"] != asked.number):
                shown.append(Shown(self._test(image["n"]), image["name"], image["label"]))
        theatre = stage(self.states[asked.network].network, shown)
        with writing(f"folder={str(self.folder)!r}"):
            folder, stem = self._free("masks")
        file = theatre.save(folder / f"{stem}.html")
        self._say(f"Saved {relative_to_root(file)} ({len(theatre.html) / 1e6:.1f} MB): it opens anywhere")

    def code(self, picture: str = "", stem: str = "view", asked: Selection | None = None) -> str:
        """A script that draws the present view again; `picture` is the file of a picture of your own."""
        asked = asked or self._asked
        label = self._label_of(asked)
        if asked.own:
            reading = "from attnet.data.pictures import read_picture\n"
            source = f"image = read_picture({picture!r}, network.size)"
        else:
            reading = ""
            path = None if self.dataset.name == "shapes" else self.dataset.source
            size = f", {self.network.size}" if self.dataset.name == "folder" else ""
            source = f"dataset = attnet.load_dataset({path!r}, {self.dataset.name!r}{size})\n"
            source += f"image = dataset.test.images[{asked.number}]"
        label = f", label={label!r}" if label else ""
        network = f"attnet.load_pretrained({self.states[asked.network].weights(asked.epoch)!r})"
        if isinstance(self.network, Foreign):
            reading += "from attnet.masks.foreign import Foreign\n"
            given = f"{self.network.paths!r}, {self.network.image_size!r}, classes={self.network.classes!r}"
            network = f"Foreign(..., {given})  # in the place of ... your network, as you made it"
        return (
            f"import attnet\nfrom attnet import plots\n{reading}from attnet.masks.look import View\n\n"
            f"network = {network}\n{source}\n"
            f"view = {asked.view.code()}\n"
            f'plots.plot_view(network, view, image{label}).savefig("{stem}.png", dpi={DPI})\n'
        )

    # -- without a browser -------------------------------------------------------------------------------------------

    @property
    def png(self) -> bytes:
        """Every module's map of the present image, and below them the present view, as a still picture."""
        asked, looker = self._asked, self._looker(self._asked)
        image, label, state = self._images(asked)[asked.active], self._label_of(asked), self.states[asked.network]
        view, figures = asked.view, [plot_look(looker.look(image, asked.view), label)]
        if view.part != GRAD_CAM:
            frames = make_frames(looker, image, view, [view.reduction])
            shown = [Shown(image, "", label)]
            figures.insert(0, plot_still(shown, frames, state.network.classes, state.title, view.reduction))
        return stacked(figures, DPI)

    def _repr_mimebundle_(self, **options: object) -> dict[str, object] | tuple[dict, dict]:
        """Widget and picture; the picture alone when nobody looks, since controls without a kernel are dead."""
        picture = {"image/png": base64.b64encode(self.png).decode(), "text/plain": "attnet explorer"}
        if not somebody_looks():
            return picture
        bundle = super()._repr_mimebundle_(**options)
        if isinstance(bundle, tuple):
            return {**picture, **bundle[0]}, bundle[1]
        return {**picture, **(bundle or {})}


def _reductions(chosen: str) -> tuple[str, ...]:
    """Those that cost next to nothing, and the one that was chosen."""
    return (*CHEAP, *([chosen] if chosen in REDUCTIONS and chosen not in CHEAP else []))


def _thumbnail(whole: Image.Image) -> str:
    small = whole.copy()
    small.thumbnail((_THUMB, _THUMB))
    return picture_url(small)
