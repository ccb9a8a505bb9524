"""The embedded data set `shapes`: ten kinds of textured objects among clutter that is as loud, with their masks.

Each kind has its form and its texture; place, size, colours, contrast and tilt are drawn alike for all. Objects stand
anywhere in the frame and may be cut by it. Shards of other textures, as large, as contrasted and as coloured as the
objects, cover most of the rest, and small pieces of the objects' own textures lie about: so neither edges nor colours
nor the middle of the image tell where the object is, and a network has to see what fills a form. As every object's
pixels are known, the network's own masks can be measured against them, and against what needs no network.

Image i depends on the seed and on i alone, and its bytes are the same everywhere: the random words come raw
from PCG64, whose stream numpy guarantees, and the drawing uses only operations that IEEE 754 rounds exactly
(no sine of a random angle, no sum whose order a machine may choose).
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from attnet.base.errors import ConfigError
from attnet.data.splits import Dataset, Split

SIZE = 32  # pixels on a side
TILT = 2  # of objects, at most, either way, in 64ths of a turn
SHARDS = 7  # large pieces of clutter in an image, of textures that no object wears
SCRAPS = 2  # small ones, of the objects' textures
EDGE = 4  # pixels from the frame that an object's centre keeps at least
GRAIN = 0.1  # peak to peak, of the full range of brightness
WORDS = 256  # random numbers that an image may use besides its grain
CHUNK = 100  # images drawn at a time, about, to stay in the cache: any number gives the same images

Field = np.ndarray  # [n, 32, 32] float32: a number for each pixel
Column = np.ndarray  # [n, 1, 1] float32: a number for each image
Image = np.ndarray  # [n, 3, 32, 32] float32 in [0, 1]


# Forms: the distance to the edge, negative inside, seen from the object's own axes `u`, `v`; all in pixels.
# `r` is the reach: nothing of the object lies farther than that from its centre.


def _disc(u: Field, v: Field, r: Column) -> Field:
    return np.sqrt(u * u + v * v) - r


def _box(u: Field, v: Field, half_u: Column, half_v: Column) -> Field:
    return np.maximum(np.abs(u) - half_u, np.abs(v) - half_v)


def _cross(u: Field, v: Field, r: Column) -> Field:
    return np.minimum(_box(u, v, 0.96 * r, 0.27 * r), _box(u, v, 0.27 * r, 0.96 * r))


def _moon(u: Field, v: Field, r: Column) -> Field:
    return np.maximum(_disc(u, v, r), -_disc(u - 0.55 * r, v, 0.75 * r))


def _bow(u: Field, v: Field, r: Column) -> Field:
    return np.maximum(np.abs(u) - 0.7 * r, 0.74 * (np.abs(v) - 0.92 * np.abs(u) - 0.06 * r))


def _sides(u: Field, v: Field, normals: tuple[tuple[float, float], ...], inner: Column) -> np.ndarray:
    """[sides, n, 32, 32]: distances to a polygon's sides; its inscribed circle has radius `inner`."""
    return np.stack([a * u + b * v - inner for a, b in normals])


def _triangle(u: Field, v: Field, r: Column) -> Field:
    return _sides(u, v, ((0, 1), (0.866, -0.5), (-0.866, -0.5)), 0.5 * r).max(axis=0)


def _star(u: Field, v: Field, r: Column) -> Field:
    """A five-pointed star is where at most one side of a pentagon has the pixel on its outer side."""
    pentagon = ((0, 1), (0.951, 0.309), (0.588, -0.809), (-0.588, -0.809), (-0.951, 0.309))
    second = np.sort(_sides(u, v, pentagon, 0.36 * r), axis=0)[-2]
    return np.maximum(second, _disc(u, v, r))  # blunts the tips, which a pixel could not show anyway


