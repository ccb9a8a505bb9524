"""The court: networks made by hand whose answers are known, and one made to fail each question."""

from __future__ import annotations

import json

import pytest
import torch
import torch.nn.functional as F
from made_masks import colours, objects, tried, with_masks
from networks import narrow, trained
from torch import Tensor, nn

import attnet
from attnet.base.errors import ConfigError
from attnet.base.intervals import Interval
from attnet.data.splits import Split
from attnet.masks import controls, verdict
from attnet.masks.controls import IMAGE_CONTROLS
from attnet.masks.faithfulness import Removal
from attnet.masks.questions import CANNOT_TELL, NO, QUESTIONS, YES, Verdict, decide
from attnet.masks.verdict import judge, probe
from attnet.model.network import standardising

COUNT, FAITHFUL = 80, 36


@pytest.fixture(autouse=True)
def few_controls(monkeypatch):
    kept = {name: IMAGE_CONTROLS[name] for name in ("edges, 5x5 mean", "centre prior", "local entropy")}
    monkeypatch.setattr(controls, "IMAGE_CONTROLS", kept)
    monkeypatch.setattr(verdict, "CHOOSING", 10)
    monkeypatch.setattr(verdict, "SEEDS", 2)


@pytest.fixture(scope="module")
def scenes() -> Split:
    return make_scenes(COUNT)


