"""Replacing masks: what flows on, what stays as it was, and effects that can be worked out by hand."""

import pytest
import torch
from torch import Tensor, nn

import attnet
from attnet.base.errors import ConfigError
from attnet.masks.capture import capture
from attnet.masks.localise import Interval
from attnet.masks.replace import INTERVENTIONS, OF_A_SET, Effect, Replacing, effects, intervene, intervening
from attnet.model.network import ResidualAttentionNetwork

NAMES = ["stage1.0", "stage2.0", "stage3.0"]
POINT = Interval(0.0, 0.0, 0.0)


class Wrapper(nn.Module):
    """What DistributedDataParallel looks like from outside."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = module

    def forward(self, images: Tensor) -> Tensor:
        return self.module(images)


def build(**options: object) -> ResidualAttentionNetwork:
    torch.manual_seed(0)
    return attnet.build_model("attention56_tiny", **options)


@pytest.fixture
def model() -> ResidualAttentionNetwork:
    return build()


@pytest.fixture
def images() -> Tensor:
    return torch.rand(3, 3, 32, 32, generator=torch.Generator().manual_seed(0))


def hooks(model: nn.Module) -> int:
    return sum(len(module._forward_hooks) + len(module._forward_pre_hooks) for module in model.modules())


def everywhere(intervention: str) -> dict[str, str]:
    return dict.fromkeys(NAMES, intervention)


def masks_under(model: nn.Module, images: Tensor, intervention: str, seed: int = 0) -> dict[str, Tensor]:
    with intervening(model, everywhere(intervention), seed):
        return attnet.capture_masks(model, images)


@pytest.mark.parametrize(("combine", "intervention"), [("residual", "zero"), ("naive", "one")])
def test_the_trunk_alone_is_the_network_without_attention(images, combine, intervention):
    model, trunk = build(combine=combine), attnet.build_model("attention56_tiny", attention="none").eval()
    report = trunk.load_state_dict(model.state_dict(), strict=False)
    assert not report.missing_keys and all(".mask." in key for key in report.unexpected_keys)
    with torch.no_grad():
        torch.testing.assert_close(intervene(model, images, everywhere(intervention)), trunk(images))


def test_one_doubles_the_trunk(model, images):
    with intervening(model, {"stage2.0": "one"}):
        features = capture(model, images, ("trunk", "masked", "mask")).features
    assert torch.equal(features["stage2.0"]["masked"], 2 * features["stage2.0"]["trunk"])
    assert not torch.equal(features["stage1.0"]["masked"], 2 * features["stage1.0"]["trunk"])


@pytest.mark.parametrize("attention", ["mixed", "channel", "spatial"])
def test_capture_sees_the_replaced_mask(images, attention):
    model = build(attention=attention)
    first = attnet.capture_masks(model, images)["stage1.0"]
    seen = {kind: masks_under(model, images, kind)["stage1.0"] for kind in INTERVENTIONS}
    assert torch.equal(seen["zero"], torch.zeros_like(first))
    assert torch.equal(seen["one"], torch.ones_like(first))
    torch.testing.assert_close(seen["inverse"] + first, torch.full_like(first, 0.0 if attention == "channel" else 1.0))
    means = first.mean(dim=(2, 3))
    for kind in ("mean", "shuffled"):
        torch.testing.assert_close(seen[kind].mean(dim=(2, 3)), means)
    assert (seen["mean"].amax(dim=(2, 3)) == seen["mean"].amin(dim=(2, 3))).all()
    moved = seen["shuffled"].flatten(2)
    assert not torch.equal(moved, first.flatten(2))
    # One permutation for all channels and images: found from one image's sums over channels, it explains everything.
    before, after = first.flatten(2)[0].double().sum(dim=0), moved[0].double().sum(dim=0)
    order = before.argsort()[after.argsort().argsort()]
    assert torch.equal(order.sort().values, torch.arange(32 * 32))
    assert torch.equal(first.flatten(2)[:, :, order], moved)


def test_shuffled_hangs_on_its_seed_alone(model, images):
    together, again, other = (intervene(model, images, everywhere("shuffled"), seed) for seed in (1, 1, 2))
    assert torch.equal(together, again)
    assert not torch.allclose(together, other, rtol=1e-4, atol=1e-6)
    torch.manual_seed(5)
    state = torch.get_rng_state()
    alone = torch.cat([intervene(model, image, everywhere("shuffled"), 1) for image in images])
    torch.testing.assert_close(alone, together)
    assert torch.equal(torch.get_rng_state(), state)


def test_nested_interventions_follow_one_another(model, images):
    """Twice the inverse is the mask itself; on two modules it makes no difference whether they are nested."""
    untouched = intervene(model, images, {})
    with intervening(model, everywhere("inverse")):
        once = intervene(model, images, {})
        torch.testing.assert_close(intervene(model, images, everywhere("inverse")), untouched)
    assert not torch.allclose(once, untouched, rtol=1e-4, atol=1e-6)
    with intervening(model, {"stage1.0": "zero"}):
        nested = intervene(model, images, {"stage3.0": "one"})
        first = intervene(model, images, {})
    both = intervene(model, images, {"stage3.0": "one", "stage1.0": "zero"})
    assert torch.equal(both, nested) and not torch.equal(both, first)
    assert torch.equal(intervene(model, images, {}), untouched)


def test_gradients_pass_through(model, images):
    with intervening(model.eval(), everywhere("inverse")):
        model(images).sum().backward()
    assert all(parameter.grad is not None for parameter in model.parameters())


@pytest.mark.parametrize(
    "wrap",
    [Wrapper, lambda m: torch.compile(m, backend="eager"), lambda m: Wrapper(torch.compile(m, backend="eager"))],
    ids=["ddp", "compiled", "both"],
)
def test_wrapped_networks(model, images, wrap):
    """A compiled network heeds the replacement, whether it was compiled before or not, and forgets it after."""
    wrapped = wrap(model.eval())
    with torch.no_grad():
        untouched, expected = model(images), intervene(model, images, everywhere("zero"))
        for _ in range(2):
            with intervening(wrapped, everywhere("zero")):
                assert torch.equal(wrapped(images), expected)
            torch.testing.assert_close(wrapped(images), untouched)
    assert torch.equal(intervene(wrapped, images, everywhere("zero")), expected)


def test_the_network_is_left_as_it_was_on_errors(model, images):
    model.train()
    model.stem.eval()
    modes = [module.training for module in model.modules()]
    state = {name: value.clone() for name, value in model.state_dict().items()}
    model.fc.weight, weight = nn.Parameter(model.fc.weight[:, :1].detach()), model.fc.weight
    with pytest.raises(RuntimeError, match="shapes cannot be multiplied"):
        intervene(model, images, everywhere("one"))
    model.fc.weight = weight
    with pytest.raises(KeyError), intervening(model, everywhere("mean")):
        assert hooks(model) == 3
        raise KeyError
    assert hooks(model) == 0
    assert [module.training for module in model.modules()] == modes
    assert all(torch.equal(value, state[name]) for name, value in model.state_dict().items())
    assert torch.is_grad_enabled()


@pytest.mark.parametrize(
    ("interventions", "message"),
    [
        ({"stage1.0": "zero", "stage9.0": "one"}, r"module='stage9\.0': this network has stage1\.0, stage2\.0"),
        ({"stage1.0": "zero", "stage2.0": "two"}, "intervention='two': choose one of zero, one, mean, shuffled, inv"),
    ],
)
def test_unknown_names_are_found_before_anything_is_replaced(model, interventions, message):
    with pytest.raises(ConfigError, match=message), intervening(model, interventions):
        pytest.fail("entered")
    assert hooks(model) == 0


def test_there_must_be_masks(images):
    model = build(attention="none")
    sentence = r"module='stage1\.0' has no mask to replace: build the network with attention mixed, channel or spatial"
    with pytest.raises(ConfigError, match=sentence):
        intervene(model, images, {"stage1.0": "zero"})
    with pytest.raises(ConfigError, match=sentence):
        effects(model, images, torch.zeros(3, dtype=torch.int64))
    with pytest.raises(ConfigError, match="model is a Linear"):
        intervene(nn.Linear(3, 3), images, {})


# -- effects ------------------------------------------------------------------------------------------------------


def centred(model: ResidualAttentionNetwork, images: Tensor) -> Tensor:
    """Make the network predict several classes; the untouched logits."""
    with torch.no_grad():
        model.fc.bias -= intervene(model, images, {}).mean(dim=0)
    logits = intervene(model, images, {})
    assert len(logits.argmax(dim=1).unique()) > 2
    return logits


@pytest.fixture
def dozen() -> Tensor:
    return torch.randint(0, 256, (12, 3, 32, 32), dtype=torch.uint8, generator=torch.Generator().manual_seed(3))


def test_masks_of_one_half_cannot_be_moved_or_turned_over(model, dozen):
    with torch.no_grad():
        for module in model.attention_modules().values():
            module.mask.head.conv2.weight.zero_()  # sigmoid(0) everywhere
    labels = centred(model, dozen).argmax(dim=1)
    labels[:3] = (labels[:3] + 1) % 10
    rows = effects(model, dozen, labels, ("mean", "shuffled", "inverse"))
    expected = [("none", "none")] + [(m, i) for m in [*NAMES, "all"] for i in ("mean", "shuffled", "inverse")]
    assert [(row.module, row.intervention) for row in rows] == expected
    assert all(row == Effect(row.module, row.intervention, 75.0, POINT, POINT, 0.0) for row in rows)


def test_a_module_that_passes_nothing_on_makes_all_images_one(dozen):
    """Naive combination with M = 0: behind stage3.0 all images look alike, so one class gets every prediction."""
    model = build(combine="naive")
    logits = centred(model, dozen)
    constant = intervene(model, dozen[:1], {"stage3.0": "zero"})
    labels = logits.argmax(dim=1)
    labels[0] = (labels[0] + 1) % 10  # one that the untouched network gets wrong
    winner = constant.argmax().item()
    row = effects(model, dozen, labels, "zero", "stage3.0")[1]
    assert row.top1 == pytest.approx(100 * (labels == winner).double().mean().item())
    assert row.change.mean == pytest.approx(row.top1 - 100 * 11 / 12)
    assert row.flipped == pytest.approx(100 * (logits.argmax(dim=1) != winner).double().mean().item())
    gains = (constant - logits).gather(1, labels[:, None])
    assert row.logit_change.mean == pytest.approx(gains.mean().item(), rel=1e-4)
    for interval in (row.change, row.logit_change):
        assert interval.low < interval.mean < interval.high


def test_effects_do_not_depend_on_the_batch_and_tell_their_progress(model, dozen):
    labels = centred(model, dozen).argmax(dim=1)
    calls: list[tuple[int, int]] = []
    few, many = (
        effects(model, dozen, labels, ("shuffled", "zero"), NAMES[1:], batch_size=size, progress=progress)
        for size, progress in ((5, lambda done, total: calls.append((done, total))), (100, None))
    )
    assert [row.module for row in many] == ["none", *["stage2.0"] * 2, *["stage3.0"] * 2, "all", "all"]
    for left, right in zip(few, many, strict=True):
        assert (left.module, left.top1, left.flipped) == (right.module, right.top1, right.flipped)
        assert left.logit_change.low == pytest.approx(right.logit_change.low, abs=1e-5)
    assert calls == [(done, 21) for done in range(1, 22)]  # 3 batches, 7 rows
    both = intervene(model, dozen, {"stage2.0": "zero", "stage3.0": "zero"})
    assert many[-1].top1 == pytest.approx(100 * (both.argmax(dim=1) == labels).double().mean().item())


def test_a_network_that_ignores_its_images(model, dozen):
    nn.init.zeros_(model.fc.weight)
    labels = torch.arange(12) % 10
    rows = effects(model, dozen, labels, modules=["stage1.0"])
    assert [row.intervention for row in rows] == ["none", *INTERVENTIONS, *OF_A_SET]  # one module: no "all"
    share = 100 * (labels == model.fc.bias.argmax()).double().mean().item()
    assert all((row.top1, row.change, row.logit_change, row.flipped) == (share, POINT, POINT, 0.0) for row in rows)


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        (torch.zeros(2, dtype=torch.int64), r"labels of shape \[2\]: one for each of at least one image, \[3\] here"),
        (torch.tensor([0, 10, 1]), "labels of dtype torch.int64: whole numbers from 0 to 9"),
        (torch.zeros(3), "labels of dtype torch.float32: whole numbers"),
    ],
)
def test_labels_that_do_not_fit(model, images, labels, message):
    with pytest.raises(ConfigError, match=message):
        effects(model, images, labels)


# -- with other images' masks -------------------------------------------------------------------------------------


def test_a_mask_of_another_image_and_a_constant(model, dozen):
    """Against the same done by hand: every image lends its mask to one other, and none to itself."""
    replacing = Replacing(model, dozen, batch_size=5)
    assert sorted(replacing.donor.tolist()) == list(range(12)) and not (replacing.donor == torch.arange(12)).any()
    masks = attnet.capture_masks(model, dozen)
    for kind, by_hand in (
        ("resampled", {name: mask[replacing.donor] for name, mask in masks.items()}),
        ("constant", {name: mask.mean(dim=(0, 2, 3), keepdim=True) for name, mask in masks.items()}),
    ):
        logits = replacing.logits(dict.fromkeys(NAMES, kind))
        torch.testing.assert_close(logits, intervene(model, dozen, by_hand), rtol=1e-4, atol=1e-4)
    assert torch.equal(replacing.logits({}), torch.cat([intervene(model, part, {}) for part in dozen.split(5)]))


def test_means_that_are_known_spare_a_constant_its_pass(model, dozen):
    plan, expected = dict.fromkeys(NAMES, "constant"), Replacing(model, dozen, batch_size=5)
    means = {name: mask.mean(dim=(2, 3)) for name, mask in attnet.capture_masks(model, dozen).items()}
    passed: list[int] = []
    with model.register_forward_pre_hook(lambda _module, inputs: passed.append(len(inputs[0]))):
        logits = Replacing(model, dozen, batch_size=5, means=means).logits(plan)
    torch.testing.assert_close(logits, expected.logits(plan), rtol=0, atol=1e-6)
    assert sum(passed) == len(dozen)


def test_what_needs_other_images_says_so(model, images):
    with pytest.raises(ConfigError, match="'resampled': takes another image's mask; give two images or more"):
        Replacing(model, images[:1]).logits({"stage1.0": "resampled"})
    with pytest.raises(ConfigError, match="'constant': needs a set of images"):
        intervene(model, images, {"stage1.0": "constant"})
