"""Networks written for other tools: the same logits there, the same record, and a sentence for what cannot be."""

import functools
import json
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

import attnet
from attnet.base.errors import AttnetError, ConfigError, SaveError, WeightsError
from attnet.model import export
from attnet.model.export import export_onnx, export_safetensors, logits_difference
from attnet.model.pretrained import Pretrained, load_pretrained
from attnet.model.weights.graphs import OnnxNetwork

onnx = pytest.importorskip("onnx", reason='onnx is not installed (pip install -e ".[export]")')
onnxruntime = pytest.importorskip("onnxruntime", reason='onnxruntime is not installed (pip install -e ".[export]")')
pytest.importorskip("safetensors", reason='safetensors is not installed (pip install -e ".[export]")')

SMALL = [name for name, variant in attnet.variants().items() if variant.input_size == 32]
CLASSES = tuple(f"kind {k}" for k in range(10))


def drawn(name: str) -> Pretrained:
    """A network whose batch norms know what comes to them, so that every part matters and none explodes."""
    torch.manual_seed(0)
    model = attnet.build_model(name)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = 1.0
            nn.init.normal_(module.weight, 1, 0.2)
            nn.init.normal_(module.bias, 0, 0.2)
    side = model.variant.input_size
    with torch.no_grad():
        model(torch.rand(16 if side == 32 else 2, 3, side, side))
    return Pretrained(model.eval(), CLASSES, weights="drawn")


@pytest.fixture(scope="module")
def tiny() -> Pretrained:
    return drawn("attention56_tiny")


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> Path:
    """The folder of a short run on standardised colours."""
    config = attnet.TrainConfig(
        mode="rehearsal",
        dataset="shapes",
        train_images=16,
        test_images=20,
        train_batch_size=8,
        total_epochs=1,
        normalize=True,
        classes="disc,ring,square,cross",
        device_type="CPU",
        progress="none",
        output_dir=str(tmp_path_factory.mktemp("export") / "run"),
    )
    return attnet.fit(config).output_dir


def run_onnx(file: Path, images: torch.Tensor) -> torch.Tensor:
    """The logits, without any of our code."""
    (logits,) = onnxruntime.InferenceSession(str(file)).run(["logits"], {"images": images.numpy()})
    return torch.from_numpy(logits)


def agree(ours: torch.Tensor, theirs: torch.Tensor) -> bool:
    return ours.shape == theirs.shape and bool((ours - theirs).abs().max() <= 1e-4 * theirs.abs().max())


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=() if name == "attention56_tiny" else pytest.mark.slow)
        for name in SMALL
        if name != "attention452_cifar"  # which has the parts of attention236_cifar, only more of them
    ],
)
def test_a_graph_gives_torchs_logits_for_any_batch(name, tmp_path):
    network = drawn(name)
    file = export_onnx(network, tmp_path / "network.onnx")
    for count in (1, 7):
        images = torch.rand(count, 3, 32, 32, generator=torch.Generator().manual_seed(count))
        with torch.no_grad():
            expected = network.model(images)
        assert agree(run_onnx(file, images), expected)


@pytest.mark.parametrize("opset", [export.OPSETS[0], 13, export.DEFAULT_OPSET, export.OPSETS[-1]])
def test_every_opset_is_what_was_asked_for_and_up_samples_by_a_constant(opset, tiny, tmp_path):
    model = onnx.load(export_onnx(tiny, tmp_path / "network.onnx", opset=opset))
    assert [(entry.domain, entry.version) for entry in model.opset_import] == [("", opset)]
    nodes = {kind: [n for n in model.graph.node if n.op_type == kind] for kind in ("Resize", "Shape", "Identity")}
    assert not nodes["Shape"] and not nodes["Identity"] and len(nodes["Resize"]) == 3
    constants = {tensor.name: onnx.numpy_helper.to_array(tensor) for tensor in model.graph.initializer}
    for node in nodes["Resize"]:
        settings = {a.name: onnx.helper.get_attribute_value(a) for a in node.attribute}
        assert (settings["mode"], settings["coordinate_transformation_mode"]) == (b"linear", b"align_corners")
        assert constants[node.input[2]].tolist() == [1, 1, 2, 2] and len(node.input) == 3
    assert set(constants) <= {name for node in model.graph.node for name in node.input}, "nothing that nobody reads"


