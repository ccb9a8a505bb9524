"""Units of every kind against their definitions, in the network, and through training, saving and looking."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from networks import settled, tiny, trained
from torch import Tensor, nn

import attnet
from attnet.base.errors import ConfigError, WeightsError
from attnet.base.values import facts
from attnet.engine.parameters import TrainConfig
from attnet.engine.plan import make_plan, plan_evaluation
from attnet.masks.statistics import signal
from attnet.model.anatomy import activations, parts, unused_shortcuts
from attnet.model.folding import folded
from attnet.model.modules import ATTENTION_TYPES, COMBINE_TYPES, module_parts
from attnet.model.network import evaluating
from attnet.model.pretrained import load_pretrained
from attnet.model.reach import receptive_field
from attnet.model.units import UNITS, InceptionUnit, ResidualUnit, ResNeXtUnit, check_unit, option_text, unit_factory
from attnet.model.variants import study_options
from attnet.plots import plot_attention_module, plot_network, plot_residual_unit

SMALL = {
    "model": "attention56_tiny",
    "dataset": "shapes",
    "mode": "rehearsal",
    "train_images": 16,
    "test_images": 10,
    "train_batch_size": 8,
    "total_epochs": 1,
    "progress": "none",
    "device_type": "CPU",
}
# What a user may write: layers of a kind and in an order that nothing here knows, one of them without a tensor.
MINE = """
import torch
from torch import nn

class Pair(nn.Module):
    def forward(self, x):
        return x, None

class Mine(nn.Module):
    def __init__(self, c_in, c_out, stride):
        super().__init__()
        self.layers = nn.Sequential(nn.Conv2d(c_in, c_out, 3, stride, 1), nn.BatchNorm2d(c_out))
        self.shift, self.pair = nn.Parameter(torch.zeros(c_out, 1, 1)), Pair()
    def forward(self, x):
        conv, norm = self.layers
        return self.pair(norm(conv(x).relu()))[0] + self.shift

NUMBER = 3
"""


@pytest.fixture
def mine(tmp_path, monkeypatch) -> str:
    """A factory of the user's by its name."""
    (tmp_path / "my_units.py").write_text(MINE)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, "my_units", raising=False)
    return "my_units:Mine"


def normed(x: Tensor, norm: nn.BatchNorm2d) -> Tensor:
    return F.batch_norm(x, norm.running_mean, norm.running_var, norm.weight, norm.bias, eps=norm.eps)


# -- the units by their definitions ------------------------------------------------------------------------------

SHAPES = [(32, 32, 1), (32, 64, 1), (32, 32, 2), (64, 32, 2)]


@pytest.mark.parametrize(("c_in", "c_out", "stride"), SHAPES, ids=str)
def test_resnext_unit(c_in, c_out, stride):
    unit = settled(ResNeXtUnit(c_in, c_out, stride))
    x = torch.randn(2, c_in, 8, 6, dtype=torch.double, generator=torch.Generator().manual_seed(2))
    given = x.clone()
    groups = c_out // 8  # of four channels each
    out = normed(F.conv2d(x, unit.conv1.weight), unit.norm1).relu()
    out = normed(F.conv2d(out, unit.conv2.weight, stride=stride, padding=1, groups=groups), unit.norm2).relu()
    out = normed(F.conv2d(out, unit.conv3.weight), unit.norm3)
    if (c_in, stride) == (c_out, 1):
        assert unit.shortcut is None
        out = out + x
    else:
        conv, norm = unit.shortcut
        out = out + normed(F.conv2d(x, conv.weight, stride=stride), norm)
    torch.testing.assert_close(unit(x), out.relu(), rtol=1e-9, atol=1e-9)
    assert torch.equal(x, given), "the unit changed its input"


