"""Masks of other networks: a small one with squeeze-and-excitation and CBAM whose modules are named as timm's are, so
that they are drawn in a moment; and timm's own."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from types import ModuleType

import matplotlib.figure
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import attnet
from attnet.base.errors import ConfigError
from attnet.data.splits import Dataset, Split
from attnet.masks import controls, verdict
from attnet.masks.controls import IMAGE_CONTROLS, randomised, untrained
from attnet.masks.faithfulness import deletion_insertion
from attnet.masks.foreign import Foreign
from attnet.masks.look import GRAD_CAM, Looker, View
from attnet.masks.questions import DOES_NOT_APPLY, NO, QUESTIONS, YES
from attnet.masks.reduce import attention_maps, reduce_channels, reduced_maps, upsample
from attnet.masks.replace import Replacing, effects, intervene, intervening
from attnet.masks.saliency import grad_cam
from attnet.masks.verdict import judge
from attnet.plots.masks import plot_overlays
from attnet.plots.verdict import plot_verdict
from attnet.plots.view import plot_view
from attnet.plots.viewer.explorer import Explorer

SIDE, CLASSES = 32, 3
GATES = {"channel": "layer1.se.channel.gate", "spatial": "layer1.se.spatial.gate", "late": "layer2.se.gate"}


class SE(nn.Module):
    """x times a sigmoid [N, C, 1, 1]."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.fc1, self.fc2 = nn.Conv2d(channels, 4, 1), nn.Conv2d(4, channels, 1)
        self.gate = nn.Sigmoid()

    def forward(self, x: Tensor) -> Tensor:
        return x * self.gate(self.fc2(F.relu(self.fc1(x.mean((2, 3), keepdim=True)))))


