"""What is counted about a network: against hand counts, the reference, other ways of counting, and the real network."""

import itertools
import math

import pytest
import torch
from conftest import REFERENCE
from networks import meta, narrow, tiny
from torch import nn

import attnet
from attnet.base.errors import ConfigError
from attnet.masks.capture import capture
from attnet.model import anatomy, reach
from attnet.model.modules import AttentionModule
from attnet.model.network import Variant
from attnet.model.units import ResidualUnit
from attnet.model.variants import variants

TABLE = variants()


# -- parts -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "model",
    [lambda: meta("attention92_pooled"), lambda: meta("attention92_448"), lambda: narrow((2, 1, 0), p=2, t=4, r=3)],
    ids=["pooled stem", "four stages", "units of attention452_cifar"],
)
def test_the_parts_are_the_whole_network(model):
    """That the parameters of every network of the table are its parts', test_variant_table_stands_... shows."""
    network = model()
    rows = anatomy.parts(network)
    assert sum(p.parameters for p in rows if p.kind != "module") == sum(p.numel() for p in network.parameters())
    modules = [p for p in rows if p.kind == "module"]
    assert [p.name for p in modules] == list(network.attention_modules())
    for module in modules:
        branches = [p for p in rows if p.name.startswith(f"{module.name}.")]
        assert [p.kind for p in branches] == ["pre", "trunk", "mask", "post"]
        assert {p.shape for p in branches} == {module.shape}
        assert sum(p.parameters for p in branches) == module.parameters
        assert sum(p.flops for p in branches) == module.flops


def test_counts_by_hand():
    rows = {p.name: p for p in anatomy.parts(meta("attention56_tiny", num_classes=7))}
    assert list(rows)[:4] == ["stem", "stage1.entry", "stage1.0", "stage1.0.pre"] and list(rows)[-1] == "head"
    stem = rows["stem"]  # 3x3, 3 -> 8 channels on 32x32 pixels; its batch norm has 8 + 8 parameters
    assert (stem.shape, stem.parameters, stem.flops) == ((8, 32, 32), 9 * 3 * 8 + 16, 2 * 9 * 3 * 8 * 32 * 32)
    entry = rows["stage2.entry"]  # 32 -> 16 (32x32), 16 -> 16 (3x3, stride 2), 16 -> 64, shortcut 32 -> 64 (16x16)
    weights = (32 * 16, 9 * 16 * 16, 16 * 64, 32 * 64)
    assert entry.parameters == sum(weights) + 2 * (32 + 16 + 16)
    assert entry.flops == 2 * (weights[0] * 32 * 32 + sum(weights[1:]) * 16 * 16)
    head = rows["head"]
    assert (head.shape, head.parameters, head.flops) == ((7, 1, 1), 2 * 256 + 256 * 7 + 7, 2 * 256 * 7)


def test_twice_the_side_is_four_times_the_work_of_every_convolution():
    model = meta("attention92")
    for one, two in zip(anatomy.parts(model), anatomy.parts(model, 64), strict=True):
        assert two.parameters == one.parameters
        if one.kind == "head":  # behind the global average
            assert (two.shape, two.flops) == (one.shape, one.flops)
        else:
            assert two.shape == (one.shape[0], 2 * one.shape[1], 2 * one.shape[2])
            assert two.flops == 4 * one.flops


@pytest.mark.parametrize("name", ["attention92", "attention56_224"])
def test_totals_split_off_the_mask_branches(name):
    whole, bare = anatomy.totals(name), anatomy.totals(name, attention="none")
    assert whole.parameters == TABLE[name].parameters
    assert whole.parameters - whole.mask_parameters == bare.parameters
    assert whole.flops - whole.mask_flops == bare.flops
    assert (bare.mask_parameters, bare.mask_flops) == (0, 0)


def test_the_papers_counts_are_near_ours():
    for name, published in anatomy.PAPER_PARAMETERS.items():
        classes = 10 if TABLE[name].input_size == 32 else 1000
        assert anatomy.totals(name, classes).parameters == pytest.approx(published, rel=0.1)
    for name, published in anatomy.PAPER_MULTIPLY_ADDS.items():
        assert anatomy.totals(name, 1000).flops / 2 == pytest.approx(published, rel=0.015)