def _arrow(u: Field, v: Field, r: Column) -> Field:
    """A head with its tip at 0.95 r, before a shaft."""
    head = np.maximum(-0.05 * r - u, 0.8 * (np.abs(v) - 0.75 * (0.95 * r - u)))
    return np.minimum(head, _box(u + 0.45 * r, v, 0.5 * r, 0.24 * r))


# Textures: how much of the object's second colour shows, in [0, 1]. `grain` is in [0, 1) too.
# They differ enough for a small network to tell them apart within a few hundred steps.


def _wave(x: Field, period: float) -> Field:
    """Triangle wave in [-1, 1]; `period` in pixels."""
    x = x / period
    return 4 * np.abs(x - np.floor(x) - 0.5) - 1


def _crisp(x: Field) -> Field:
    return np.clip(1.5 * x + 0.5, 0, 1)


Texture = Callable[[Field, Field, Field], Field]

TEXTURES: dict[str, Texture] = {
    "plain": lambda u, v, grain: np.zeros_like(u),
    "lines": lambda u, v, grain: _crisp(_wave(u, 4)),
    "stripes": lambda u, v, grain: _crisp(_wave(v, 4)),
    "hatch": lambda u, v, grain: _crisp(_wave(u + v, 6)),
    "checks": lambda u, v, grain: _crisp(2 * _wave(u, 8) * _wave(v, 8)),
    "fade": lambda u, v, grain: 0.5 + 0.5 * _wave(u, 12),
    "dots": lambda u, v, grain: _crisp(_wave(u, 4) + _wave(v, 4) - 0.5),
    "waves": lambda u, v, grain: _crisp(_wave(u + 1.5 * _wave(v, 8), 4)),
    "grid": lambda u, v, grain: np.maximum(_crisp(_wave(u, 8) - 0.4), _crisp(_wave(v, 8) - 0.4)),
    "speckle": lambda u, v, grain: (grain > 0.5).astype(np.float32),
}
# None is plain: what has no texture would stand out from what has one, and edges would tell it from the objects.
CLUTTER: dict[str, Texture] = {
    "broad": lambda u, v, grain: _crisp(_wave(u, 7)),
    "zigzag": lambda u, v, grain: _crisp(_wave(u + 2 * _wave(v, 8), 5)),
    "blotches": lambda u, v, grain: (grain[:, ::2, ::2] > 0.5).repeat(2, axis=1).repeat(2, axis=2).astype(np.float32),
}


@dataclass(frozen=True)
class Kind:
    """A class: the texture its object wears, the range of its reach in pixels, and its form.

    The ranges give all kinds much the same area, about 150 to 390 pixels, so that size tells little.
    """

    name: str
    texture: str
    reach: tuple[float, float]
    form: Callable[[Field, Field, Column], Field]


KINDS = (
    Kind("disc", "lines", (7.0, 11.2), _disc),
    Kind("ring", "plain", (8.0, 12.8), lambda u, v, r: np.abs(_disc(u, v, 0.75 * r)) - 0.25 * r),
    Kind("square", "checks", (9.0, 14.0), lambda u, v, r: _box(u, v, 0.7 * r, 0.7 * r)),
    Kind("triangle", "dots", (11.0, 15.5), _triangle),
    Kind("cross", "hatch", (10.0, 14.5), _cross),
    Kind("star", "speckle", (10.5, 15.5), _star),
    Kind("bar", "stripes", (11.0, 15.5), lambda u, v, r: _box(u, v, 0.94 * r, 0.34 * r)),
    Kind("moon", "waves", (10.0, 14.5), _moon),
    Kind("bow", "fade", (12.0, 17.0), _bow),
    Kind("twins", "grid", (12.0, 15.5), lambda u, v, r: _disc(np.abs(u) - 0.53 * r, v, 0.46 * r)),
)
ARROW = Kind("arrow", "hatch", (10.5, 15.0), _arrow)  # not in the set: something new for a network that knows it

