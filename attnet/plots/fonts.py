"""Characters that the usual font lacks, such as class names in Chinese: another font for them, else their numbers."""

from __future__ import annotations

import functools
import sys
from collections.abc import Iterable, Mapping

from matplotlib.figure import Figure
from matplotlib.font_manager import findfont, findSystemFonts, fontManager, get_font
from matplotlib.text import Text
from matplotlib.ticker import Formatter

from attnet.base.errors import say

# Families for Chinese first, by how well they go with the usual font; whatever else is installed comes after.
PREFERRED = (
    *("Noto Sans CJK SC", "Noto Sans SC", "Source Han Sans SC", "Source Han Sans CN", "Microsoft YaHei", "PingFang SC"),
    *("Hiragino Sans GB", "WenQuanYi Micro Hei", "WenQuanYi Zen Hei", "SimHei", "Heiti SC", "STHeiti", "SimSun"),
    *("Noto Sans CJK JP", "Noto Sans CJK KR", "Malgun Gothic", "Droid Sans Fallback", "Arial Unicode MS"),
)
# Boxes for everything, and coloured bitmaps, which matplotlib cannot draw.
_NO_LETTERS = ("Last Resort", "LastResort", "Color Emoji")


def make_readable(figure: Figure) -> None:
    """Give every text of a figure fonts that have its characters; those that no font has are shown by their numbers, as
    \\u732b, and a hint is given once."""
    texts = [text for text in figure.findobj(Text) if not text.get_text().isascii()]
    if not texts:
        return
    missing = {text: _missing(text) for text in texts}
    wanted = frozenset().union(*missing.values())
    if not wanted:
        return
    families = fonts_for(wanted)
    covered = frozenset().union(*(_installed()[family] for family in families))
    for text, characters in missing.items():
        if characters & covered:
            text.set_fontfamily(list(dict.fromkeys([*text.get_fontfamily(), *families])))
    if left := wanted - covered:
        _show_numbers(figure, texts, left)
        _hint()


def fonts_for(characters: Iterable[str], installed: Mapping[str, frozenset[str]] | None = None) -> list[str]:
    """Families that have these characters together, as far as there are any: few, the preferred ones first.

    Args:
        installed: family -> its characters; None: the fonts of this machine.
    """
    installed = _installed() if installed is None else installed
    order = [*(name for name in PREFERRED if name in installed), *(name for name in installed if name not in PREFERRED)]
    left, chosen = set(characters), []
    while left and order:
        best = max(order, key=lambda name: len(left & installed[name]))  # of equals the first
        if not left & installed[best]:
            break
        chosen.append(best)
        left -= installed[best]
    return chosen


def _missing(text: Text) -> frozenset[str]:
    """The characters of a text that its own fonts lack."""
    own = text.get_fontproperties()
    found: set[str] = set()
    for family in own.get_family():
        prop = own.copy()
        prop.set_family(family)
        found |= _characters(findfont(prop))
    return frozenset(c for c in text.get_text() if c not in found and not c.isspace())


@functools.lru_cache(maxsize=1024)
def _characters(path: str) -> frozenset[str]:
    """What a font file can draw; nothing where it cannot be read."""
    try:
        return frozenset(map(chr, get_font(path).get_charmap()))
    except (OSError, RuntimeError, ValueError):
        return frozenset()


@functools.cache
def _installed() -> dict[str, frozenset[str]]:
    """Family -> characters of all fonts here, also of those that came after matplotlib had made its list."""
    known = {font.fname for font in fontManager.ttflist}
    for path in set(findSystemFonts()) - known:
        try:
            fontManager.addfont(path)
        except (OSError, RuntimeError, ValueError):  # no font that matplotlib reads
            continue
    faces: dict[str, str] = {}
    for font in sorted(fontManager.ttflist, key=lambda font: font.style != "normal"):  # else as they are listed
        faces.setdefault(font.name, font.fname)
    return {name: _characters(file) for name, file in faces.items() if not any(word in name for word in _NO_LETTERS)}


def _show_numbers(figure: Figure, texts: Iterable[Text], characters: frozenset[str]) -> None:
    for axes in figure.axes:
        for axis in (axes.xaxis, axes.yaxis):  # its texts are made anew at every drawing
            if any(characters & set(label.get_text()) for label in axis.get_ticklabels()):
                axis.set_major_formatter(_Numbers(axis.get_major_formatter(), characters))
    for text in texts:
        text.set_text(_numbered(text.get_text(), characters))


def _numbered(text: str, characters: frozenset[str]) -> str:
    return "".join(c.encode("unicode_escape").decode() if c in characters else c for c in text)


class _Numbers(Formatter):
    """Another formatter's labels, some of whose characters are shown by their numbers."""

    def __init__(self, others: Formatter, characters: frozenset[str]) -> None:
        self.others, self.characters = others, characters

    def __call__(self, x: float, pos: int | None = None) -> str:
        return _numbered(self.others(x, pos), self.characters)

    def set_locs(self, locs: object) -> None:
        self.others.set_locs(locs)


@functools.cache
def _hint() -> None:
    """Once a process."""
    say(
        "attnet: no font here has every character of these names: figures show some by their numbers; install a font "
        "that has them, as Noto Sans CJK (Debian: fonts-noto-cjk), and start anew",
        sys.stderr,
    )
