"""Tables of notebooks: read as they are without JavaScript, no cell of many lines, nothing that is not escaped."""

import re
import textwrap

import pytest

from attnet.base.pages import LINES, WIDEST, Fold, Page, html_table

LONG = (
    "measured: a run of twenty-four epochs on one card, from the weights attention56_cifar, record attention92_losses"
)


def widths(html: str) -> list[int]:
    head = html[html.index("<thead>") : html.index("</thead>")]
    return [int(width) for width in re.findall(r"min-width:(\d+)ch", head)]


def test_every_cell_has_room_for_three_lines_at_most():
    rows = [["measured", "90.88", LONG], ["x", "1", "short"]]
    html = html_table(["Kind", "Top-1 (%)", "Source"], rows, (0, 2))
    narrow = widths(html)
    for column, width in enumerate(narrow):
        assert max(len(textwrap.wrap(row[column], width)) for row in rows) <= LINES
    assert narrow[2] < len(LONG) / 2, "and no more room than that takes"


def test_a_table_is_plain_html_with_heads_to_click_on():
    html = html_table(["a", "b"], [["<b>", 1.5]])
    assert re.findall(r"<td[^>]*>([^<]*)</td>", html) == ["&lt;b&gt;", "1.5"]
    assert html.count('onclick="attnetSort(this)"') == 2
    assert re.findall(r"<td style=.text-align:(\w+)", html) == ["left", "right"]


@pytest.mark.parametrize("fold", ["", "12 records & more"])
def test_what_is_folded_stands_behind_its_line(fold):
    html = Page(html_table(["a"], [["1"]]), fold)._repr_html_()
    assert ("<details><summary>12 records &amp; more</summary>" in html) == bool(fold)
    assert (
        Fold("the table", "| a |")._repr_markdown_() == "<details><summary>the table</summary>\n\n| a |\n\n</details>"
    )


def test_what_is_too_long_for_three_lines_is_cut_and_whole_where_the_mouse_rests():
    story = " ".join(f"word{i}" for i in range(80))
    html = html_table(["a"], [[story]])
    [(whole, cut)] = re.findall(r'<td title="([^"]*)"[^>]*>([^<]*)</td>', html)
    assert whole == story and cut.endswith(" …") and story.startswith(cut.removesuffix(" …"))
    assert len(textwrap.wrap(cut, WIDEST)) <= LINES and widths(html)[0] <= WIDEST