def test_no_choice_of_poolings_gives_all_of_the_papers_counts_on_cifar():
    """What notebooks/architecture.ipynb says: a second pooling in stage 2 gives two of the three, and nothing more."""

    def module(row: Variant, width: int, depth: int) -> int:
        with torch.device("meta"):
            return sum(p.numel() for p in AttentionModule(width, depth, **row.study).parameters())

    found = {}
    for name, published in list(anatomy.PAPER_PARAMETERS.items())[:3]:
        row = TABLE[name]
        stages = [[row.modules[0] * module(row, width, depth) for depth in range(5)] for width in row.widths]
        rest = row.parameters - sum(stage[depth] for stage, depth in zip(stages, row.depths, strict=True))
        for depths in itertools.product(range(5), repeat=3):
            count = rest + sum(stage[depth] for stage, depth in zip(stages, depths, strict=True))
            found.setdefault(depths, []).append((round(count / 1e6, 2), round(count / 1e6, 1) == published / 1e6))
    assert [count for count, _ in found[2, 1, 0]] == [1.83, 4.80, 9.36]
    assert found[2, 2, 0] == [(1.93, True), (5.12, True), (10.11, False)]
    assert max(sum(fits for _, fits in rows) for rows in found.values()) == 2


@pytest.mark.parametrize(
    ("name", "options", "prototxt"),
    [
        ("attention56_224", {}, 31_810_728),
        ("attention92_224", {}, 52_466_344),
        ("attention56_224", {"unit": "resnext"}, 31_318_824),
        ("attention92_224", {"unit": "resnext"}, 52_102_952),
    ],
    ids=["Attention-56", "Attention-92", "AttentionNeXt-56", "AttentionNeXt-92"],
)
def test_counts_are_those_of_the_authors_prototxts(name, options, prototxt):
    """Summed over their Convolution, BN and InnerProduct layers. The ResNeXt ones lack two kinds of batch norm."""
    with torch.device("meta"):
        model = attnet.build_model(name, 1000, **options)
    norms = [module.mask.head.norm1 for module in model.attention_modules().values()] + [model.norm]
    extra = sum(p.numel() for norm in norms for p in norm.parameters()) if options else 0
    assert sum(p.numel() for p in model.parameters()) - extra == prototxt


def test_the_papers_networks_are_within_three_percent():
    rows = cells(anatomy.paper_table())
    assert [row[0] for row in rows[2:]] == list(anatomy.PAPER_NETWORKS)
    for row in rows[2:]:
        ours, paper = int(row[4].replace(",", "")), float(row[2].removesuffix(" M"))
        assert ours / 1e6 == pytest.approx(paper, rel=0.03)
    assert [row[5] for row in rows[2:]] == ["0", "0", "+7,680", "–"]


@pytest.mark.parametrize("reference", REFERENCE)
def test_unused_shortcuts_are_what_the_reference_stores_in_vain(reference, reference_variants):
    facts = reference_variants[reference]
    shapes = dict(facts["state_dict"])
    stored = sum(math.prod(shapes[name]) for name in facts["unused"])
    assert all(name.endswith("conv4.weight") for name in facts["unused"])  # weights only: no biases
    assert anatomy.unused_shortcuts(meta(REFERENCE[reference])) == stored
    assert stored == facts["parameters"] - facts["parameters_used"]


# -- shapes ------------------------------------------------------------------------------------------------------


def test_steps_down_and_up_the_deepest_mask_branch():
    steps = [(step, shape) for name, step, shape in anatomy.activations(meta("attention92_448")) if name == "stage1.0"]
    sides = {"1/2": 56, "1/4": 28, "1/8": 14, "1/16": 7}
    expected = [("pre", 112), ("trunk unit 1", 112), ("trunk unit 2", 112)]
    for scale in ("1/2", "1/4", "1/8"):
        expected += [(f"mask {scale} down", sides[scale]), (f"mask {scale} skip", sides[scale])]
    expected += [("mask 1/16", 7), *((f"mask {scale} up", sides[scale]) for scale in ("1/8", "1/4", "1/2"))]
    expected += [("mask head", 112), ("post", 112)]
    assert steps == [(step, (128, side, side)) for step, side in expected]


@pytest.mark.parametrize("size", [32, 45])
def test_steps_have_the_shapes_of_a_real_forward_pass(size):
    """Every depth from 0 to 3, several units, and a size that does not halve evenly."""
    model = narrow((3, 2, 1, 0), t=3, r=2, p=2)
    real = capture(model, torch.rand(1, 3, size, size), ("input", "trunk", "mask", "masked", "scales")).features
    found: dict[str, dict[str, tuple]] = {}
    for name, step, shape in anatomy.activations(model, size):
        found.setdefault(name, {})[step] = shape
    assert list(found) == list(real)
    for name, parts in real.items():
        expected = {part: tuple(value.shape[1:]) for part, value in parts.items()}
        steps = found[name]
        assert expected.pop("input") == steps["pre"]
        assert expected.pop("trunk") == steps["trunk unit 1"] == steps["trunk unit 3"]
        assert expected.pop("masked") == steps["post"]
        assert expected.pop("mask") == steps["mask head"]
        for scale, shape in expected.items():
            names = [step for step in steps if step.split(" ")[:2] == ["mask", scale]]
            assert len(names) in (1, 3) and {steps[step] for step in names} == {shape}
        assert len(steps) == 2 + 3 + 1 + 3 * (len(expected) - 1) + 1


