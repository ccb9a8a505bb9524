"""Which apex is found, what is chosen, and that the stand-ins look like the real ones."""

import inspect
import re
import sys
from pathlib import Path

import pytest

from attnet.base.apex import Apex, choose, find
from attnet.base.device import KINDS
from attnet.engine.apex import ApexPrecision, FusedPrecision, precision_type
from attnet.engine.precision import Precision

pytest_plugins = "harness_apex"

STAND_INS = Path(__file__).parents[1] / "apex_stand_ins"


@pytest.mark.parametrize(
    ("installed", "kind", "version", "parts"),
    [
        ("ascend", "ascend", "0.1+ascend", ("amp", "NpuFusedSGD")),
        ("former", "nvidia-amp", "", ("amp", "FusedSGD")),
        ("nvidia", "nvidia", "", ("FusedSGD",)),
        ("unrelated", "unrelated", "0.9.10.dev0", ()),
        ("none", "none", "", ()),
    ],
)
def test_find_tells_them_apart_without_running_them(install, installed, kind, version, parts):
    install(installed)
    apex = find()
    path = "" if installed == "none" else str(STAND_INS / installed / "apex")
    assert apex == Apex(kind, version, path, parts)
    assert "apex" not in sys.modules
    assert apex.use.startswith("nothing") == (not parts)


@pytest.mark.parametrize(("installed", "module"), [("ascend", "change_data_ptr"), ("nvidia", "amp_C")])
def test_an_apex_without_its_compiled_module_is_no_use(install, monkeypatch, tmp_path, installed, module):
    install("unrelated")  # whose version is not that of the source tree before it on the path
    (tmp_path / "apex").symlink_to(STAND_INS / installed / "apex")
    monkeypatch.syspath_prepend(str(tmp_path))
    apex = find()
    assert apex == Apex(installed, "", str(tmp_path / "apex"), ())
    assert module in apex.use
    used, sentence = choose("O2", "NPU" if installed == "ascend" else "GPU", apex)
    assert not used
    assert module in sentence and "build it again" in sentence


def test_a_folder_of_that_name_is_no_installation(install, monkeypatch, tmp_path):
    install("none")
    (tmp_path / "apex" / "patch").mkdir(parents=True)
    monkeypatch.syspath_prepend(str(tmp_path))
    assert find().kind == "none"


ASCEND = Apex("ascend", "0.1+ascend", "/a/apex", ("amp", "NpuFusedSGD"))
FORMER = Apex("nvidia-amp", "0.1", "/f/apex", ("amp", "FusedSGD"))
NVIDIA = Apex("nvidia", "0.1", "/n/apex", ("FusedSGD",))
UNRELATED = Apex("unrelated", "0.9.10.dev0", "/u/apex")
NONE = Apex("none")
LEVELS = ("O0", "O1", "O2", "O3")


@pytest.mark.parametrize("device", ["NPU", "GPU", "MPS", "CPU"])
@pytest.mark.parametrize("apex", [ASCEND, FORMER, NVIDIA, UNRELATED, NONE], ids=lambda apex: apex.kind)
def test_choose_uses_apex_where_it_fits(apex, device):
    expected = {("ascend", "NPU"): {"O1", "O2"}, ("nvidia-amp", "GPU"): {"O1", "O2"}, ("nvidia", "GPU"): set(LEVELS)}
    sentences = {level: choose(level, device, apex) for level in LEVELS}
    assert {level for level, (used, _) in sentences.items() if used} == expected.get((apex.kind, device), set())
    for used, sentence in sentences.values():
        assert used or "native torch" in sentence
        assert not re.search(r"[\[\](){}_]", sentence.replace("(Ascend/apex on gitee or gitcode)", "")), sentence
        assert len(sentence) < 240