@pytest.mark.parametrize(("c_in", "c_out", "stride"), SHAPES, ids=str)
def test_inception_unit(c_in, c_out, stride):
    unit = settled(InceptionUnit(c_in, c_out, stride))
    x = torch.randn(2, c_in, 8, 6, dtype=torch.double, generator=torch.Generator().manual_seed(2))
    given = x.clone()
    active, branches = normed(x, unit.norm).relu(), []
    for kernels, branch in zip(((1,), (1, 3), (1, 3, 3)), unit.branches, strict=True):
        out = active
        for i, kernel in enumerate(kernels):
            last = stride if i == len(kernels) - 1 else 1
            out = F.conv2d(out, branch[3 * i].weight, stride=last, padding=kernel // 2)
            out = normed(out, branch[3 * i + 1]).relu()
        branches.append(out)
    assert [branch.shape[1] for branch in branches] == [c_out // 16, c_out // 8, c_out // 8]
    out = F.conv2d(torch.cat(branches, 1), unit.conv.weight)
    keeps = (c_in, stride) == (c_out, 1)
    out = out + (x if keeps else F.conv2d(active, unit.shortcut.weight, stride=stride))
    torch.testing.assert_close(unit(x), out, rtol=1e-9, atol=1e-9)
    assert torch.equal(x, given), "the unit changed its input"


def test_groups_are_the_authors_where_they_have_such_a_unit():
    groups = {width: ResNeXtUnit(width, width).conv2.groups for width in (32, 64, 256, 512, 1024)}
    assert groups == {32: 4, 64: 8, 256: 32, 512: 32, 1024: 32}


# -- in the network ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("unit", UNITS)
def test_the_same_unit_stands_everywhere_and_every_parameter_gets_a_gradient(unit):
    model = tiny(unit=unit)
    model(torch.rand(4, 3, 16, 16)).logsumexp(1).sum().backward()
    assert [name for name, p in model.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0] == []
    kinds = [type(module) for module in model.modules() if type(module) in UNITS.values()]
    assert set(kinds) == {UNITS[unit]}
    assert len(kinds) == 27, "3 entries, modules of 9, 6 and 6, 3 in the tail"


def test_the_default_network_is_drawn_as_before_the_option_was_there():
    """The same names, and the same random numbers in the same order."""
    torch.manual_seed(3)
    units = [ResidualUnit(8, 32), *(ResidualUnit(32, 32) for _ in range(4))]
    torch.manual_seed(3)
    stage = attnet.model.network.Stage(8, 32, 1, 1, 0, attnet.variants()["attention56_tiny"])
    module = stage.attention[0]
    for made, unit in zip([stage.entry, *module.pre, *module.trunk, *module.mask.levels.units], units, strict=False):
        assert all(torch.equal(value, made.state_dict()[name]) for name, value in unit.state_dict().items())


def test_modules_of_each_stage():
    model = tiny(modules="2,1,3")
    assert list(model.attention_modules()) == ["stage1.0", "stage1.1", "stage2.0", "stage3.0", "stage3.1", "stage3.2"]
    assert model.variant == tiny(modules=(2, 1, 3)).variant == tiny(modules=[2, 1, 3]).variant
    assert model.variant.label == "attention56_tiny with modules=2,1,3"
    assert tiny(modules=(1, 1, 1), unit="preact").variant.label == "attention56_tiny"


def broken(c_in: int, c_out: int, stride: int) -> nn.Module:
    raise KeyError(c_in)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"unit": "resnet"}, "unit='resnet': choose one of preact, resnext, inception, or name a factory"),
        ({"unit": None}, "unit=None: choose one of preact"),
        ({"unit": ":Mine"}, "unit=':Mine': choose one of preact"),
        ({"unit": "no_such:Mine"}, "unit='no_such:Mine': cannot be imported .*No module named 'no_such'.*PYTHONPATH"),
        ({"unit": "math:mine"}, "unit='math:mine': cannot be imported .*mine"),
        ({"unit": "math:pi"}, "unit='math:pi': is a float; a callable"),
        ({"unit": broken}, r"unit=test_units:broken: \(8, 32, 1\) fails on \[2, 8, 16, 16\] .*KeyError: 8"),
        ({"unit": lambda *_: 3}, r"<lambda>: \(8, 32, 1\) gives a int; an nn\.Module is needed"),
        ({"unit": lambda *_: nn.Conv2d(9, 32, 1)}, r"\(8, 32, 1\) fails on \[2, 8, 16, 16\]"),
        (
            {"unit": lambda c_in, c_out, stride: nn.Conv2d(c_in, c_out, 1)},
            r"\(32, 64, 2\) makes \[2, 64, 16, 16\] of \[2, 32, 16, 16\]; .*, \[2, 64, 8, 8\], is needed",
        ),
        (
            {"unit": lambda a, b, s: nn.Sequential(nn.ReLU(inplace=True), nn.Conv2d(a, b, 3, s, 1))},
            r"\(8, 32, 1\) changes its input in place",
        ),
        ({"modules": (1, 2)}, r"modules=\(1, 2\): attention56_tiny has 3 stages, so 3 whole numbers"),
        ({"modules": "1,2,x"}, r"modules=\(1, 2, 'x'\): attention56_tiny has 3 stages"),
        ({"modules": (1, 0, 1)}, r"modules=\(1, 0, 1\): .*at least 1"),
        ({"modules": 3}, r"modules=\(3,\): .*has 3 stages"),
    ],
    ids=lambda value: None if isinstance(value, dict) else value[:30],
)
def test_what_cannot_be_built_is_named(options, message):
    with pytest.raises(ConfigError, match=message):
        tiny(**options)


