"""Texts for people: tables in Markdown, lists written as text."""

import pytest

from attnet.base.errors import ConfigError, nearest
from attnet.base.words import NONE, listed, listed_seeds, table


def test_a_table_lines_up_and_sets_figures_to_the_right():
    drawn = table(["run", "Top-1"], [["a|b", "93.10"], ["long name", None]])
    assert drawn.splitlines() == [
        "| run       | Top-1 |",
        "|-----------|------:|",
        "| a\\|b      | 93.10 |",
        f"| long name |     {NONE} |",
    ]
    assert table(["x", "y"], [[1, 22]], words=()).splitlines()[1:] == ["|--:|---:|", "| 1 | 22 |"]


def test_lists_as_text():
    assert listed(" a, b,,c ") == ["a", "b", "c"] and listed("") == []
    assert listed_seeds("0, 12") == [0, 12]
    for text in ("a", "-1", "1.5"):
        with pytest.raises(ConfigError, match=f"seeds='{text}'"):
            listed_seeds(text)


def test_what_was_probably_meant():
    assert nearest("trian", ["train", "test"]) == "did you mean 'train'?"
    assert nearest("zzz", ["train", "test"]) == "known are train, test"
    assert nearest("zzz", ["train", "test"], otherwise="") == ""