@pytest.mark.slow
def test_larger_networks_double_as_well(tmp_path):
    network = drawn("attention56_224")
    assert logits_difference(network, export_onnx(network, tmp_path / "network.onnx")) <= 1e-4


def test_colours_are_standardised_in_the_graph_and_the_record_is_there(run, tmp_path):
    file = export_onnx(run, tmp_path / "network.onnx")
    network = load_pretrained(run)
    assert set(network.colour) == {"mean", "std"}
    images = torch.rand(5, 3, 32, 32)
    with torch.no_grad():
        expected = network.model(images)
        network.model._forward_pre_hooks.clear()
        assert not agree(network.model(images), expected), "the colours matter"
    assert agree(run_onnx(file, images), expected)
    record = onnxruntime.InferenceSession(str(file)).get_modelmeta().custom_metadata_map
    assert json.loads(record.pop("classes"))[:2] == ["disc", "ring"]
    assert json.loads(record.pop("config")) == network.config
    assert record == {
        "network": "attention56_tiny",
        "weights": str(run / "best.pt"),
        "attnet": attnet.__version__,
    }


def test_safetensors_is_read_as_the_checkpoint_is(run, tmp_path):
    file = export_safetensors(run, tmp_path / "network.safetensors")
    ours, theirs = load_pretrained(file), load_pretrained(run)
    for name, value in theirs.model.state_dict().items():
        assert torch.equal(value, ours.model.state_dict()[name]), name
    for field in ("classes", "dataset", "top1", "epoch", "colour", "config"):
        assert getattr(ours, field) == getattr(theirs, field), field
    images = torch.rand(3, 3, 32, 32)
    with torch.no_grad():
        assert torch.equal(ours.model(images), theirs.model(images))
    bare = attnet.build_model("attention56_tiny", num_classes=4)
    assert attnet.load_weights(bare, file).layout == "attnet"


def test_evaluation_is_the_same_from_every_file(run, tmp_path, monkeypatch):
    monkeypatch.setattr(attnet.engine.plan, "load_dataset", functools.cache(attnet.load_dataset))
    weights, graph = export_safetensors(run, tmp_path / "n.safetensors"), export_onnx(run, tmp_path / "n.onnx")
    found = []
    for file, normalize in ((run, None), (weights, None), (graph, None), (graph, True)):
        config = attnet.TrainConfig(pretrained=str(file), normalize=normalize, test_images=100, device_type="CPU")
        plan = attnet.plan_evaluation(config)
        assert (plan.config.model, plan.config.dataset, plan.device.kind) == ("attention56_tiny", "shapes", "CPU")
        found.append(attnet.evaluate_weights(plan, plan.config.pretrained))
    for other in found[1:]:
        assert agree(other.logits, found[0].logits)
        assert other.top1 == found[0].top1 and other.classes == found[0].classes


def test_a_graph_whose_logits_are_no_finite_numbers_is_refused(run, tmp_path):
    model = onnx.load(export_onnx(run, tmp_path / "n.onnx"))
    bias = next(tensor for tensor in model.graph.initializer if list(tensor.dims) == [4])
    bias.CopyFrom(onnx.numpy_helper.from_array(np.full(4, np.nan, np.float32), bias.name))
    onnx.save(model, tmp_path / "n.onnx")
    config = attnet.TrainConfig(pretrained=str(tmp_path / "n.onnx"), test_images=100, device_type="CPU")
    plan = attnet.plan_evaluation(config)
    with pytest.raises(WeightsError, match=r"n\.onnx: the logits of 100 of 100 images are no finite numbers \(a graph"):
        attnet.evaluate_weights(plan)