@pytest.mark.parametrize(
    ("level", "device", "apex", "words"),
    [
        ("O2", "NPU", ASCEND, ("Ascend's apex 0.1+ascend", "O2", "NpuFusedSGD")),
        ("O1", "NPU", ASCEND, ("combined gradients", "torch's SGD")),
        ("O2", "GPU", FORMER, ("former", "FusedSGD")),
        ("O0", "GPU", NVIDIA, ("no amp any more", "native torch does O0", "FusedSGD")),
        ("O0", "NPU", ASCEND, ("adds nothing at O0",)),
        ("O2", "NPU", NVIDIA, ("NVIDIA's apex 0.1 is for GPUs", "Ascend's is built")),
        ("O2", "GPU", ASCEND, ("Ascend's apex 0.1+ascend is for NPUs", "NVIDIA's is built")),
        ("O2", "NPU", UNRELATED, ("another project", "pip uninstall apex")),
        ("O2", "GPU", Apex("unrelated", "", "/u/apex"), ("another project", "/u/apex")),
        ("O2", "NPU", NONE, ("no apex is installed", "gitee", "same opt levels")),
        ("O2", "CPU", NONE, ("CPU", "same opt levels")),
    ],
)
def test_choose_says_why(level, device, apex, words):
    _, sentence = choose(level, device, apex)
    for word in words:
        assert word in sentence


@pytest.mark.parametrize(
    ("installed", "level", "device", "expected"),
    [
        ("ascend", "O2", "NPU", ApexPrecision),
        ("ascend", "O3", "NPU", Precision),
        ("former", "O1", "GPU", ApexPrecision),
        ("nvidia", "O3", "GPU", FusedPrecision),
        ("ascend", "O2", "CPU", Precision),
        ("none", "O2", "NPU", Precision),
    ],
)
def test_precision_type(install, installed, level, device, expected):
    install(installed)
    assert precision_type(level, KINDS[device]()) is expected


# The real ones' signatures, as `inspect` writes them. Ascend's is 49a7994e13cc70d155adbd7b25b7a6b86e38e58e, a patch of
# NVIDIA's 4ef930c1c884fdca5f472ab2ce7cb9b505d26c1a; NVIDIA's former e13873debc4699d39c6861074b9a3b2a02327f92, the last
# with amp; NVIDIA's present 6424da3b4faa6c8f062da4a48c424fff3f02d42d.
_INITIALIZE = (
    "models, optimizers=None, enabled=True, opt_level='O1', cast_model_type=None, patch_torch_functions=None, "
    "keep_batchnorm_fp32=None, master_weights=None, loss_scale=None, cast_model_outputs=None, num_losses=1, verbosity=1"
)
_SCALES = "min_loss_scale=None, max_loss_scale=16777216.0"
_SCALE_LOSS = "(loss, optimizers, loss_id=0, model=None, delay_unscale=False, delay_overflow_check=False)"
_FUSED_SGD = (
    "(params, lr=<required parameter>, momentum=0, dampening=0, weight_decay=0, nesterov=False, "
    "wd_after_momentum=False, materialize_master_grads=True, set_grad_none=False)"
)
SIGNATURES = {
    "ascend": {
        "amp.initialize": f"({_INITIALIZE}, dynamic_init_scale=65536.0, scale_growth_factor=2.0, "
        f"scale_backoff_factor=0.5, scale_window=2000, {_SCALES}, combine_grad=None, combine_ddp=None, "
        "ddp_replica_count=4, user_cast_preferred=None, check_combined_tensors=None)",
        "amp.scale_loss": _SCALE_LOSS,
        "amp.master_params": "(optimizer)",
        "amp.state_dict": "(destination=None)",
        "amp.load_state_dict": "(state_dict)",
        "optimizers.NpuFusedSGD": "(params, lr=<required parameter>, momentum=0.0, dampening=0.0, weight_decay=0.0, "
        "nesterov=False)",
        "optimizers.FusedSGD": _FUSED_SGD,
    },
    "former": {
        "amp.initialize": f"({_INITIALIZE}, {_SCALES})",
        "amp.scale_loss": _SCALE_LOSS,
        "amp.master_params": "(optimizer)",
        "amp.state_dict": "(destination=None)",
        "amp.load_state_dict": "(state_dict)",
        "optimizers.FusedSGD": _FUSED_SGD,
    },
    "nvidia": {"optimizers.FusedSGD": _FUSED_SGD, "optimizers.FusedSGD.zero_grad": "(self)"},
}


@pytest.mark.parametrize("kind", SIGNATURES)
def test_the_stand_ins_have_the_real_signatures(install, kind):
    install(kind)
    import apex

    for path, expected in SIGNATURES[kind].items():
        thing = apex
        for name in path.split("."):
            thing = getattr(thing, name)
        assert str(inspect.signature(thing)) == expected, path
