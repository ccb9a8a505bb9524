"""The folded network computes what the network itself computes in evaluation mode, and leaves that one alone."""

import dataclasses

import numpy as np
import pytest
import torch
from conftest import draw_images, draw_weights
from networks import norms, trained
from torch import Tensor, nn

import attnet
from attnet.base.device import KINDS
from attnet.base.errors import ConfigError
from attnet.engine.precision import Precision
from attnet.model.folding import folded
from attnet.model.modules import ATTENTION_TYPES, COMBINE_TYPES, MaskHead
from attnet.model.network import ResidualAttentionNetwork, copy_network, evaluating
from attnet.model.units import ResidualUnit

TABLE = attnet.variants()


def small(name: str = "attention56_tiny", **options: object) -> ResidualAttentionNetwork:
    """A network of the table with a quarter of its channels."""
    row = TABLE[name]
    narrow = dataclasses.replace(
        row,
        stem=dataclasses.replace(row.stem, channels=row.stem.channels // 4),
        widths=tuple(width // 4 for width in row.widths),
        tail_width=row.tail_width // 4,
        **options,
    )
    torch.manual_seed(0)
    return trained(ResidualAttentionNetwork(narrow))


def images(size: int = 32, dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.rand(4, 3, size, size, dtype=dtype, generator=torch.Generator().manual_seed(1))


def plain(model: nn.Module, batch: Tensor) -> Tensor:
    with evaluating(model):
        return model(batch)


def error(found: Tensor, expected: Tensor) -> float:
    """The largest difference of logits as a part of their spread."""
    return ((found.double() - expected.double()).abs().max() / expected.double().std()).item()


# -- the same logits -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", TABLE)
def test_every_network_of_the_table(name):
    model = small(name)
    batch = images(min(TABLE[name].input_size, 64))
    assert error(folded(model)(batch), plain(model, batch)) < 1e-5


@pytest.mark.parametrize("combine", COMBINE_TYPES)
@pytest.mark.parametrize("attention", ATTENTION_TYPES)
@pytest.mark.parametrize("counts", [{}, {"p": 2, "t": 1, "r": 2}], ids=["own", "p2t1r2"])
def test_every_option(attention, combine, counts):
    model = small(attention=attention, combine=combine, **counts)
    batch = images()
    assert error(folded(model)(batch), plain(model, batch)) < 1e-5


def test_float64_is_exact_to_its_own_last_digits():
    model, batch = small().double(), images(dtype=torch.float64)
    logits = folded(model, torch.float64)(batch)
    assert logits.dtype == torch.float64
    assert error(logits, plain(model, batch)) < 1e-12


def test_golden_logits_of_the_reference(reference_variants, golden):
    reference = "ResidualAttentionModel_92_32input_update"
    model = attnet.build_model("attention92")
    attnet.load_weights(model, draw_weights(reference_variants[reference]["state_dict"]))
    logits = folded(model)(draw_images(32)).numpy()
    expected = golden[f"{reference}.logits"]
    assert np.abs(logits - expected).max() <= 1e-4 * np.abs(expected).max()


def test_a_norm_registered_after_a_convolution_but_run_before_it_stays():
    class NormFirst(nn.Module):
        def __init__(self, channels: int) -> None:
            super().__init__()
            self.conv = nn.Conv2d(channels, channels, 1, bias=False)
            self.norm = nn.BatchNorm2d(channels)

        def forward(self, x: Tensor) -> Tensor:
            return self.conv(self.norm(x))

    model, batch = small(), images()
    model.tail.append(NormFirst(model.norm.num_features))
    trained(model)
    assert error(folded(model)(batch), plain(model, batch)) < 1e-5


@pytest.mark.parametrize("name", ["attention56_tiny", "attention92", "attention92_448"])
def test_only_norms_behind_a_sum_are_left(name):
    with torch.device("meta"):
        model = attnet.build_model(name)
    modules = list(model.modules())
    entries = sum(isinstance(module, ResidualUnit | MaskHead) for module in modules)
    assert len(norms(folded(model))) == entries + 1
    within = sum(2 * isinstance(module, ResidualUnit) + isinstance(module, MaskHead) for module in modules)
    assert len(norms(model)) == entries + within + 2, "the stem's and the last one"


# -- types, memory, modes ------------------------------------------------------------------------------------------


def test_bfloat16_stays_near_float32():
    model, batch = small(), images()
    network = folded(model, torch.bfloat16)
    logits = network(batch.bfloat16())
    assert logits.dtype == torch.bfloat16
    assert {p.dtype for m in network.modules() if not isinstance(m, nn.BatchNorm2d) for p in m.parameters(False)} == {
        torch.bfloat16
    }
    assert {value.dtype for norm in norms(network) for value in (norm.weight, norm.running_var)} == {torch.float32}
    assert error(logits, plain(model, batch)) < 0.05


def test_o2_takes_the_master_weights():
    """A half-precision network with float32 weights in hand gives the logits of those, not of the rounded ones."""
    device = KINDS["CPU"]()
    model, batch = small(), images()
    expected = plain(model, batch)
    full = {name: value.clone() for name, value in model.state_dict().items()}
    Precision(model, device, "O2")
    assert model.fc.weight.dtype == device.half_dtype
    assert error(folded(model, state=full)(batch), expected) < 1e-5
    rounded = folded(model)
    assert {p.dtype for p in rounded.parameters()} == {torch.float32}
    assert 1e-5 < error(rounded(batch), expected) < 0.05


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last], ids=["nchw", "nhwc"])
def test_memory_format_is_kept(layout, dtype):
    network = folded(small().to(memory_format=layout), dtype)
    weights = [module.weight for module in network.modules() if isinstance(module, nn.Conv2d)]
    assert all(weight.is_contiguous(memory_format=layout) for weight in weights)
    seen = []
    network.norm.register_forward_hook(lambda _module, _inputs, output: seen.append(output))
    batch = images(dtype=dtype).to(memory_format=layout)
    assert error(network(batch), network(batch.contiguous())) < (1e-5 if dtype == torch.float32 else 0.05)
    assert seen[0].is_contiguous(memory_format=layout)


def test_for_inference_only():
    network = folded(small())
    assert not any(module.training for module in network.modules())
    assert not any(p.requires_grad for p in network.parameters())
    assert not network(images()).requires_grad


# -- the model that is given ---------------------------------------------------------------------------------------


def test_a_copy_standardises_colours_as_the_network_does():
    model, batch = attnet.load_pretrained("attention56_cifar").model, images()
    expected, bare = plain(model, batch), attnet.build_model("attention56_cifar")
    assert error(folded(model)(batch), expected) < 1e-5
    assert torch.equal(plain(copy_network(model, meta=False).eval(), batch), expected)
    attnet.load_weights(bare, model.state_dict())
    assert error(plain(bare, batch), expected) > 0.1, "these weights want colours standardised"


def test_state_wins_over_the_models_weights():
    model, other, batch = small(), trained(small(), seed=2), images()
    assert error(plain(model, batch), plain(other, batch)) > 0.1
    assert error(folded(model, state=other.state_dict())(batch), plain(other, batch)) < 1e-5


def test_the_model_is_left_as_it_was():
    model = small().train()
    model.stem.eval()  # as fine-tuning with a frozen stem does
    model.fc.weight.requires_grad_(False)
    fired = []
    model.stages.stage1.register_forward_hook(lambda *_: fired.append("after"))
    model.stem[0].register_forward_pre_hook(lambda *_: fired.append("before"))
    before = {name: (id(t), t.requires_grad, t.clone()) for name, t in model.state_dict(keep_vars=True).items()}
    modes = [module.training for module in model.modules()]
    hooks = [len(module._forward_hooks) + len(module._forward_pre_hooks) for module in model.modules()]
    network = folded(model, torch.bfloat16, trained(small(), seed=2).state_dict())
    network(images(dtype=torch.bfloat16))
    assert fired == []
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in network.modules())
    for name, now in model.state_dict(keep_vars=True).items():
        place, requires_grad, value = before[name]
        assert (id(now), now.requires_grad) == (place, requires_grad), name
        assert torch.equal(now, value), name
    assert [module.training for module in model.modules()] == modes
    assert [len(module._forward_hooks) + len(module._forward_pre_hooks) for module in model.modules()] == hooks


