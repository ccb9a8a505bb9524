"""A view computes what it says, remembers its passes, and draws the same picture again."""

import numpy as np
import pytest
import torch
from matplotlib.backends.backend_agg import FigureCanvasAgg

import attnet
from attnet import plots
from attnet.base.errors import ConfigError
from attnet.masks import look as views
from attnet.masks.capture import capture
from attnet.masks.look import Looker, View, top_classes
from attnet.masks.reduce import reduce_channels
from attnet.masks.replace import intervene
from attnet.masks.saliency import grad_cam
from attnet.masks.scale import robust_scale
from attnet.model.pretrained import Pretrained

CLASSES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")


@pytest.fixture(scope="module")
def network() -> Pretrained:
    torch.manual_seed(0)
    return Pretrained(attnet.build_model("attention56_tiny").eval(), CLASSES, "none")


@pytest.fixture(scope="module")
def image() -> torch.Tensor:
    return torch.randint(0, 256, (3, 32, 32), dtype=torch.uint8, generator=torch.Generator().manual_seed(3))


def test_a_look_holds_what_capture_gives(network, image):
    look = Looker(network).look(image, View("stage2.0", "trunk", "l2"))
    taken = capture(network.model, image, ["trunk"])
    trunk = taken.features["stage2.0"]["trunk"]
    corners = reduce_channels(trunk, "l2")[0, ::15, ::15]
    torch.testing.assert_close(look.map[::31, ::31], corners)
    assert (look.scale.smallest, look.scale.largest) == (look.map.min().item(), look.map.max().item())
    assert (look.channels, look.resolution) == (64, (16, 16))
    assert look.mean == pytest.approx(trunk.mean().item(), abs=1e-6)
    assert (look.smallest, look.largest) == (trunk.min().item(), trunk.max().item())
    torch.testing.assert_close(look.probabilities, taken.logits[0].softmax(0))
    assert torch.equal(look.probabilities, look.untouched)


@pytest.mark.parametrize("everywhere", [False, True])
def test_interventions_are_on_one_mask_or_all(network, image, everywhere):
    view = View("stage2.0", intervention="zero", everywhere=everywhere)
    look = Looker(network).look(image, view)
    modules = ["stage1.0", "stage2.0", "stage3.0"] if everywhere else ["stage2.0"]
    expected = intervene(network.model, image, dict.fromkeys(modules, "zero"))[0].softmax(0)
    torch.testing.assert_close(look.probabilities, expected)
    torch.testing.assert_close(look.untouched, capture(network.model, image).logits[0].softmax(0))
    assert look.scale.smallest == look.scale.largest == look.mean == 0 and "the same everywhere" in look.sentence()


def test_grad_cam_is_the_modules_and_of_the_predicted_class(network, image):
    look = Looker(network).look(image, View("stage2.0", "Grad-CAM"))
    assert torch.equal(look.map, grad_cam(network.model, image, module="stage2.0")[0])


def test_another_module_or_reduction_costs_no_pass(network, image, monkeypatch):
    passes = []
    monkeypatch.setattr(views, "capture", lambda *given: passes.append(given) or capture(*given))
    looker = Looker(network)
    for view in (View("stage1.0"), View("stage2.0", "1/2", "pca"), View("stage3.0", "masked", "channel:3")):
        looker.look(image, view)
    assert len(passes) == 1
    looker.look(image, View("stage1.0", intervention="one"))
    looker.look(image, View("stage1.0", "trunk", intervention="one"))
    assert len(passes) == 2
    for shade in range(10):
        looker.look(torch.full_like(image, shade), View("stage1.0"))
    assert len(passes) == 12 and len(looker.passes) == views.KEPT


@pytest.mark.parametrize(
    ("view", "message"),
    [
        (View("stage4.0"), r"module='stage4\.0': this network has stage1\.0"),
        (View("stage2.0", "1/4"), r"part='1/4': stage2\.0 has input, trunk, mask, masked, 1/2, Grad-CAM"),
        (View("stage1.0", intervention="halved"), r"intervention='halved': choose none or one of zero"),
        (View("stage1.0", reduction="channel:99"), "there are channels 0 to 31"),
    ],
)
def test_what_is_not_there_gets_a_sentence(network, image, view, message):
    with pytest.raises(ConfigError, match=message):
        Looker(network).look(image, view)


def test_a_sentence_says_what_the_picture_shows(network, image):
    look = Looker(network).look(image, View("stage3.0", intervention="zero"))
    before, after = CLASSES[look.untouched.argmax()], CLASSES[look.probabilities.argmax()]
    sentence = look.sentence("cat")
    assert f"says {after}, {100 * look.probabilities.max():.1f} per cent" in sentence
    assert f"(untouched: {before}, " in sentence and "labelled cat" in sentence and "8 by 8" in sentence
    lit = torch.zeros(32, 32)
    lit[30, 2] = 1
    moved = look.__class__(**{**vars(look), "map": lit, "scale": robust_scale(lit)})
    assert "highest at the bottom left" in moved.sentence()


def test_the_class_that_led_before_stays_in_sight(network, image):
    look = Looker(network).look(image, View("stage1.0"))
    untouched = torch.zeros(10)
    last = int(look.probabilities.argmin())
    untouched[last] = 1.0
    moved = look.__class__(**{**vars(look), "untouched": untouched})
    assert top_classes(look) == look.probabilities.argsort(descending=True)[:5].tolist()
    assert top_classes(moved) == [*look.probabilities.argsort(descending=True)[:4].tolist(), last]


def pixels(figure) -> np.ndarray:
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    return np.asarray(canvas.buffer_rgba())


@pytest.mark.parametrize(
    "view",
    [
        View("stage1.0", "mask", "channel:3", 0.2),
        View("stage2.0", "1/2", "max", intervention="shuffled", everywhere=True),
        View("stage3.0", "Grad-CAM"),
    ],
)
def test_the_code_of_a_view_draws_it_again(network, image, view):
    again = eval(view.code(), {"View": View})
    assert again == view
    drawn, before = (pixels(plots.plot_view(network, each, image, "cat")) for each in (again, view))
    assert np.array_equal(drawn, before)


def test_figure_says_prediction_truth_part_range_and_change(network, image):
    view = View("stage2.0", intervention="zero", everywhere=True)
    look, figure = Looker(network).look(image, view), plots.plot_view(network, view, image, "cat")
    figure.canvas.draw()
    words = [text.get_text() for ax in figure.axes for text in (ax.title, *ax.texts, *ax.get_yticklabels())]
    words += [text.get_text() for text in figure.texts]
    said = CLASSES[look.probabilities.argmax()]
    assert f"{said} {100 * look.probabilities.max():.0f} %{'' if said == 'cat' else ', is cat'}" in words
    assert {"stage2.0: mask M", "16×16, mean of 64 channels", "every mask: zero"} <= set(words)
    assert [CLASSES[k] for k in top_classes(look)] == [word for word in words if word in CLASSES]
    k = top_classes(look)[0]
    change = round(100 * (look.probabilities[k] - look.untouched[k]).item())
    assert any(word.endswith(f"({change:+d})".replace("+0", "±0")) for word in words)
    width, height = figure.canvas.get_width_height()
    drawn = [text for ax in figure.axes for text in (ax.title, *ax.texts, *(ax.get_yticklabels() if ax.axison else ()))]
    for text in [*figure.texts, *drawn]:
        box = text.get_window_extent()
        assert not text.get_text() or (box.x0 >= 0 and box.y0 >= 0 and box.x1 <= width and box.y1 <= height), text