def test_a_factory_by_object_and_by_name(mine):
    by_name = tiny(unit=mine)
    assert by_name.variant.label == "attention56_tiny with unit=my_units:Mine"
    factory = sys.modules["my_units"].Mine
    by_object = tiny(unit=factory)
    assert option_text(factory) == mine and unit_factory(mine) is factory
    for one, other in zip(by_name.parameters(), by_object.parameters(), strict=True):
        assert torch.equal(one, other)
    state = torch.random.get_rng_state()
    check_unit(factory, 8, 16, 2)
    assert torch.equal(torch.random.get_rng_state(), state), "the check drew random numbers"


# -- everything that looks at a network --------------------------------------------------------------------------


@pytest.mark.parametrize("unit", [*UNITS, "mine"])
def test_tools_know_the_unit_or_say_that_they_do_not(unit, mine):
    model = trained(tiny(unit=mine if unit == "mine" else unit, modules=(1, 2, 1)))
    images = torch.rand(4, 3, 32, 32, generator=torch.Generator().manual_seed(1))
    with evaluating(model):
        logits = model(images)
    assert (folded(model)(images) - logits).abs().max() <= 1e-5 * logits.std()
    if unit != "preact":  # batch norms stay in float32, as at O2: nothing else may
        half = folded(model, torch.bfloat16)(images.bfloat16())
        assert half.dtype == torch.bfloat16 and (half - logits).abs().max() < 0.1 * logits.std()
    rows = parts(model)
    counted = sum(row.parameters for row in rows if row.kind != "module")
    assert counted == sum(p.numel() for p in model.parameters())
    assert ("stage3.0", "mask 1", (128, 8, 8)) in activations(model)
    masks = attnet.capture_masks(model, images)
    assert [tuple(mask.shape[1:]) for mask in masks.values()] == [(32, 32, 32), *[(64, 16, 16)] * 2, (128, 8, 8)]
    assert module_parts(model.attention_modules()["stage1.0"])[-2:] == ("1/2", "1/4")
    assert model.attention_modules()["stage2.1"].channels == 64
    plot_network(model)
    plot_attention_module(model)
    if unit == "preact":
        assert unused_shortcuts(model) > 0
        plot_residual_unit(model)
    else:
        assert unused_shortcuts(model) == 0
        with pytest.raises(ConfigError, match=r"and attention56_tiny with unit=.*, modules=1,2,1 has none"):
            plot_residual_unit(model)
    if unit in ("preact", "inception"):
        assert signal(model, images).keys() == masks.keys()
    else:
        with pytest.raises(
            ConfigError, match=r"signal: attention56_tiny with unit=.* has units whose shortcut may not"
        ):
            signal(model, images)
    if unit == "mine":
        with pytest.raises(ConfigError, match="no rule for a Mine, which may be a unit of yours"):
            receptive_field(model)


def test_folding_leaves_only_norms_that_nothing_can_take():
    for unit, left in (("resnext", 3 + 1), ("inception", 27 + 3 + 1)):
        norms = [m for m in folded(tiny(unit=unit)).modules() if isinstance(m, nn.BatchNorm2d)]
        assert len(norms) == left, "mask heads, the last one, and the first of each pre-activated unit"


# -- training and what it leaves behind --------------------------------------------------------------------------

OPTIONS = [
    {"unit": "resnext", "modules": "1,2,1", "attention": "channel", "combine": "naive"},
    {"unit": "inception", "p": 2, "t": 1, "r": 2},
    {"unit": "my_units:Mine", "attention": "spatial"},
]