def test_without_a_mask_branch_there_are_no_mask_steps():
    steps = {step for _, step, _ in anatomy.activations(meta("attention56_tiny", attention="none"))}
    assert steps == {"pre", "trunk unit 1", "trunk unit 2", "post"}
    assert "mask" not in {p.kind for p in anatomy.parts(meta("attention56_tiny", attention="none"))}


# -- what all of them promise ------------------------------------------------------------------------------------


def test_the_model_is_left_as_it_was():
    model = tiny().half()
    model.stem.eval()
    model.fc.weight.requires_grad_(False)
    fired = []
    model.stages.stage1.register_forward_hook(lambda *_: fired.append("after"))
    model.stem.register_forward_pre_hook(lambda *_: fired.append("before"))
    tensors = {
        name: (id(t), t.dtype, t.requires_grad, t._version) for name, t in model.state_dict(keep_vars=True).items()
    }
    modes = [module.training for module in model.modules()]
    hooks = [len(module._forward_hooks) + len(module._forward_pre_hooks) for module in model.modules()]
    random = torch.random.get_rng_state()
    anatomy.parts(model)
    anatomy.activations(model)
    reach.receptive_field(model)
    anatomy.unused_shortcuts(model)
    assert fired == []
    assert tensors == {
        n: (id(t), t.dtype, t.requires_grad, t._version) for n, t in model.state_dict(keep_vars=True).items()
    }
    assert [module.training for module in model.modules()] == modes
    assert [len(m._forward_hooks) + len(m._forward_pre_hooks) for m in model.modules()] == hooks
    assert torch.equal(torch.random.get_rng_state(), random)


def test_wrapped_models_are_unwrapped():
    wrapped = nn.Module()
    wrapped.module = torch.compile(tiny(), backend="eager")
    for count in (anatomy.parts, anatomy.activations, reach.receptive_field, anatomy.unused_shortcuts):
        expected = count(tiny())
        with torch.device("meta"):  # nor does the default device matter
            assert count(wrapped) == expected


def test_changes_to_the_object_are_counted():
    """Not the variant's row but the object decides."""
    model = tiny()
    before = {p.name: p for p in anatomy.parts(model)}
    model.stages.stage1.attention[0].trunk.append(ResidualUnit(32, 32))
    after = {p.name: p for p in anatomy.parts(model)}
    assert [name for name in before if before[name] != after[name]] == ["stage1.0", "stage1.0.trunk"]
    assert after["stage1.0.trunk"].flops == 1.5 * before["stage1.0.trunk"].flops
    assert ("stage1.0", "trunk unit 3", (32, 32, 32)) in anatomy.activations(model)


@pytest.mark.parametrize("size", [0, -3, 2.5, "32", True])
def test_a_size_that_is_none_is_refused(size):
    with pytest.raises(ConfigError, match=r"^size=.*: a whole number of pixels, at least 1, is needed"):
        anatomy.parts(meta("attention56_tiny"), size)


@pytest.mark.parametrize("count", [anatomy.parts, anatomy.activations, reach.receptive_field, anatomy.unused_shortcuts])
def test_other_networks_are_refused(count):
    with pytest.raises(ConfigError, match="model is a Linear"):
        count(nn.Linear(2, 2))


# -- tables ------------------------------------------------------------------------------------------------------


def cells(markdown: str) -> list[list[str]]:
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in markdown.splitlines()]


def test_part_table_lists_every_part_and_its_share():
    rows = cells(anatomy.part_table(meta("attention92")))
    assert all(len(row) == 6 for row in rows)
    found = {row[0].strip("*"): row[1:] for row in rows[2:]}
    assert found["stage1.0.mask"] == ["128×32×32", "122,240", "1.0", "98.3", "4.5"]
    assert found["all"][1:4] == ["12,170,730", "100.0", "2,178.4"]
    shares = [float(row[3]) for row in rows[2:-1] if not row[0].startswith("**")]
    assert sum(shares) == pytest.approx(100, abs=0.05 * len(shares))


def test_variant_table_stands_beside_the_paper():
    rows = {row[0].strip("`"): row[1:] for row in cells(anatomy.variant_table())[2:]}
    assert list(rows) == list(TABLE)
    for name, row in rows.items():
        assert int(row[2].replace(",", "")) == TABLE[name].parameters
    assert rows["attention92"][-2:] == ["–", "–"]
    assert rows["attention56_224"][-2:] == ["31.9 / 31.81", "6.2 / 6.27"]
    assert rows["attention236_cifar"][1] == "6 6 6 · 2 1 0"


def test_without_a_size_the_networks_own_is_taken():
    assert anatomy.parts(narrow((1,), input_size=48))[0].shape == (8, 48, 48)