_Y, _X = np.indices((SIZE, SIZE), dtype=np.float32)
# A turn in 64 steps, rounded to 1/4096, since the last digits of a cosine differ from machine to machine.
_COS = (np.round(np.cos(np.arange(64) * (np.pi / 32)) * 4096) / 4096).astype(np.float32)
_SIN = np.roll(_COS, 16)
# [3, 32]: how much of the first, middle and last colour a row or a column of the background has.
_HATS = np.maximum(0, 1 - np.abs(_X[:3] / 15.5 - _Y[:3]))


class _Draws:
    """Hands out the random numbers of n images one after the other; `uniform` is [n, WORDS] in [0, 1)."""

    def __init__(self, uniform: np.ndarray) -> None:
        self.uniform = uniform
        self.used = 0

    def column(self, low: float | Column = 0.0, high: float | Column = 1.0) -> Column:
        value = self.uniform[:, self.used, None, None]
        self.used += 1
        return (low + (high - low) * value).astype(np.float32)

    def colour(self, low: float, high: float) -> np.ndarray:
        """[n, 3, 1, 1]: red, green and blue, each on its own."""
        return np.stack([self.column(low, high) for _ in range(3)], axis=1)

    def axes(self, low: float | Column, high: float | Column, tilt: int) -> tuple[Field, Field]:
        """Pixel coordinates from a centre in [low, high), turned by up to `tilt`/64 turns either way."""
        x, y = _X - self.column(low, high), _Y - self.column(low, high)
        step = np.floor(self.column(-tilt, tilt + 1)).astype(np.int64)
        return _COS[step] * x + _SIN[step] * y, _COS[step] * y - _SIN[step] * x


def _paint(canvas: Image, distance: Field, colour: np.ndarray) -> None:
    """Lays `colour` over `canvas` where `distance` is negative; the edge is a pixel soft, half-way at 0."""
    cover = np.clip(0.5 - distance, 0, 1)[:, None]
    canvas += cover * (colour - canvas)


def _wear(textures: dict[str, Texture], which: np.ndarray, u: Field, v: Field, grain: Field) -> Field:
    """Each image's own texture of `textures`, by number int64 [n]."""
    shown = np.empty_like(u)
    for number, texture in enumerate(textures.values()):
        i = which == number
        shown[i] = texture(u[i], v[i], grain[i])
    return shown


def _colours(draws: _Draws, second: Field) -> Image:
    """A light and a dark colour by how much of the second shows; as often dark on light as light on dark."""
    light, dark = draws.colour(0.65, 1), draws.colour(0, 0.2)
    second = np.where(draws.column() < 0.5, second, 1 - second)
    return light + second[:, None] * (dark - light)


def _clutter(canvas: Image, draws: _Draws, grain: Field, textures: dict[str, Texture], low: float, high: float) -> None:
    """Lays a shard over the canvas: a disc with two sides cut off, of a reach in [low, high)."""
    u, v = draws.axes(-1, SIZE, 32)
    reach, across = draws.column(low, high), np.floor(draws.column(0, 64)).astype(np.int64)
    first, second = (draws.column(-0.1, 0.6) * reach for _ in range(2))
    distance = np.maximum(_disc(u, v, reach), np.maximum(v - first, _COS[across] * u + _SIN[across] * v - second))
    which = np.floor(draws.column(0, len(textures))).astype(np.int64)[:, 0, 0]
    worn = _wear(textures, which, u + draws.column(0, 12), v + draws.column(0, 12), grain)
    _paint(canvas, distance, _colours(draws, worn))


def _background(draws: _Draws, grain: Field, count: int) -> Image:
    """Nine dull colours that run into each other, and the clutter on them."""
    canvas = np.zeros((count, 3, SIZE, SIZE), np.float32)
    for row in range(3):
        for column in range(3):
            canvas += _HATS[row, :, None] * _HATS[column] * draws.colour(0.2, 0.6)
    for _ in range(SHARDS):
        _clutter(canvas, draws, grain, CLUTTER, 9, 16)
    for _ in range(SCRAPS):
        _clutter(canvas, draws, grain, TEXTURES, 3, 6)
    return canvas


