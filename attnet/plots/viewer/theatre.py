"""The theatre: images, modules, channels, epochs, replaced masks in one HTML file; no kernel, no network is needed.

    plots.make_theatre(network, data, images=24).save("masks.html")

It opens from a disk or out of an e-mail; without JavaScript there is a still sheet of the same images. As the value of
a cell it is shown there, and a papermill job leaves it in the executed notebook.
"""

from __future__ import annotations

import base64
import html
import io
import json
import struct
import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from attnet.base.errors import ConfigError
from attnet.base.files.atomic import write_text
from attnet.base.files.outputs import output_file, writing
from attnet.data.splits import Dataset
from attnet.masks.foreign import Foreign
from attnet.masks.frames import BEST, Frame, make_frames
from attnet.masks.look import View
from attnet.model.pretrained import Pretrained
from attnet.plots.viewer.film import Reel, best_module, facts, pack, picture_url, viewer_code, viewer_style
from attnet.plots.viewer.states import States
from attnet.plots.viewer.stills import Shown, as_webp, choose, plot_still

__all__ = ["Theatre", "make_theatre", "stage"]

LIMIT = 5_000_000  # bytes of the file: what an e-mail takes
EPOCHS = 12  # of a training that are shown at most, evenly spread
CHANNELS = 12  # of every module, those that vary most
REPLACED = ("zero", "mean", "shuffled")
_STEP = 20  # images at a time
UNTRUSTED = (
    '<style>.attnet-untrusted { display: none }</style><p class="attnet-untrusted">Masks to play with are here, and '
    "shown once you trust this notebook: View, Activate Command Palette, <em>Trust Notebook</em>.</p>"
)


@dataclass(frozen=True)
class Theatre:
    """A finished theatre: the file's text, and its still sheet (WebP)."""

    html: str
    still: bytes

    def save(self, file: str | Path) -> Path:
        """Write FILE.html; ConfigError where it cannot be written."""
        path = output_file(file, (".html",))
        with writing(f"file={str(file)!r}"):
            write_text(path, self.html)
        return path

    def _repr_mimebundle_(self, **_options: object) -> dict[str, object]:
        """A frame of its own, so that neither side's styles touch the other's; a still where scripts are not let in.

        JupyterLab takes frames and styles out of a notebook that is not trusted: then the words are left.
        """
        frame = 'sandbox="allow-scripts" style="width:100%;height:860px;border:0" title="attention masks"'
        buffer = io.BytesIO()
        Image.open(io.BytesIO(self.still)).save(buffer, "PNG")
        return {
            "text/html": f'{UNTRUSTED}<iframe srcdoc="{html.escape(self.html)}" {frame}></iframe>',
            "image/png": base64.b64encode(buffer.getvalue()).decode(),
            "text/plain": "attnet theatre",
        }


def make_theatre(
    network: Pretrained | Foreign,
    dataset: Dataset,
    images: int | Sequence[int] = 24,
    **options: object,
) -> Theatre:
    """Look at test images in every way that is asked for, and put it all into one HTML file.

    Args:
        network: from `load_pretrained`; where its run kept epochs (`keep_epochs`), these are there as well.
        images: how many, chosen by `telling_images`; or positions among the test images.
        options: as `stage`.

    Raises:
        ConfigError: nothing to show, an image that is not there, or as `stage`.
    """
    return stage(network, choose(network, dataset, images), **options)


def stage(
    network: Pretrained | Foreign,
    shown: Sequence[Shown],
    *,
    replaced: Sequence[str] = REPLACED,
    reductions: Sequence[str] = (BEST, "mean"),
    channels: int = CHANNELS,
    epochs: int = EPOCHS,
    limit: int = LIMIT,
    progress: Callable[[str], None] | None = None,
) -> Theatre:
    """The theatre of any images.

    Args:
        shown: all of one size.
        replaced: interventions, on all masks at once, of the network's own weights.
        reductions: as `reduce_channels`; the first is shown first.
        channels: of every module and image with the network's own weights, those that vary most; fewer where the file
            would grow beyond `limit` bytes.
        epochs: about so many of those kept, at most, evenly spread.
        progress: is told what is being done.

    Raises:
        ConfigError: nothing to show, an intervention or reduction that is not there, or a file beyond the limit even
            without single channels.
    """
    if not shown:
        raise ConfigError("images: at least one image is needed")
    states = States(network)
    places = _spread(len(states.epochs), epochs, states.given)
    images = torch.stack([each.image for each in shown])
    film = _film(states, places, shown, replaced, reductions)
    taken = _take(states, places, images, film, reductions, progress or (lambda _words: None))
    still = as_webp(
        plot_still(shown, taken[film["start"]["epoch"], "none"], film["classes"], states.title, reductions[0])
    )
    while True:
        page = _page(film, _packed(film, taken, channels), still)
        if len(page) <= limit:
            return Theatre(page, still)
        if channels == 0:
            raise ConfigError(f"limit={limit:,}: the file has {len(page):,} bytes; give fewer images or epochs")
        channels //= 2


