"""Class names in any language: shown in a font that has their characters, else by the characters' numbers."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from fontTools.fontBuilder import FontBuilder
from fontTools.pens.ttGlyphPen import TTGlyphPen
from matplotlib import font_manager
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.text import Text

from attnet import plots
from attnet.plots import fonts
from attnet.plots.fonts import fonts_for

CLASSES = ("猫", "dog", "狗 ö", "cat")


@pytest.fixture(autouse=True)
def nothing_known_before() -> Iterator[None]:
    before = list(font_manager.fontManager.ttflist)
    for known in (fonts._installed, fonts._hint):
        known.cache_clear()
    yield
    font_manager.fontManager.ttflist[:] = before
    for known in (fonts._installed, fonts._hint):
        known.cache_clear()


def write_font(file: Path, family: str, characters: str) -> Path:
    """A font whose characters are all the same square."""
    pen = TTGlyphPen(None)
    for corner, draw in (
        ((0, 0), pen.moveTo),
        ((500, 0), pen.lineTo),
        ((500, 700), pen.lineTo),
        ((0, 700), pen.lineTo),
    ):
        draw(corner)
    pen.closePath()
    names = [".notdef", *(f"g{i}" for i in range(len(characters)))]
    builder = FontBuilder(1000, isTTF=True)
    builder.setupGlyphOrder(names)
    builder.setupCharacterMap({ord(c): f"g{i}" for i, c in enumerate(characters)})
    square = pen.glyph()
    builder.setupGlyf(dict.fromkeys(names, square))
    builder.setupHorizontalMetrics(dict.fromkeys(names, (600, 0)))
    builder.setupHorizontalHeader(ascent=800, descent=-200)
    builder.setupNameTable({"familyName": family, "styleName": "Regular"})
    builder.setupOS2()
    builder.setupPost()
    builder.save(file)
    return file


def drawn(classes: tuple[str, ...]) -> list[Text]:
    """The texts of a confusion table after it was drawn; a character without a glyph is a warning, and so an error."""
    figure = plots.plot_confusion(np.eye(len(classes)) * 5, classes)
    with warnings.catch_warnings():
        warnings.filterwarnings("error", message="Glyph")
        FigureCanvasAgg(figure).draw()
        FigureCanvasAgg(figure).draw()  # as a notebook that shows it twice
    return [text for text in figure.findobj(Text) if text.get_text()]


def test_names_are_in_a_font_that_has_them(tmp_path, monkeypatch, capsys):
    """Also one that was installed after matplotlib had made its list of fonts."""
    file = write_font(tmp_path / "own.ttf", "Attnet Test", "猫狗")
    monkeypatch.setattr(fonts, "findSystemFonts", lambda: [str(file)])
    texts = drawn(CLASSES)
    assert {"猫", "狗 ö"} <= {text.get_text() for text in texts}
    for text in texts:
        assert ("Attnet Test" in text.get_fontfamily()) == any(c in text.get_text() for c in "猫狗"), text
    assert capsys.readouterr().err == ""


def test_names_that_no_font_has_are_shown_by_numbers_with_a_hint_once(monkeypatch, capsys):
    known = {"DejaVu Sans": frozenset("".join(map(chr, range(32, 0x250))))}
    monkeypatch.setattr(fonts, "_installed", lambda: known)
    monkeypatch.setattr(fonts._installed, "cache_clear", lambda: None, raising=False)
    for _ in range(2):
        shown = {text.get_text() for text in drawn(CLASSES)}
        assert {r"\u732b", r"\u72d7 ö", "dog"} <= shown and not any(c in "".join(shown) for c in "猫狗")
    assert capsys.readouterr().err.count("install a font that has them, as Noto Sans CJK") == 1


def test_titles_too(monkeypatch, tmp_path):
    file = write_font(tmp_path / "own.ttf", "Attnet Test", "猫")
    monkeypatch.setattr(fonts, "findSystemFonts", lambda: [str(file)])
    figure = plots.plot_batch(torch.rand(2, 3, 8, 8), torch.tensor([0, 1]), ("猫", "dog"))
    figure._repr_png_()
    (title,) = [text for text in figure.findobj(Text) if text.get_text() == "猫"]
    assert title.get_fontfamily()[-1] == "Attnet Test"


def test_few_fonts_are_taken_the_preferred_first():
    installed = {
        "A": frozenset("猫狗"),
        "SimHei": frozenset("猫狗"),
        "Noto Sans CJK SC": frozenset("猫"),
        "B": frozenset("ก"),
    }
    assert fonts_for("猫", installed) == ["Noto Sans CJK SC"]
    assert fonts_for("猫狗", installed) == ["SimHei"]
    assert fonts_for("猫ก", installed) == ["Noto Sans CJK SC", "B"]
    assert fonts_for("☃", installed) == [] == fonts_for("", installed)


def test_ascii_names_ask_for_no_fonts(monkeypatch):
    monkeypatch.setattr(fonts, "fonts_for", lambda *_: pytest.fail("asked"))
    drawn(("cat", "dog"))


@pytest.mark.skipif(not {f.name for f in font_manager.fontManager.ttflist} & {*fonts.PREFERRED}, reason="no such font")
def test_an_installed_font_for_chinese_is_found(capsys):
    assert {"猫", "狗 ö"} <= {text.get_text() for text in drawn(CLASSES)} and capsys.readouterr().err == ""


def test_looking_through_the_fonts_says_nothing(caplog):
    fonts._installed.cache_clear()
    assert fonts._installed()
    assert not caplog.records
