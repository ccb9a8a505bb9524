"""Receptive fields: against the real network, made to betray what it has seen."""

import math

import pytest
import torch
from networks import meta, narrow, tiny
from torch import Tensor, nn

from attnet.base.errors import ConfigError
from attnet.model.modules import mask_levels
from attnet.model.network import ResidualAttentionNetwork, evaluating
from attnet.model.reach import _reaches, receptive_field
from attnet.model.variants import variants

TABLE = variants()


def probe(model: ResidualAttentionNetwork, side: int) -> dict[tuple[str, str], Tensor]:
    """First and last input row that reach each output row, found by making one row after the other NaN.

    NaN survives convolutions, ReLU, pooling and interpolation, also where its weight is zero.
    """
    reached: dict[tuple[str, str], Tensor] = {}
    handles = []

    def watch(module: nn.Module, name: str, scale: str) -> None:
        def hook(_module: nn.Module, inputs: tuple, output: Tensor) -> None:
            value = inputs[0] if scale == "input" else output
            rows = value.isnan().any(dim=3).any(dim=1).T  # [output rows, input rows]
            last = side - 1 - rows.flip(1).int().argmax(dim=1)
            reached[name, scale] = torch.stack([last, -rows.int().argmax(dim=1)]).double()

        handles.append(module.register_forward_hook(hook))

    for name, module in model.attention_modules().items():
        watch(module.trunk, name, "input")
        watch(module.trunk, name, "trunk")
        if module.mask is not None:
            watch(module.mask, name, "mask")
            for scale, level in mask_levels(module).items():
                watch(level.units, name, scale if level.below is None else f"{scale} down")
    images = torch.rand(1, 3, side, 4).repeat(side, 1, 1, 1)
    images[range(side), :, range(side)] = math.nan
    with evaluating(model):
        model(images)
    for handle in handles:
        handle.remove()
    return reached


@pytest.mark.parametrize(
    ("model", "side"),
    [
        (lambda: tiny(), 64),
        (lambda: tiny(unit="resnext"), 64),
        (lambda: tiny(unit="inception"), 64),
        (lambda: narrow((2, 1, 0)), 96),
        (lambda: narrow((2, 1), p=2, t=3, r=2, attention="channel", combine="naive"), 64),
        (lambda: narrow((2, 1, 0), attention="none"), 64),
        (lambda: narrow((3, 1), sums="paper"), 96),
        (lambda: narrow((4, 3)), 96),
        (lambda: narrow((0, 1, 0)), 61),
        (lambda: narrow((2, 1), stem=TABLE["attention92_pooled"].stem), 96),
        (lambda: narrow((3,), stem=TABLE["attention92_224"].stem), 128),
    ],
)
def test_every_position_depends_on_exactly_the_rows_that_the_walk_says(model, side):
    network = model()
    real = probe(network, side)
    walked = {(name, scale): reach for name, scale, reach in _reaches(network, side)}
    assert walked.keys() == real.keys()
    for key, reach in walked.items():
        assert torch.equal(reach, real[key]), key


def test_fields_are_those_of_positions_far_from_the_edges():
    network = narrow((2, 1))
    real = probe(network, 160)
    fields = {(f.module, f.scale): f for f in receptive_field(network)}
    assert fields.keys() == real.keys()
    for key, reach in real.items():
        inside = reach[:, (reach[0] < 159) & (reach[1] < 0)]
        assert fields[key].size == (inside.sum(dim=0) + 1).max(), key
        assert fields[key].jump == 160 // reach.shape[1]


def test_fields_by_hand():
    """3x3 stem, an entry unit, p = 1 and t = 2 units of one 3x3 convolution each: 2 more pixels a convolution."""
    sizes = {(f.module, f.scale): (f.size, f.jump) for f in receptive_field(meta("attention92"))}
    assert sizes["stage1.0", "input"] == (7, 1)
    assert sizes["stage1.0", "trunk"] == (11, 1)
    # pooling adds 2 pixels and doubles the jump, a unit then adds 4; the second pooling 4, two units 8 each
    assert sizes["stage1.0", "1/2 down"] == (13, 2)
    assert sizes["stage1.0", "1/4"] == (33, 4)
    assert sizes["stage1.0", "mask"][0] > 32  # the whole image


def test_spatial_attention_sees_all_of_any_image():
    sizes = {(f.module, f.scale): f.size for f in receptive_field(meta("attention56_tiny", attention="spatial"))}
    assert sizes["stage1.0", "trunk"] == 11 and sizes["stage1.0", "1/4"] == 33
    assert sizes["stage1.0", "mask"] == math.inf == sizes["stage2.0", "input"]


def test_a_layer_without_a_rule_is_refused():
    model = tiny()
    model.stages.stage2.attention[0].trunk[1] = nn.ConvTranspose2d(64, 64, 1)
    with pytest.raises(ConfigError, match=r"no rule for a ConvTranspose2d, which may be a unit of yours"):
        receptive_field(model)
