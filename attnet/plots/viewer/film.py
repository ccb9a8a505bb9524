"""What the viewer shows, as numbers in one block of bytes and a header that says where each stands.

The explorer sends a frame at a time to the browser; the theatre keeps many in one file. the viewer reads both.
Numbers are whole ones of 8 or 16 bits between the smallest and the largest of their block: (large - small) / 255 or
/ 65535 is how exactly they are kept.
"""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from dataclasses import asdict
from importlib import resources

import matplotlib as mpl
import numpy as np
import torch
from PIL import Image
from torch import Tensor

from attnet.base.errors import ConfigError
from attnet.masks.foreign import Foreign
from attnet.masks.frames import CHANNEL, Frame, Panel, variation
from attnet.masks.look import GRAD_CAM
from attnet.masks.reduce import REDUCTIONS
from attnet.masks.replace import INTERVENTIONS
from attnet.model.modules import module_parts
from attnet.model.network import attention_network
from attnet.model.pretrained import Pretrained
from attnet.model.reach import Field, receptive_field
from attnet.plots.sheet import BOTH_SIGNS, ONE_SIGN
from attnet.plots.view import PART_WORDS, part_words

REPLACED_WORDS = {
    "none": "its own",
    "zero": "0 everywhere",
    "one": "1 everywhere",
    "mean": "its mean (no places)",
    "shuffled": "shuffled over places",
    "inverse": "turned around, 1 − M",
}


class Reel:
    """A block of numbers that grows; `add` returns where and how they stand in it."""

    def __init__(self, bits: int) -> None:
        self.kind = {8: np.uint8, 16: np.dtype("<u2")}[bits]
        self.pieces: list[bytes] = []
        self.length = 0

    def add(self, values: Tensor) -> dict[str, float]:
        """Keep finite numbers of any shape; what is not finite becomes the smallest."""
        numbers = np.nan_to_num(values.detach().double().cpu().numpy(), posinf=0, neginf=0)
        low, high = float(numbers.min()), float(numbers.max())
        steps = np.iinfo(self.kind).max
        whole = np.rint((numbers - low) * (steps / (high - low) if high > low else 0)).astype(self.kind)
        entry = {"at": self.length, "n": whole.size, "lo": low, "hi": high}
        self.pieces.append(whole.tobytes())
        self.length += whole.size
        return entry

    def bytes(self) -> bytes:
        """All of it, little-endian."""
        return b"".join(self.pieces)


def pack(frame: Frame, reel: Reel, channels: int | None = None) -> dict[str, object]:
    """A frame's header; its numbers go to the reel. `channels`: those that vary most, so many; None: all."""
    panels = {name: _pack_panel(panel, reel, channels) for name, panel in frame.panels.items()}
    return {
        "p": [round(p, 5) for p in frame.probabilities.tolist()],
        "before": [round(p, 5) for p in frame.untouched.tolist()],
        "effects": {name: round(value, 5) for name, value in frame.effects.items()},
        "panels": panels,
    }


def _pack_panel(panel: Panel, reel: Reel, channels: int | None) -> dict[str, object]:
    count, height, width = panel.channels.shape
    spread = variation(panel.channels)
    order = spread.argsort(descending=True, stable=True)
    kept = order if channels is None else order[:channels]
    maps = {name: reel.add(map_) | {"scale": asdict(panel.scales[name])} for name, map_ in panel.maps.items()}
    packed: dict[str, object] = {"h": height, "w": width, "c": count, "maps": maps}
    if len(kept):
        block = reel.add(panel.channels[kept]) | {"scale": asdict(panel.scales[CHANNEL])}
        packed |= {"channels": block, "numbers": kept.tolist()}
    return packed


def facts(network: Pretrained | Foreign) -> dict[str, object]:
    """What is true of a network whatever is looked at: classes, modules with their receptive fields, parts."""
    modules = attention_network(network.model).attention_modules()
    fields = {(field.module, field.scale): field for field in _fields(network)}
    parts = list(dict.fromkeys(part for module in modules.values() for part in module_parts(module)))
    ordered = [part for part in PART_WORDS if part in (*parts, GRAD_CAM)] + [p for p in parts if p not in PART_WORDS]
    has_masks = [name for name, module in modules.items() if module.mask is not None]
    return {
        "classes": list(network.classes),
        "modules": [
            {"name": name, "field": _side(fields.get((name, "mask")) or fields.get((name, "trunk")))}
            for name in modules
        ],
        "size": network.size if isinstance(network.size, int) else max(network.size),
        "parts": [[part, part_words(part)] for part in ordered],
        "reductions": [[name, f"{kind.words} of all channels"] for name, kind in REDUCTIONS.items()],
        "replaced": [
            [kind, REPLACED_WORDS.get(kind, kind)] for kind in ("none", *(INTERVENTIONS if has_masks else ()))
        ],
        "colours": {"both": _colours(BOTH_SIGNS), "one": _colours(ONE_SIGN)},
    }


def _fields(network: Pretrained | Foreign) -> list[Field]:
    """Receptive fields; none where it is not known what a place sees: a unit that is not ours, another network."""
    if isinstance(network, Foreign):
        return []
    try:
        return receptive_field(network.model)
    except ConfigError:
        return []


def _side(field: Field | None) -> float | None:
    """The side of a receptive field in pixels; None where it is unknown or has no end."""
    return None if field is None or field.size == float("inf") else field.size


def _colours(name: str) -> str:
    """256 colours of a matplotlib colour map, RGB, base64."""
    return base64.b64encode(np.uint8(255 * mpl.colormaps[name](np.linspace(0, 1, 256))[:, :3] + 0.5).tobytes()).decode()


def picture_url(image: Tensor | Image.Image) -> str:
    """A data URL: small images as PNG, photographs (Pillow) as JPEG."""
    buffer = io.BytesIO()
    if isinstance(image, Image.Image):
        image.save(buffer, "JPEG", quality=90)
        return f"data:image/jpeg;base64,{base64.b64encode(buffer.getvalue()).decode()}"
    pixels = image if image.dtype == torch.uint8 else (image.clamp(0, 1) * 255).round().to(torch.uint8)
    Image.fromarray(pixels.permute(1, 2, 0).cpu().numpy()).save(buffer, "PNG")
    return f"data:image/png;base64,{base64.b64encode(buffer.getvalue()).decode()}"


def viewer_code() -> str:
    """The viewer's JavaScript, as one module."""
    return "\n".join(_text(f"{part}.js") for part in ("numbers", "drawing", "viewer", "sources"))


def viewer_style() -> str:
    """The viewer's style sheet."""
    return _text("viewer.css")


def _text(name: str) -> str:
    return resources.files("attnet.plots.viewer").joinpath(name).read_text(encoding="utf-8")


def best_module(names: Sequence[str]) -> str:
    """The module to begin with: the last, whose masks find objects best."""
    return names[-1]
