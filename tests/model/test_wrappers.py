"""Weights in the wrappers of other tools: taken off, said, and chosen among where a file holds several sets."""

import copy

import pytest
import torch
from conftest import REFERENCE, draw_weights
from networks import tiny
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel

import attnet
from attnet.base.errors import WeightsError
from attnet.engine.parameters import TrainConfig
from attnet.engine.plan import plan_evaluation
from attnet.model.pretrained import load_pretrained
from attnet.model.weights import fitting
from attnet.model.weights.fitting import fitting_variants
from attnet.model.weights.opened import Weights
from attnet.model.weights.wrappers import AVERAGES, CONTAINERS, PREFIXES, unwrap_state

STATE = tiny().state_dict()
OTHER = {name: value + 1 for name, value in STATE.items()}


def prefixed(prefix: str, state: dict[str, Tensor] = STATE) -> dict[str, Tensor]:
    return {prefix + name: value for name, value in state.items()}


def is_state(found: dict[str, Tensor], state: dict[str, Tensor] = STATE) -> bool:
    return found.keys() == state.keys() and all(torch.equal(found[name], value) for name, value in state.items())


# -- files of the reference, as old as it is ------------------------------------------------------------------------


@pytest.mark.parametrize("name", [n for n in REFERENCE if "32input" in n])
def test_a_file_as_the_reference_published_it(name, reference_variants, tmp_path):
    """PyTorch before 0.4.1, from DataParallel: no zip, no counters, and the shortcuts that are never used."""
    state = draw_weights(reference_variants[name]["state_dict"])
    old = {f"module.{key}": value for key, value in state.items() if not key.endswith("num_batches_tracked")}
    assert len(old) < len(state) and any("conv4" in key for key in old)
    torch.save(old, tmp_path / "old.pkl", _use_new_zipfile_serialization=False)
    assert (tmp_path / "old.pkl").read_bytes()[:2] != b"PK"
    assert fitting_variants(old) == [REFERENCE[name]]
    opened = Weights.open(tmp_path / "old.pkl")
    assert (opened.model, opened.peeled, opened.outputs) == (REFERENCE[name], ("module.",), 10)
    network = load_pretrained(tmp_path / "old.pkl").model
    assert network.variant.name == REFERENCE[name]
    report = attnet.load_weights(network, opened)
    assert report.layout == "reference" and sorted(report.dropped) == sorted(reference_variants[name]["unused"])
    assert report.missing == tuple(n for n in network.state_dict() if n.endswith("num_batches_tracked"))
    assert report.loaded + len(report.missing) == len(network.state_dict())
    assert torch.equal(network.fc.weight, state["fc.weight"])


def test_a_network_without_anything_but_counters_is_still_another():
    state = {name: value for name, value in STATE.items() if not name.endswith("running_mean")}
    assert fitting_variants(STATE) == ["attention56_tiny"] and fitting_variants(state) == []


def test_no_network_with_other_ends_is_built_to_see_which_fits(monkeypatch):
    asked, shapes = [], fitting._shapes
    monkeypatch.setattr(fitting, "_shapes", lambda name: asked.append(name) or shapes(name))
    assert fitting_variants(STATE) == asked == ["attention56_tiny"]


# -- wrappers ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("container", [*CONTAINERS, *AVERAGES])
@pytest.mark.parametrize(
    "prefix", ["", *(f"{word}." for word in PREFIXES), "module._orig_mod.", "model.module.", "her.own."]
)
def test_every_container_and_every_prefix(container, prefix):
    found = unwrap_state({container: prefixed(prefix), "epoch": 3, "optimizer": {"state": {0: torch.ones(3)}}})
    assert is_state(found.state) and found.entry == container
    assert found.averaged == (container in AVERAGES) and found.others == ()
    assert found.peeled == tuple(f"{word}." for word in prefix.split(".")[:-1])
    assert is_state(unwrap_state({"state_dict": {container: prefixed(prefix)}}).state)


def test_what_the_tools_themselves_write(tmp_path):
    averaged = AveragedModel(tiny())
    averaged.update_parameters(tiny())
    compiled = torch.compile(nn.DataParallel(tiny()), backend="eager")
    partly = tiny()
    partly.stages.stage1 = torch.compile(partly.stages.stage1, backend="eager")
    counted = copy.deepcopy(tiny())
    for module in counted.modules():
        module.register_buffer("total_ops", torch.zeros(1, dtype=torch.float64))
        module.register_buffer("total_params", torch.zeros(1, dtype=torch.float64))
    wanted = {"averaged": ("module.", "n_averaged"), "compiled": ("_orig_mod.", "module."), "partly": ("_orig_mod.",)}
    for name, model in {"averaged": averaged, "compiled": compiled, "partly": partly, "counted": counted}.items():
        torch.save(model.state_dict(), tmp_path / f"{name}.pt")
        opened = Weights.open(tmp_path / f"{name}.pt")
        assert is_state(opened.state) and opened.model == "attention56_tiny", name
        assert name not in wanted or opened.peeled == wanted[name]
        assert opened.averaged == (name == "averaged")
    assert "total_ops" in opened.peeled and "stem.0.total_params" in opened.peeled