@pytest.mark.parametrize("with_state", [False, True])
def test_later_changes_of_the_model_do_not_reach_the_copy(with_state):
    model, batch = small(), images()
    network = folded(model, state=model.state_dict() if with_state else None)
    before = network(batch)
    with torch.no_grad():
        for value in model.state_dict().values():
            value.zero_()
    assert torch.equal(network(batch), before)


def test_wrapped_and_compiled_models():
    model, batch = small(), images()
    expected = plain(model, batch)
    wrapped = nn.Module()  # as DistributedDataParallel does
    wrapped.module = torch.compile(model, backend="eager")
    assert error(folded(wrapped)(batch), expected) < 1e-5
    model.compile(backend="eager")
    assert folded(model)._compiled_call_impl is None
    assert model._compiled_call_impl is not None


# -- what is refused -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("wrap", [False, True])
def test_other_networks_are_refused(wrap):
    model = nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4))
    if wrap:
        wrapped = nn.Module()
        wrapped.module = model
        model = wrapped
    with pytest.raises(ConfigError, match=r"^model is a Sequential: only networks from attnet\.build_model"):
        folded(model)


def test_a_state_that_does_not_fit_is_refused():
    state = small().state_dict()
    del state["norm.bias"]
    with pytest.raises(RuntimeError, match=r"Missing key\(s\) in state_dict: \"norm\.bias\""):
        folded(small(), state=state)