class Spatial(nn.Module):
    """x times a sigmoid [N, 1, H, W]."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.gate = nn.Conv2d(2, 1, 7, padding=3), nn.Sigmoid()

    def forward(self, x: Tensor) -> Tensor:
        return x * self.gate(self.conv(torch.cat([x.mean(dim=1, keepdim=True), x.amax(dim=1, keepdim=True)], dim=1)))


class CBAM(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.channel, self.spatial = SE(channels), Spatial()

    def forward(self, x: Tensor) -> Tensor:
        return self.spatial(self.channel(x))


class Block(nn.Module):
    def __init__(self, c_in: int, c_out: int, attention: nn.Module) -> None:
        super().__init__()
        self.conv = nn.Conv2d(c_in, c_out, 3, stride=2, padding=1, bias=False)
        self.bn, self.se = nn.BatchNorm2d(c_out), attention

    def forward(self, x: Tensor) -> Tensor:
        return F.relu_(self.se(self.bn(self.conv(x))))


class Small(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer1, self.layer2 = Block(3, 8, CBAM(8)), Block(8, 16, SE(16))
        self.fc = nn.Linear(16, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(self.layer2(self.layer1(x)).mean((2, 3)))


@pytest.fixture
def network() -> Small:
    torch.manual_seed(0)
    made = Small()
    for gate in (made.layer1.se.channel, made.layer2.se):
        nn.init.normal_(gate.fc2.weight, std=2)
    return made


@pytest.fixture(scope="module")
def images() -> Tensor:
    return torch.rand(6, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(1))


def by_hand(
    network: nn.Module, images: Tensor, put: dict[str, Tensor] | None = None
) -> tuple[Tensor, dict[str, Tensor]]:
    """Logits, and what each gate returned, by hooks of this test's own; `put` takes a gate's place."""
    seen, handles = {}, []
    for name, path in GATES.items():

        def hook(_module: nn.Module, _inputs: tuple, output: Tensor, name: str = name) -> Tensor | None:
            seen[name] = output
            return (put or {}).get(name)

        handles.append(network.get_submodule(path).register_forward_hook(hook))
    with torch.no_grad():
        logits = copy.deepcopy(network).eval()(images)
    for handle in handles:
        handle.remove()
    return logits, seen


def test_capture_gives_what_a_hook_gives(network, images):
    logits, seen = by_hand(network, images)
    found = attnet.capture(network, images, masks=GATES)
    assert torch.equal(found.logits, logits) and network.training
    assert {name: list(parts) for name, parts in found.features.items()} == {name: ["mask"] for name in GATES}
    assert all(torch.equal(found.features[name]["mask"], seen[name]) for name in GATES)
    assert {n: m.shape for n, m in attnet.capture_masks(network, images, GATES).items()} == {
        "channel": (6, 8, 1, 1), "spatial": (6, 1, 16, 16), "late": (6, 16, 1, 1)}  # fmt: skip
    assert not any(module._forward_hooks for module in network.modules())


def test_bytes_are_scaled_and_images_prepared(network, images):
    pixels = (images * 255).round().to(torch.uint8)
    foreign = Foreign(network, GATES, SIDE, prepare=lambda x: (x - 0.5) / 0.2)
    logits, _ = by_hand(network, (pixels.float() / 255 - 0.5) / 0.2)
    torch.testing.assert_close(attnet.capture(foreign, pixels).logits, logits)
    assert foreign.classes == ("class 0", "class 1", "class 2") and foreign.num_classes == CLASSES


@pytest.mark.parametrize("kind", ["zero", "one", "mean", "shuffled", "inverse", "constant", "resampled"])
@pytest.mark.parametrize("name", GATES)
def test_every_intervention_is_the_forward_pass_with_another_mask(network, images, name, kind):
    _, seen = by_hand(network, images)
    replacing = Replacing(Foreign(network, GATES, SIDE), images, batch_size=4)
    mask = seen[name]
    if kind in ("mean", "shuffled") and name != "spatial":
        with pytest.raises(ConfigError, match=f"{kind}'?: does not apply: the masks of {name} have no places"):
            replacing.logits({name: kind})
        return
    order = torch.randperm(mask[0, 0].numel(), generator=torch.Generator().manual_seed(0))
    put = {
        "zero": torch.zeros_like(mask),
        "one": torch.ones_like(mask),
        "mean": mask.mean(dim=(2, 3), keepdim=True).expand_as(mask),
        "shuffled": mask.flatten(2)[:, :, order].view_as(mask),
        "inverse": 1 - mask,
        "constant": mask.mean(dim=(0, 2, 3), keepdim=True).expand_as(mask),
        "resampled": mask[replacing.donor],
    }[kind]
    expected, _ = by_hand(network, images, {name: put})
    torch.testing.assert_close(replacing.logits({name: kind}), expected)
    if kind not in ("constant", "resampled"):
        torch.testing.assert_close(
            intervene(network, images, {name: kind}, masks=GATES), replacing.logits({name: kind})
        )


def test_a_gate_that_is_one_is_not_missed(network, images):
    with torch.no_grad():
        network.layer2.se.fc2.weight.zero_()
        network.layer2.se.fc2.bias.fill_(50)
    rows = effects(network, images, torch.arange(6) % 3, ["one", "zero"], "late", masks=GATES)
    assert rows[1].logit_change.mean == 0 and rows[1].flipped == 0
    assert rows[2].logit_change.mean != 0


def test_effects_leave_out_what_does_not_apply(network, images):
    labels = torch.arange(6) % 3
    rows = effects(network, images, labels, ["zero", "shuffled"], masks=GATES)
    assert [(row.module, row.intervention) for row in rows] == [
        ("none", "none"), ("channel", "zero"), ("spatial", "zero"), ("spatial", "shuffled"), ("late", "zero"),
        ("all", "zero"), ("all", "shuffled")]  # fmt: skip
    with pytest.raises(ConfigError, match="mean, shuffled: do not apply: the masks of late have no places"):
        effects(network, images, labels, ["mean", "shuffled"], "late", masks=GATES)


def test_maps_are_of_masks_that_have_places(network, images):
    mask = by_hand(network, images)[1]["spatial"]
    found = reduced_maps(Foreign(network, GATES, SIDE), images)
    assert list(found) == [("spatial", name) for name in ("mean", "max", "l2", "pca")], "one channel has no deviation"
    torch.testing.assert_close(found["spatial", "mean"], upsample(mask[:, 0], (SIDE, SIDE)))
    with pytest.raises(ConfigError, match="does not apply: the masks of late have no places, only a number a channel"):
        attention_maps(network, images, modules=["late"], masks=GATES)
    with pytest.raises(ConfigError, match="the masks of channel, late have no places"):
        attention_maps(network, images, masks={name: GATES[name] for name in ("channel", "late")})
    with pytest.raises(ConfigError, match="'std': does not apply: one channel alone"):
        reduce_channels(mask, "std")


def test_grad_cam_is_of_the_last_features(network, images):
    foreign = Foreign(network, GATES, SIDE)
    assert foreign.features == "layer2"
    network.eval()
    features = network.layer2(network.layer1(images)).detach().requires_grad_()
    logits = network.fc(features.mean((2, 3)))
    gradient = torch.autograd.grad(logits.amax(dim=1).sum(), features)[0]
    cam = F.relu((gradient.mean((2, 3), keepdim=True) * features).sum(dim=1, keepdim=True)).detach()
    expected = F.interpolate(cam, size=(SIDE, SIDE), mode="bilinear", align_corners=False)[:, 0]
    torch.testing.assert_close(grad_cam(foreign, images), expected)
    torch.testing.assert_close(grad_cam(network, images), expected)
    first = grad_cam(Foreign(network, GATES, SIDE, features="layer1.bn"), images, full_size=False)
    assert first.shape == (6, 16, 16)
    assert deletion_insertion(network, images, expected, steps=3).deletion.shape == (6, 3)
    with pytest.raises(ConfigError, match="module='late': Grad-CAM of a Small is of its last features"):
        grad_cam(foreign, images, module="late")


# -- networks that have learned nothing --------------------------------------------------------------------------------


def test_an_untrained_network_is_a_copy_whose_layers_begin_anew(network, images):
    before = {key: value.clone() for key, value in network.state_dict().items()}
    foreign = Foreign(network, GATES, SIDE)
    other = untrained(foreign, images, seed=1)
    assert all(torch.equal(value, before[key]) for key, value in network.state_dict().items())
    changed = {key for key, value in other.network.state_dict().items() if not torch.equal(value, before[key])}
    assert {key for key in before if key.endswith("weight") and ".bn." not in key} <= changed
    assert torch.equal(untrained(foreign, images, seed=1)(images), other(images))
    assert not torch.equal(untrained(foreign, images, seed=2)(images), other(images))
    seen = other.network.layer1.bn(other.network.layer1.conv(images))
    assert seen.mean().abs() < 0.01 and seen.std().item() == pytest.approx(1, abs=0.01), "norms fit the images"


def test_weights_are_lost_from_the_head_down_also_those_that_are_made(network, images):
    made = Small()
    foreign = Foreign(network, GATES, SIDE, fresh=lambda: made)
    lost = {part: copy.deepcopy(one.network) for part, one in randomised(foreign, images)}
    assert list(lost) == ["fc", "layer2", "layer1"]
    for part, (fc, second, first) in {"fc": (1, 0, 0), "layer2": (1, 1, 0), "layer1": (1, 1, 1)}.items():
        one = lost[part]
        for is_lost, layer in ((fc, "fc"), (second, "layer2.conv"), (first, "layer1.conv")):
            weight = (made if is_lost else network).get_submodule(layer).weight
            assert torch.equal(one.get_submodule(layer).weight, weight), (part, layer)


def test_weights_of_nobody_need_a_maker(network, images):
    network.scale = nn.Parameter(torch.ones(1))
    with pytest.raises(ConfigError, match=r"the network: a Small has weights and no reset_parameters.*fresh"):
        untrained(Foreign(network, GATES, SIDE), images)
    with pytest.raises(ConfigError, match="fresh: makes another network, as 'scale' shows"):
        untrained(Foreign(network, GATES, SIDE, fresh=Small), images)


# -- the verdict -------------------------------------------------------------------------------------------------------


@pytest.fixture
def quick(monkeypatch):
    monkeypatch.setattr(controls, "IMAGE_CONTROLS", {"edges": IMAGE_CONTROLS["edges"]})
    monkeypatch.setattr(verdict, "SEEDS", 1)
    monkeypatch.setattr(verdict, "CHOOSING", 4)


@pytest.fixture(scope="module")
def coloured() -> Split:
    """The class is the colour that is strongest, in a square whose pixels are known."""
    generator = torch.Generator().manual_seed(2)
    labels = torch.arange(60) % CLASSES
    pictures, objects = 0.5 * torch.rand(60, 3, SIDE, SIDE, generator=generator), torch.zeros(60, SIDE, SIDE).bool()
    objects[:, 8:20, 10:22] = True
    for picture, inside, label in zip(pictures, objects, labels, strict=True):
        picture[label][inside] += 0.5
    return Split((255 * pictures).to(torch.uint8), labels, objects)


@pytest.fixture
def learned(network, coloured) -> Small:
    optimiser = torch.optim.Adam(network.parameters(), 0.01)
    for _ in range(25):
        optimiser.zero_grad()
        F.cross_entropy(network(coloured.images.float() / 255), coloured.labels).backward()
        optimiser.step()
    return network


def test_a_verdict_on_gates_without_places(learned, coloured, quick):
    gates = {name: GATES[name] for name in ("channel", "late")}
    found = judge(learned, coloured, faithful=4, masks=gates)
    said = {key: answer.verdict for key, answer in found.answers.items()}
    assert all(said.pop(key) == DOES_NOT_APPLY for key in ("object", "places", "pixels", "polarity"))
    assert said.keys() == {"learned", "needed"} and found.answers["needed"].claim[1].mean > 90
    words = "Does not apply: the masks of channel, late have no places, only a number a channel."
    assert found.answers["places"].sentence == words and words in found.page() and found.faithful == 0
    assert "no places" in found.table() and found.to_json()["answers"]["object"]["difference"] is None
    assert isinstance(plot_verdict(found), matplotlib.figure.Figure)


def test_a_verdict_where_some_gates_have_places(learned, coloured, quick):
    found = judge(learned, coloured, faithful=4, masks=GATES)
    assert DOES_NOT_APPLY not in {answer.verdict for answer in found.answers.values()}
    assert "spatial" in found.answers["object"].claim[0]
    replacing = Replacing(Foreign(learned, GATES, SIDE), coloured.images)
    right = (replacing.logits({"spatial": "shuffled"}).argmax(dim=1) == coloured.labels).double().mean()
    assert found.answers["places"].controls["positions shuffled"].mean == pytest.approx(100 * right.item())


def test_a_verdict_on_what_has_learned_nothing(network, coloured, quick):
    split = Split(coloured.images, coloured.labels.roll(1)[torch.randperm(60)])
    said = judge(network, split, faithful=4, masks={"late": GATES["late"]}).answers
    assert said["needed"].verdict == NO and said["places"].verdict == DOES_NOT_APPLY and said["learned"].verdict != YES


# -- looks -------------------------------------------------------------------------------------------------------------


def test_a_look_says_that_there_are_no_places(network, images):
    looker = Looker(Foreign(network, GATES, SIDE))
    look = looker.look(images[0], View("late", intervention="zero", everywhere=True))
    assert "the same everywhere, since this mask has no places" in look.sentence() and look.channels == 16
    torch.testing.assert_close(
        look.probabilities, intervene(network, images[:1], dict.fromkeys(GATES, "zero"), masks=GATES)[0].softmax(0)
    )
    shuffled = looker.look(images[0], View("late", intervention="shuffled", everywhere=True)).probabilities
    expected = intervene(network, images[:1], {"spatial": "shuffled"}, masks=GATES)[0].softmax(0)
    torch.testing.assert_close(shuffled, expected)
    cam = looker.look(images[0], View("late", GRAD_CAM))
    assert (cam.place, cam.resolution) == ("layer2", (8, 8)) and "Grad-CAM of layer2" in cam.sentence()
    titles = [ax.get_title() for ax in plot_view(network, View("late"), images[0], masks=GATES).axes]
    assert "late: mask M" in titles and "no places, mean of 16 channels" in titles
    assert isinstance(plot_overlays(Foreign(network, GATES, SIDE), images[0], ["spatial"]), matplotlib.figure.Figure)
    with pytest.raises(ConfigError, match="network is a Small: one of load_pretrained is needed"):
        Looker(network)


def test_the_explorer(network, coloured, tmp_path):
    data = Dataset(coloured, coloured, ("red", "green", "blue"), "shapes", "made here")
    explorer = Explorer(network, data, folder=tmp_path, masks=GATES)
    assert [part for part, _ in explorer.film["parts"]] == ["mask", GRAD_CAM]
    explorer.move(module="late", replaced="shuffled")
    assert "does not apply: the masks of late have no places" in explorer.said["text"]
    explorer.move(everywhere=True)
    assert not explorer.said and explorer.answer["panels"]["late"]["c"] == 16
    assert "Foreign(..., {'channel': 'layer1.se.channel.gate'" in explorer.code()
    compile(explorer.code(), "view.py", "exec")


# -- what cannot be ----------------------------------------------------------------------------------------------------


def changed(network: Small, **modules: nn.Module) -> Small:
    for name, module in modules.items():
        network.layer2.se.add_module(name, module)
    return network


@pytest.mark.parametrize(
    ("make", "masks", "message"),
    [
        (
            lambda n: n,
            {"a": "layer1.se.gate"},
            r"masks\['a'\]='layer1\.se\.gate': .* no such module; near are layer2\.se\.gate, layer1\.se",
        ),
        (lambda n: n, {"a": "zzz"}, r"no such module; `named_modules\(\)` of the network lists them"),
        (lambda n: n, {"a": ""}, "no such module"),
        (lambda n: n, {}, "name at least one module"),
        (lambda n: n, {"all": "layer2.se.gate"}, "'all' and 'none' are no names"),
        (lambda n: n, {"a": "layer2.se.gate", "b": "layer2.se.gate"}, "two names are of one module"),
        (lambda n: changed(n, spare=nn.Sigmoid()), {"a": "layer2.se.spare"}, "the module is not called in a pass"),
        (lambda n: n, {"a": "fc"}, r"masks\['a'\]='fc': returned \[2, 3\] for images .*nn\.Unflatten"),
        (
            lambda n: changed(n, gate=nn.Sequential(nn.Sigmoid(), nn.Flatten(0))),
            {"a": "layer2.se.gate"},
            "does not take",
        ),
        (
            lambda n: nn.Sequential(n, nn.Unflatten(1, (3, 1))),
            {"a": "0.layer2.se.gate"},
            "logits .N, K. of a classifier",
        ),
        (lambda n: n.fc, {"a": ""}, "no such module"),
    ],
)
def test_what_is_no_mask_is_refused(network, images, make, masks, message):
    with pytest.raises(ConfigError, match=message):
        attnet.capture(make(network), images, masks=masks)


def test_a_gate_that_blocks_share_is_refused(network, images):
    network.layer1.se.channel.gate = network.layer2.se.gate
    with pytest.raises(ConfigError, match="called 2 times in a pass; name one that is called once"):
        attnet.capture(network, images, masks={"a": "layer2.se.gate"})


def test_what_only_our_networks_have(network, images):
    foreign = Foreign(network, GATES, SIDE)
    with pytest.raises(ConfigError, match="parts='trunk': only attention modules of attnet"):
        attnet.capture(foreign, images, ["mask", "trunk"])
    with pytest.raises(ConfigError, match=r"networks from attnet\.build_model, and model is a Small"):
        attnet.masks.statistics.mask_statistics(foreign, images)
    with pytest.raises(ConfigError, match="masks: this Foreign has masks of its own"):
        attnet.capture(foreign, images, masks=GATES)
    with pytest.raises(ConfigError, match=r"model is a Small: .*masks="):
        attnet.capture(network, images)
    with pytest.raises(ConfigError, match="module='early': this network has channel, spatial, late"):
        intervene(foreign, images, {"early": "zero"})
    with pytest.raises(ConfigError, match=r"features='fc': returned \[2, 3\]"):
        Foreign(network, GATES, SIDE, features="fc")


def test_our_own_networks_can_be_looked_at_as_any_other(images):
    torch.manual_seed(0)
    model = attnet.build_model("attention56_tiny").eval()
    found = attnet.capture_masks(model, images, {"first": "stages.stage1.attention.0.mask"})["first"]
    assert torch.equal(found, attnet.capture_masks(model, images)["stage1.0"])
    with intervening(Foreign(model, {"first": "stages.stage1.attention.0.mask"}, SIDE), {"first": "zero"}):
        assert attnet.capture_masks(model, images)["stage1.0"].abs().max() == 0


# -- timm --------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def timm() -> Iterator[ModuleType]:
    """timm, which imports torchvision; and that one, if it was built for GPUs, finds none of its operators beside a CPU
    build of torch. Two of them have to be known for it to be imported: here they are, and nothing calls them."""
    operators = torch.library.Library("torchvision", "FRAGMENT")
    try:
        pytest.importorskip("torchvision")
    except RuntimeError:  # operator torchvision::nms does not exist
        operators.define("nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
        operators.define("qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
    yield pytest.importorskip("timm")


@pytest.mark.parametrize("attention", ["se", "cbam"])
def test_networks_of_timm(timm, attention, images, tmp_path):
    torch.manual_seed(0)
    layers = {"layers": (1, 1, 1, 1), "channels": (8, 16, 16, 16), "stem_width": 8, "num_classes": CLASSES}
    options = {"block_args": {"attn_layer": attention}, "pretrained": False}
    network = timm.create_model("resnet18", **options, **layers).eval()
    inner = "se.gate" if attention == "se" else "se.spatial.gate"
    gates = {f"stage{k}": f"layer{k}.0.{inner}" for k in (1, 2)}
    found, seen = attnet.capture(network, images, masks=gates), []
    network.get_submodule(gates["stage2"]).register_forward_hook(lambda _m, _i, output: seen.append(output))
    with torch.no_grad():
        assert torch.equal(network(images), found.logits)
    assert torch.equal(found.features["stage2"]["mask"], seen[0])
    assert found.features["stage2"]["mask"].shape[1:] == ((16, 1, 1) if attention == "se" else (1, 4, 4))
    assert len(effects(network, images, torch.arange(6) % 3, masks=gates)) == (16 if attention == "se" else 22)
    assert grad_cam(network, images).shape == (6, SIDE, SIDE)
    assert untrained(Foreign(network, gates, SIDE), images)(images).isfinite().all()
    split = Split(images, torch.arange(6) % 3)
    found = judge(network, split, faithful=3, masks=gates)
    asked = {key for key, answer in found.answers.items() if answer.verdict != DOES_NOT_APPLY}
    assert asked == ({"learned", "needed"} if attention == "se" else set(QUESTIONS))
    explorer = Explorer(network, Dataset(split, split, ("red", "green", "blue"), "shapes", "made"), (), tmp_path, gates)
    explorer.move(module="stage2", everywhere=True)
    assert not explorer.said and explorer.answer["panels"]["stage2"]["c"] == (16 if attention == "se" else 1)