def make_scenes(count: int) -> Split:
    """A mosaic of coloured tiles; the object is a rectangle with more of one colour, among more of another.

    Neither edges nor brightness set it apart.
    """
    generator = torch.Generator().manual_seed(0)
    tiles = torch.randint(0, 256, (count, 3, 8, 8), dtype=torch.uint8, generator=generator)
    images = tiles.repeat_interleave(4, dim=2).repeat_interleave(4, dim=3)
    objects = torch.zeros(count, 32, 32, dtype=torch.bool)
    for i in range(count):
        top, left = (int(torch.randint(0, 5, (), generator=generator)) * 4 for _ in range(2))
        objects[i, top : top + 12, left : left + 12] = True
        for place, colour in ((objects[i], i % 3), (~objects[i], (i + 1 + i // 3 % 2) % 3)):
            dull = [k for k in range(3) if k != colour]
            images[i, dull] = torch.where(place, images[i, dull] // 4 * 3, images[i, dull])
    return Split(images, torch.zeros(count, dtype=torch.int64), objects)


def answers(found: Verdict) -> dict[str, str]:
    return {key: answer.verdict for key, answer in found.answers.items()}


@pytest.mark.parametrize("count", [COUNT, pytest.param(280, marks=pytest.mark.slow)])
def test_masks_that_are_the_object_and_all_that_the_network_sees(count):
    scenes = make_scenes(count)
    found = tried(with_masks(colours(200.0), scenes, objects(scenes)), scenes, count // 2)
    said = answers(found)
    assert said.pop("learned") != YES, "where the object is does not tell its class"
    if count == COUNT:  # too few to be sure of a share
        assert said.pop("polarity") != NO
    assert said == dict.fromkeys(said, YES)
    assert found.answers["object"].claim[1].mean == pytest.approx(1, abs=0.02)
    assert found.answers["needed"].claim[1].mean == 100
    assert "difference +" in found.page() and found.table().count("**yes**") >= len(said)
    record = json.loads(json.dumps(found.to_json()))
    assert record["images"] == count and record["answers"]["object"]["verdict"] == "yes"


def test_an_untrained_network(scenes):
    torch.manual_seed(3)
    labels = torch.arange(COUNT) % 10
    network, passed = narrow((1, 0)), []
    network.register_forward_pre_hook(
        lambda module, inputs: passed.append(len(inputs[0])) if module is network else None  # and no untrained copy
    )
    found = judge(network, Split(scenes.images, labels, scenes.masks), faithful=FAITHFUL)
    assert answers(found) == dict.fromkeys(QUESTIONS, NO)
    # Nothing is asked twice. As it is; six replacements, one of which borrows from other images; Grad-CAM; ROAD: the
    # ends once for all maps, and eight passes a map: 6 to choose from; then 4 controls, 2 strangers, its own, Grad-CAM.
    assert sum(passed) == COUNT * (1 + 6 + 1) + COUNT // 2 + FAITHFUL + 10 * (2 + 6 * 8) + FAITHFUL * (2 + 8 * 8)
    assert "no better than chance" in found.answers["needed"].sentence


def test_what_hangs_on_a_network_is_asked_too_and_one_with_nothing_on_it_sooner(scenes, monkeypatch):
    """ROAD asks a copy without some batch norms, which computes the same; a copy would lose somebody's hooks."""
    asked, few = [], scenes.subset(24)

    def removal(model: nn.Module, *rest: object, **more: object) -> Removal:
        asked.append(model)
        return Removal(model, *rest, **more)

    monkeypatch.setattr(verdict, "Removal", removal)
    network = trained(narrow((1, 0))).eval()
    standardising(network, (0.5, 0.4, 0.6), (0.2, 0.3, 0.25))
    bare = judge(network, few, faithful=8)
    network.fc.register_forward_hook(lambda _module, _inputs, logits: logits)
    hooked = judge(network, few, faithful=8)
    norms = [sum(isinstance(module, nn.BatchNorm2d) for module in model.modules()) for model in asked]
    assert asked[0] is not network and asked[-1] is network and norms[0] < norms[-1]
    for key, answer in bare.answers.items():
        other = hooked.answers[key]
        assert answer.claim[0] == other.claim[0]
        assert answer.difference.mean == pytest.approx(other.difference.mean, abs=1e-4), key


@pytest.mark.slow
def test_masks_that_see_what_an_edge_filter_sees(scenes):
    edges = IMAGE_CONTROLS["edges, 5x5 mean"]
    network = with_masks(colours(200.0), scenes, lambda images, _scene: edges(images)[:, None])
    assert answers(tried(network, scenes, FAITHFUL))["object"] == NO


@pytest.mark.slow
def test_masks_that_are_the_same_for_all(scenes):
    network = with_masks(colours(50.0), scenes, lambda images, _: torch.ones(len(images), 1, 1, 1))
    found = answers(tried(network, scenes, FAITHFUL))
    assert (found["learned"], found["needed"], found["places"]) == (NO, NO, NO)


@pytest.mark.slow
def test_gains_without_places(scenes):
    """Each image's mask lets one colour pass, drawn by lot: needed, but nowhere in particular."""
    lot = F.one_hot(torch.randint(0, 3, (COUNT,), generator=torch.Generator().manual_seed(1)), 3).float()

    def mask(_images: Tensor, scene: Tensor) -> Tensor:
        return F.pad(lot[scene], (0, 16 - 3))[:, :, None, None]

    found = answers(tried(with_masks(colours(50.0), scenes, mask), scenes, FAITHFUL))
    assert (found["learned"], found["needed"], found["places"]) == (YES, YES, NO)


@pytest.mark.slow
def test_masks_on_the_object_that_nothing_hangs_on(scenes):
    """With (1 + M)·T and an M of a thousandth, the whole image tells the class."""
    faint = objects(scenes)
    network = colours(2.0, combine="residual")
    network = with_masks(network, scenes, lambda *given: faint(*given) / 1000)
    found = answers(tried(network, scenes, FAITHFUL))
    assert found["object"] == YES
    assert (found["needed"], found["places"], found["pixels"]) == (NO, NO, NO)
    assert found["polarity"] != YES


def test_without_the_objects_pixels_the_second_question_cannot_be_told(scenes):
    torch.manual_seed(3)
    found = judge(narrow((1, 0)), Split(scenes.images[:12], torch.arange(12) % 10), faithful=4)
    answer = found.answers["object"]
    assert answer.verdict == CANNOT_TELL and answer.difference is None
    assert answer.sentence == "Cannot tell: the objects' pixels of these images are not known."


@pytest.mark.parametrize(
    ("low", "mean", "high", "expected"),
    [
        (0.02, 0.05, 0.08, YES),
        (0.001, 0.005, 0.009, NO),  # something, but too little to count
        (-0.01, 0.0, 0.009, NO),
        (-0.02, 0.03, 0.08, CANNOT_TELL),  # holds zero
        (0.001, 0.008, 0.015, CANNOT_TELL),
        (-0.3, -0.2, -0.1, NO),
    ],
)
def test_how_an_interval_is_read(low, mean, high, expected):
    assert decide(Interval(mean, low, high), 0.01) == expected


def test_a_probe_reads_what_is_there_and_nothing_else():
    generator = torch.Generator().manual_seed(0)
    labels = torch.arange(200) % 5
    noise = torch.randn(200, 30, generator=generator)
    told = noise.clone()
    told[:, :5] += 3.0 * F.one_hot(labels)
    told[:, 7] = 2.5  # has no spread
    found = (probe(told[:100], labels[:100], told[100:]) == labels[100:]).double().mean()
    chance = (probe(noise[:100], labels[:100], noise[100:]) == labels[100:]).double().mean()
    assert found > 0.8 and chance < 0.35


@pytest.mark.parametrize(
    ("make", "count", "message"),
    [
        (lambda: attnet.build_model("attention56_tiny", attention="none"), 10, "has no masks to judge"),
        (lambda: attnet.build_model("attention56_tiny"), 3, "3 images: at least four are needed"),
    ],
)
def test_what_cannot_be_judged(scenes, make, count, message):
    with pytest.raises(ConfigError, match=message):
        judge(make(), scenes.rows(torch.arange(count)))
