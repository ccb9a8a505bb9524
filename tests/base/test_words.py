"""Texts for people: tables in Markdown, lists written as text."""

import pytest

from attnet.base.errors import ConfigError, nearest
from attnet.base.words import NONE, duration, listed, listed_seeds, table


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


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.83, "0.8 s"),
        (9.96, "10 s"),
        (12.3, "12 s"),
        (59.6, "1 min"),  # nothing is sixty of its unit
        (250, "4 min 10 s"),
        (3599.7, "1 h"),
        (12_480, "3 h 28 min"),
        (86_399, "1 day"),
        (90_000, "1 day 1 h"),
        (8 * 86_400 + 7_200, "8 days 2 h"),
    ],
)
def test_how_long_something_takes(seconds, text):
    assert duration(seconds) == text


def test_what_was_probably_meant():
    assert nearest("trian", ["train", "test"]) == "did you mean 'train'?"
    assert nearest("zzz", ["train", "test"]) == "known are train, test"
    assert nearest("zzz", ["train", "test"], otherwise="") == ""


def test_what_a_file_says_neither_fills_nor_breaks_a_table():
    drawn = table(["run"], [["x" * 1_000_000 + "end"], ["a\nb\x1b[31m\u202eevil"]])
    assert len(drawn.splitlines()) == 4 and max(map(len, drawn.splitlines())) < 600
    assert "(1,000,003 characters)" in drawn and "end |" in drawn
    assert r"a\x0ab\x1b[31m\u202eevil" in drawn


def test_an_error_is_lines_for_every_terminal_of_bounded_length():
    error = str(ConfigError(f"first\n{'x' * 1_000_000}: give another\x1b[2J"))
    assert error.startswith("first\nxxx") and error.endswith(r": give another\x1b[2J") and len(error) < 21_000
    assert str(ConfigError(error)) == error  # one that goes on in another is not cut again
