"""Weights in half precision: half the size, the same record and answers, and nothing spoilt."""

import pytest
import torch
from torch import nn

import attnet
from attnet.base.errors import WeightsError
from attnet.model.export import export_half, main
from attnet.model.pretrained import Pretrained, load_pretrained

IMAGES = torch.rand(4, 3, 32, 32, generator=torch.Generator().manual_seed(0))


@pytest.fixture
def network() -> Pretrained:
    torch.manual_seed(0)
    model = attnet.build_model("attention56_tiny")
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = 1.0
    with torch.no_grad():
        model(IMAGES)
    config = {"recipe": "seed", "dataset": "shapes"}
    return Pretrained(model.eval(), tuple("abcdefghij"), "drawn", "shapes", 71.5, 3, config)


def test_weights_are_half_as_large_and_give_the_same_answers(network, tmp_path, capsys):
    file = export_half(network, tmp_path / "half.pt")
    content = torch.load(file, weights_only=True)
    assert (content["top1"], content["epoch"], content["config"]["recipe"]) == (71.5, 3, "seed")
    kinds = {name: value.dtype for name, value in content["model"].items()}
    assert {kind for name, kind in kinds.items() if name.endswith("weight")} == {torch.float16}
    assert {kind for name, kind in kinds.items() if "running" in name} == {torch.float32}
    assert file.stat().st_size < 0.62 * sum(v.numel() * v.element_size() for v in network.model.state_dict().values())
    opened = load_pretrained(file)
    assert (opened.classes, opened.dataset, opened.top1) == (network.classes, "shapes", 71.5)
    with torch.no_grad():
        ours, half = network.model(IMAGES), opened.model(IMAGES)
    torch.testing.assert_close(half, ours, rtol=0, atol=0.1 * float(ours.std()))
    assert main(["--pretrained", str(file), "--output", str(tmp_path / "again.pt")]) == 0
    assert "again.pt: 1." in capsys.readouterr().out
    assert torch.load(tmp_path / "again.pt", weights_only=True)["classes"] == list("abcdefghij")


def test_what_half_precision_cannot_hold_is_refused(network, tmp_path):
    with torch.no_grad():
        network.model.fc.weight[0, 0] = 1e6
    with pytest.raises(WeightsError, match=r"fc\.weight exceeds what half precision holds"):
        export_half(network, tmp_path / "x.pt")
    assert not list(tmp_path.iterdir())