def test_a_graph_that_differs_is_not_written(tiny, tmp_path, monkeypatch):
    def half_pixel(graph: object) -> None:
        for node in graph.node:
            for attribute in node.attribute:
                if attribute.name == "coordinate_transformation_mode":
                    attribute.s = b"half_pixel"

    file = tmp_path / "network.onnx"
    file.write_text("what was there")
    monkeypatch.setattr(export, "_tidy", half_pixel)
    with pytest.raises(SaveError, match="not written, since its logits differ from torch's by"):
        export_onnx(tiny, file)
    assert file.read_text() == "what was there" and list(tmp_path.iterdir()) == [file]


@pytest.mark.parametrize(
    ("file", "options", "message"),
    [
        ("network.pt", {}, r"network\.pt': give a file that ends in \.onnx"),
        ("network.onnx", {"opset": 10}, "opset=10: 11 to 18 are written; older ones cannot up-sample"),
        ("network.onnx", {"opset": 19}, "opset=19: 11 to 18 are written; .*ATC takes no newer one"),
        ("network.onnx", {"batch_size": 0, "dynamic_batch": False}, "batch_size=0: at least 1"),
        ("network.onnx", {"batch_size": 8}, "batch_size=8: .*only with dynamic_batch=False"),
    ],
    ids=["suffix", "old-opset", "new-opset", "no-batch", "dynamic-batch"],
)
def test_what_cannot_be_written(file, options, message, tiny, tmp_path):
    with pytest.raises(ConfigError, match=message):
        export_onnx(tiny, tmp_path / file, **options)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("name", ["onnx", "safetensors", "onnxruntime"])
def test_a_missing_package_is_a_sentence(name, tiny, tmp_path, monkeypatch):
    file = tmp_path / ("n.safetensors" if name == "safetensors" else "n.onnx")
    write = export_safetensors if name == "safetensors" else export_onnx
    for module in [key for key in sys.modules if key.split(".")[0] == name]:
        monkeypatch.setitem(sys.modules, module, None)
    monkeypatch.setitem(sys.modules, name, None)
    sentence = rf'needs the package {name} \(.*pip install -e "\.\[export\]" brings it'
    if name == "onnxruntime":  # writing works without it, only unchecked
        assert write(tiny, file) == file
        with pytest.raises(AttnetError, match=sentence):
            OnnxNetwork(file)
        return
    with pytest.raises(AttnetError, match=sentence):
        write(tiny, file)
    assert not file.exists()


def test_the_command_line(run, tmp_path, capsys):
    file = tmp_path / "network.onnx"
    words = ["--pretrained", str(run), "--output", str(file)]
    assert export.main([*words, "--dynamic_batch", "False", "--batch_size", "2", "--opset", "13"]) == 0
    printed = capsys.readouterr().out
    assert "attention56_tiny from" in printed and "onnxruntime: logits within" in printed
    assert OnnxNetwork(file).batch_size == 2 and onnx.load(file).opset_import[0].version == 13
    assert export.main(["--pretrained", str(run), "--output", str(tmp_path / "n.safetensors")]) == 0
    assert load_pretrained(tmp_path / "n.safetensors").dataset == "shapes"
    assert export.main([*words[:2], "--output", str(tmp_path / "n.safetensors"), "--opset", "13"]) == 2
    assert "attnet: --opset: only for .onnx" in capsys.readouterr().err
    assert export.main(["--output", "network.h5"]) == 2
    assert "output='network.h5': give a file that ends in .onnx or .safetensors or .pt" in capsys.readouterr().err


def test_the_shipped_weights_are_taken_when_none_are_named(tmp_path, capsys):
    assert export.main(["--output", str(tmp_path / "n.safetensors")]) == 0
    assert "attention56_cifar, trained on cifar10" in capsys.readouterr().out