def _draw(labels: np.ndarray, draws: _Draws, grain: Image, kinds: Sequence[Kind]) -> tuple[np.ndarray, np.ndarray]:
    """Images uint8 [n, 3, 32, 32] and their objects' pixels bool [n, 32, 32]; `grain` has 4 planes."""
    canvas = _background(draws, grain[:, 3], len(labels))
    low, high = np.array([kind.reach for kind in kinds], np.float32)[labels].T[..., None, None]
    reach = draws.column(low, high)
    u, v = draws.axes(EDGE, SIZE - 1 - EDGE, TILT)
    distance = np.empty_like(u)
    for label, kind in enumerate(kinds):
        i = labels == label
        distance[i] = kind.form(u[i], v[i], reach[i])
    worn = np.array([list(TEXTURES).index(kind.texture) for kind in kinds])[labels]
    second = _wear(TEXTURES, worn, u + draws.column(0, 12), v + draws.column(0, 12), grain[:, 3])
    _paint(canvas, distance, _colours(draws, second))
    canvas += GRAIN * (grain[:, :3] - 0.5)
    return np.clip(np.floor(canvas * 255 + 0.5), 0, 255).astype(np.uint8), distance <= 0


def draw_split(count: int, seed: int, stream: int, kinds: Sequence[Kind] = KINDS) -> Split:
    """The first `count` images of a stream; every len(kinds) in a row show each kind once, in random order.

    Streams of one seed share no image; `make_shapes` has 0 and 1.
    """
    words = np.random.PCG64(np.random.SeedSequence((seed, stream)))
    chunk = max(1, CHUNK // len(kinds)) * len(kinds)
    images = np.empty((count, 3, SIZE, SIZE), np.uint8)
    labels = np.empty(count, np.int64)
    masks = np.empty((count, SIZE, SIZE), np.bool_)
    for start in range(0, count, chunk):
        raw = words.random_raw((chunk, WORDS + SIZE * SIZE))
        draws = _Draws((raw[:, :WORDS] >> np.uint64(11)) * 2.0**-53)
        grain = raw[:, WORDS:].astype("<u8").view("<u2").reshape(chunk, SIZE, SIZE, 4).transpose(0, 3, 1, 2)
        order = draws.column().reshape(-1, len(kinds)).argsort(axis=1, kind="stable").reshape(-1)
        drawn, covered = _draw(order, draws, grain.astype(np.float32) / 65536, kinds)
        here = slice(start, min(start + chunk, count))
        size = here.stop - start
        images[here], labels[here], masks[here] = drawn[:size], order[:size], covered[:size]
    return Split(*(torch.from_numpy(array) for array in (images, labels, masks)))


def make_shapes(train: int = 2000, test: int = 500, seed: int = 0) -> Dataset:
    """Draw the data set `shapes`: two seconds for the default 2,500 images on one core.

    Args:
        train, test: images in each split, at least 0. A smaller set is the beginning of a larger one, and
            multiples of 10 hold the ten classes equally often.
        seed: at least 0. The two splits draw from streams of their own.

    Returns:
        A Dataset whose splits have `images` uint8 [N, 3, 32, 32], `labels` int64 [N] and `masks` bool
        [N, 32, 32]: the pixels of which the object covers at least half.
    """
    for name, value in (("train", train), ("test", test), ("seed", seed)):
        if value < 0:
            raise ConfigError(f"{name}: {value} is negative; it must be 0 or more")
    classes = tuple(kind.name for kind in KINDS)
    source = f"attnet.data.shapes, seed {seed}"
    return Dataset(draw_split(train, seed, 0), draw_split(test, seed, 1), classes, "shapes", source)


@functools.cache
def _usual() -> Dataset:
    return make_shapes()


def load(source: Path, name: str, size: int) -> Dataset:
    """The data set as every run sees it, drawn once a process; it lies nowhere and has one size."""
    return _usual()