def test_what_is_no_wrapper_is_named_and_what_was_taken_off_said():
    state = prefixed("model.") | {"criterion.weight": torch.ones(10), "n_averaged": torch.tensor(3)}
    with pytest.raises(WeightsError) as error:
        attnet.load_weights(tiny(), state)
    assert "\n  not in this network (1): criterion.weight\n  taken off before: model., n_averaged" in str(error.value)
    assert "missing" not in str(error.value)


def test_two_names_that_become_one_are_refused():
    state = {**prefixed("module."), "stem.0.weight": STATE["stem.0.weight"]}
    with pytest.raises(WeightsError, match=r"'(module\.)?stem\.0\.weight' is there twice.*; keep one"):
        unwrap_state(state)


def test_a_safetensors_file_has_words_before_names_for_containers(tmp_path):
    safetensors = pytest.importorskip("safetensors.torch", reason='pip install -e ".[export]" brings safetensors')
    file = tmp_path / "both.safetensors"
    safetensors.save_file(prefixed("model.") | prefixed("model_ema.module.", OTHER), file)
    opened = Weights.open(file)
    assert is_state(opened.state, OTHER)
    assert (opened.entry, opened.averaged, opened.others) == ("model.model_ema", True, ("model",))
    assert is_state(Weights.open(f"{file}:model").state)


# -- several sets of weights ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("content", "averaged", "raw"),
    [
        (
            {"model": STATE, "model_ema": {"n_averaged": torch.tensor(4), **prefixed("module.", OTHER)}},
            "model_ema",
            "model",
        ),
        ({"state_dict": STATE, "state_dict_ema": OTHER}, "state_dict_ema", "state_dict"),
        ({"ema": {"decay": 0.9, "shadow": OTHER}, "net": STATE}, "ema.shadow", "net"),
        ({"training": STATE, "model": OTHER}, "model", "training"),
        (prefixed("ema_model.", OTHER) | prefixed("online_model.") | {"step": torch.tensor(1)}, "ema_model", "raw"),
    ],
    ids=["torchvision", "timm", "shadow", "attnet", "ema-pytorch"],
)
def test_the_average_is_taken_said_and_may_be_left(content, averaged, raw, tmp_path):
    file = tmp_path / "both.pt"
    torch.save(content, file)
    opened = Weights.open(file)
    assert is_state(opened.state, OTHER)
    assert (opened.entry, opened.averaged, opened.others) == (averaged, True, (raw,))
    assert opened.choice() == f"averaged weights {averaged!r} (not {raw!r})"
    assert is_state(Weights.open(opened.address).state, OTHER)
    other = Weights.open(f"{file}:{raw}")
    assert is_state(other.state) and not other.averaged and other.address == f"{file}:{raw}"
    network = load_pretrained(f"{file}:{raw}")
    assert torch.equal(network.model.fc.bias, STATE["fc.bias"])
    assert f"weights {raw!r} (not {averaged!r})" in network.describe() and "averaged weights" not in network.describe()
    with pytest.raises(WeightsError, match=rf"both\.pt: there are no weights at 'best' in it; there is .*{raw}"):
        Weights.open(f"{file}:best")


def test_an_evaluation_keeps_the_choice(tmp_path):
    file = tmp_path / "both.pt"
    torch.save({"model": STATE, "ema": OTHER}, file)
    plan = plan_evaluation(TrainConfig(pretrained=f"{file}:model", dataset="shapes", test_images=20, device_type="CPU"))
    assert plan.config.pretrained == f"{file}:model" and is_state(Weights.open(plan.config.pretrained).state)
    assert f"weights: {file}:model, weights 'model' (not 'ema')" in plan.describe()


def test_one_set_of_weights_needs_no_words(tmp_path):
    torch.save({"model": STATE}, tmp_path / "one:two.pt")
    opened = Weights.open(tmp_path / "one:two.pt")  # a colon in a name is none
    assert opened.choice() == "" and opened.address == str(tmp_path / "one:two.pt")
    assert is_state(Weights.open(f"{tmp_path / 'one:two.pt'}:model").state)
    with pytest.raises(WeightsError, match=r"weights .*/missing\.pt: no such file"):
        Weights.open(f"{tmp_path}/missing.pt:ema")