def _spread(count: int, most: int, given: int) -> list[int]:
    """Positions of about so many of `count` at most, evenly spread, `given` among them."""
    wanted = np.linspace(0, count - 1, min(count, most)) if most > 1 else []
    return sorted({given, *(round(place) for place in wanted)})


def _take(
    states: States,
    places: Sequence[int],
    images: Tensor,
    film: Mapping[str, Any],
    reductions: Sequence[str],
    progress: Callable[[str], None],
) -> dict[tuple[int, str], list[Frame]]:
    """All frames: (epoch, intervention) -> one an image."""
    taken: dict[tuple[int, str], list[Frame]] = {}
    start = film["start"]
    for epoch, place in enumerate(places):
        kinds = [kind for kind, _ in film["replaced"] if kind == "none" or epoch == start["epoch"]]
        for kind in kinds:
            progress(f"{states.epochs[place].name}, masks {'their own' if kind == 'none' else kind}")
            view = View(start["module"], start["part"], intervention=kind, everywhere=True)
            effects = epoch == start["epoch"] and kind == "none"
            taken[epoch, kind] = [
                frame
                for piece in images.split(_STEP)
                for frame in make_frames(states.looker(place), piece, view, reductions, effects=effects)
            ]
    return taken


def _film(
    states: States, places: Sequence[int], shown: Sequence[Shown], replaced: Sequence[str], reductions: Sequence[str]
) -> dict[str, object]:
    """What holds for all frames."""
    known, epochs = facts(states.network), states.facts()
    modules = [module["name"] for module in known["modules"]]
    images = [
        {"set": "shown", "n": n, "name": each.name, "label": each.label, "src": picture_url(each.image)}
        for n, each in enumerate(shown)
    ]
    start = {"image": {"set": "shown", "n": 0}, "module": best_module(modules), "part": known["parts"][0][0]}
    start |= {"reduction": reductions[0], "replaced": "none", "everywhere": True, "epoch": places.index(states.given)}
    return known | {
        "title": states.title,
        "live": False,
        "images": images,
        "epochs": [epochs[place] for place in places],
        "parts": known["parts"][:1],
        "reductions": [pair for name in reductions for pair in known["reductions"] if pair[0] == name],
        "replaced": [pair for pair in known["replaced"] if pair[0] in ("none", *replaced)],
        "start": start,
    }


def _packed(film: Mapping[str, Any], taken: Mapping[tuple[int, str], list[Frame]], channels: int) -> str:
    """The film and its numbers, deflated, in base64."""
    reel, frames = Reel(8), {}
    for (epoch, kind), found in taken.items():
        kept = channels if (epoch, kind) == (film["start"]["epoch"], "none") else 0
        for place, frame in enumerate(found):
            frames[f"{place}/{epoch}/{kind}"] = pack(frame, reel, kept)
    words = json.dumps({**film, "frames": frames}, allow_nan=False).encode()
    return base64.b64encode(zlib.compress(struct.pack("<I", len(words)) + words + reel.bytes(), 9)).decode()


def _page(film: Mapping[str, Any], packed: str, still: bytes) -> str:
    title = html.escape(f"Attention masks: {film['title']}")
    picture = f"data:image/webp;base64,{base64.b64encode(still).decode()}"
    words = "Each image, then every module's mask over it: red places are strengthened, blue ones weakened."
    return f"""<!DOCTYPE html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width">
<title>{title}</title>
<style>body {{ margin: 12px; background: #fff; color: #222; }} #still img {{ max-width: 100%; }}
{viewer_style()}</style></head>
<body><figure id="still"><img src="{picture}" alt="{title}"><figcaption>{title}. {words}</figcaption></figure>
<main id="viewer"></main>
<script type="module">
{viewer_code()}
const root = document.getElementById("viewer"), still = document.getElementById("still");
const failed = (error) => {{ root.textContent = `This browser cannot play it (${{error.message}}).`; }};
play(root, "{packed}").then(() => {{ still.hidden = true; }}, failed);
</script></body></html>
"""
