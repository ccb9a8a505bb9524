"""Figures of the court: what is drawn of answers that are known."""

import pytest
import torch
from conftest import check_words

import attnet
from attnet import plots
from attnet.base.intervals import Interval
from attnet.masks.questions import CANNOT_TELL, NO, QUESTIONS, YES, Answer, Verdict
from attnet.plots.figure import BLUE, GREEN, GREY, ORANGE, RED


def interval(mean: float) -> Interval:
    return Interval(mean, mean - 0.1, mean + 0.1)


def answer(question: str, verdict: str, controls: int) -> Answer:
    found = {f"control {k}": interval(0.5 - 0.01 * k) for k in range(controls)}
    beside = {"Grad-CAM": interval(0.55)} if question == "object" else {}
    return Answer(question, verdict, ("masks", interval(0.7)), ("control 0", found["control 0"]),
                  interval(0.2), found, beside)  # fmt: skip


@pytest.fixture
def verdict() -> Verdict:
    said = (YES, NO, CANNOT_TELL, YES, NO, NO)
    answers = {key: answer(key, word, 3 + 2 * k) for k, (key, word) in enumerate(zip(QUESTIONS, said, strict=True))}
    return Verdict(answers, 500, 150)


def test_every_question_stands_with_its_answer(verdict):
    figure = plots.plot_verdict(verdict)
    figure.draw_without_rendering()
    assert len(figure.axes) == 6
    colours = {YES: GREEN, NO: RED, CANNOT_TELL: GREY}
    for ax, (key, said) in zip(figure.axes, verdict.answers.items(), strict=True):
        assert ax.get_title(loc="left").replace("\n", " ") == QUESTIONS[key].words
        assert ax._right_title.get_text() == said.verdict and ax._right_title.get_color() == colours[said.verdict]
        assert ax.get_xlabel().replace("\n", " ") == QUESTIONS[key].measure
        names = [label.get_text().replace("\n", " ") for label in ax.get_yticklabels()]
        assert names[0] == "masks" and names[-1].startswith("control")
        points = [line for line in ax.lines if len(line.get_xdata()) == 1]
        assert points[0].get_xdata()[0] == pytest.approx(0.7) and points[0].get_color() == BLUE
        assert ("Grad-CAM" in names) == (key == "object") == (ORANGE in [line.get_color() for line in points])


def test_the_strongest_controls_come_first_and_the_rest_is_counted(verdict):
    ax = plots.plot_verdict(verdict).axes[-1]  # 13 controls
    names = [label.get_text() for label in ax.get_yticklabels()]
    assert names == ["masks", *(f"control {k}" for k in range(7))]
    assert "and 6 weaker controls" in [text.get_text() for text in ax.texts]


def test_what_cannot_be_measured_says_why(verdict):
    said = Answer("object", CANNOT_TELL, reason="the objects' pixels of these images are not known")
    figure = plots.plot_verdict(Verdict({**verdict.answers, "object": said}, 500, 150))
    ax = figure.axes[1]
    assert not ax.axison and "the objects' pixels" in ax.texts[0].get_text()


def test_words_do_not_touch(verdict):
    figure = plots.plot_verdict(verdict)
    check_words(figure)
    for ax in figure.axes:
        left, right = ax._left_title.get_window_extent(), ax._right_title.get_window_extent()
        assert left.x1 < right.x0
        assert ax.xaxis.label.get_window_extent().x1 <= figure.bbox.x1


def test_doubts_stand_beside_the_mask():
    torch.manual_seed(0)
    model = attnet.build_model("attention56_tiny")
    images = torch.rand(3, 3, 32, 32)
    figure = plots.plot_doubts(model, images, "stage1.0", beside=["edges"])
    assert len(figure.axes) == 3 * 4
    heads = [ax.get_title() for ax in figure.axes[:4]]
    assert heads == ["image", "trained", "untrained", "edges"]
    trained, untrained = (figure.axes[k].images[0].get_array() for k in (1, 2))
    assert trained.shape == untrained.shape == (32, 32) and not (trained == untrained).all()
    one = plots.plot_doubts(model, images[0], "stage2.0")
    assert len(one.axes) == 5
    nothing = plots.plot_doubts(attnet.build_model("attention56_tiny", attention="none"), images, "stage1.0")
    assert [text.get_text() for text in nothing.texts] == ["nothing to show: no module has a mask"]