@pytest.mark.parametrize("options", OPTIONS, ids=lambda o: "-".join(f"{v}" for v in o.values()).replace(":", "."))
def test_training_records_options_and_evaluation_inherits_them(options, mine, tmp_path):
    result = attnet.fit(TrainConfig(**SMALL, **options, output_dir=str(tmp_path / "run")))
    folder = result.output_dir
    label = attnet.build_model("attention56_tiny", **options).variant.label
    assert result.model == label and f"network: {label}, " in (folder / "log.txt").read_text()
    assert study_options(TrainConfig.load(folder / "config.json").to_dict()) == options
    assert study_options(torch.load(folder / "best.pt", weights_only=True)["config"]) == options
    theirs = {"unit": options["unit"]} if "my_units" in options.get("unit", "") else {}
    opened = load_pretrained(folder, **theirs)
    assert opened.model.variant.label == label and opened.describe().startswith(f"{label} from")
    plan = plan_evaluation(TrainConfig(pretrained=str(folder), device_type="CPU", test_images=20, **theirs))
    assert study_options(plan.config.to_dict()) == options
    assert attnet.evaluate_weights(plan, folder / "best.pt").top1 == pytest.approx(result.top1)
    if theirs:
        for read in (load_pretrained, lambda path: plan_evaluation(TrainConfig(pretrained=str(path)))):
            with pytest.raises(WeightsError, match=r"trained with unit='my_units:Mine'.*; if you trust it"):
                read(folder)
    else:
        other = plan_evaluation(TrainConfig(pretrained=str(folder), device_type="CPU", model="attention56_cifar"))
        assert study_options(other.config.to_dict()) == {}, "another model keeps its own"


def test_records_from_before_the_options_are_read(tmp_path):
    names = ("attention", "combine", "unit", "p", "t", "r", "modules")
    old = {k: v for k, v in make_plan(TrainConfig(**SMALL)).config.to_dict().items() if k not in names}
    torch.save({"model": tiny().state_dict(), "config": old}, tmp_path / "old.pt")
    assert load_pretrained(tmp_path / "old.pt").model.variant == attnet.variants()["attention56_tiny"]
    stored = TrainConfig(**old)
    assert study_options(stored.continued(TrainConfig(resume="auto")).to_dict()) == {}
    plan = plan_evaluation(TrainConfig(pretrained=str(tmp_path / "old.pt"), device_type="CPU", test_images=20))
    assert "network: attention56_tiny, 458,434 parameters with 10 classes" in plan.describe()


def test_bare_weights_open_with_their_options(tmp_path):
    torch.save(tiny(unit="inception").state_dict(), tmp_path / "bare.pt")
    opened = load_pretrained(tmp_path / "bare.pt", "attention56_tiny", unit="inception")
    assert opened.model.variant.unit == "inception"
    with pytest.raises(WeightsError, match="do not fit attention56_tiny with unit=resnext, num_classes=10"):
        attnet.load_weights(tiny(unit="resnext"), tmp_path / "bare.pt")


def test_parameters_and_options_are_the_same_names_and_values():
    fields = TrainConfig.fields()
    assert (facts(fields["attention"]).choices, facts(fields["combine"]).choices) == (ATTENTION_TYPES, COMBINE_TYPES)
    assert all(fields[name].default is None for name in attnet.model.options.OPTIONS)


@pytest.mark.parametrize("given", ["1,2,3", " 1, 2,3", "(1, 2, 3)", (1, 2, 3), [1, 2, 3]], ids=str)
def test_modules_in_any_writing(given):
    assert TrainConfig(modules=given).modules == "1,2,3"


@pytest.mark.parametrize("given", ["1;2;3", "", "1,,2", (1, 2.5), True], ids=str)
def test_modules_that_are_none(given):
    with pytest.raises(ConfigError, match=r"modules=.*whole numbers with commas between"):
        TrainConfig(modules=given)


def test_a_plan_refuses_a_unit_at_once(tmp_path):
    with pytest.raises(ConfigError, match="unit='resnet': choose one of"):
        attnet.fit(TrainConfig(**SMALL, unit="resnet", output_dir=str(tmp_path / "never")))
    assert not Path(tmp_path / "never").exists()
