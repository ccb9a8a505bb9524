"""Files of other tools: what can be done with them, and a sentence for what cannot."""

import pytest
import torch

import attnet
from attnet.base.errors import ConfigError, WeightsError
from attnet.masks.open import open_pretrained
from attnet.model.export import export_onnx, export_safetensors
from attnet.model.pretrained import Pretrained, load_pretrained
from attnet.model.weights.graphs import OnnxNetwork

onnx = pytest.importorskip("onnx", reason='onnx is not installed (pip install -e ".[export]")')
onnxruntime = pytest.importorskip("onnxruntime", reason='onnxruntime is not installed (pip install -e ".[export]")')
safetensors = pytest.importorskip(
    "safetensors.torch", reason='safetensors is not installed (pip install -e ".[export]")'
)


@pytest.fixture(scope="module")
def network() -> Pretrained:
    return load_pretrained("attention56_shapes")


def test_a_graph_has_no_masks_and_says_so(network, tmp_path):
    file = export_onnx(network, tmp_path / "network.onnx")
    for ask in (load_pretrained, open_pretrained, lambda path: attnet.load_weights(network.model, path)):
        with pytest.raises(WeightsError, match=r"no masks.*evaluate\.ipynb takes it"):
            ask(file)
    with pytest.raises(ConfigError, match=r"masks are those of networks from attnet\.build_model"):
        attnet.capture_masks(OnnxNetwork(file), torch.rand(1, 3, 32, 32))
    with pytest.raises(ConfigError, match=r"device_type=GPU: network\.onnx is run on the CPU"):
        attnet.plan_evaluation(attnet.TrainConfig(pretrained=str(file), device_type="GPU"))


@pytest.mark.parametrize("suffix", [".onnx", ".safetensors"])
def test_a_damaged_file_is_a_sentence(suffix, network, tmp_path):
    file = tmp_path / f"network{suffix}"
    (export_onnx if suffix == ".onnx" else export_safetensors)(network, file)
    file.write_bytes(file.read_bytes()[:1000])
    with pytest.raises(WeightsError, match=f"network{suffix}: not a readable"):
        attnet.plan_evaluation(attnet.TrainConfig(pretrained=str(file)))


def test_foreign_files_are_a_sentence(network, tmp_path):
    model = onnx.load(export_onnx(network, tmp_path / "ours.onnx"))
    del model.metadata_props[:]
    onnx.save(model, tmp_path / "foreign.onnx")
    with pytest.raises(WeightsError, match=r"foreign\.onnx: not written by attnet export"):
        OnnxNetwork(tmp_path / "foreign.onnx")
    plain = attnet.build_model("attention56_cifar").state_dict()
    safetensors.save_file(plain, tmp_path / "plain.safetensors", {"format": "pt"})
    assert load_pretrained(tmp_path / "plain.safetensors").model.variant.name == "attention56_cifar"


def test_a_graph_of_a_fixed_batch_takes_any_number_of_images(network, tmp_path):
    file = export_onnx(network, tmp_path / "network.onnx", dynamic_batch=False, batch_size=4)
    images = torch.rand(7, 3, 32, 32)
    with pytest.raises(Exception, match="Expected: 4"):
        onnxruntime.InferenceSession(str(file)).run(None, {"images": images.numpy()})
    with torch.no_grad():
        expected = network.model(images)
    for count in (1, 4, 7):
        torch.testing.assert_close(OnnxNetwork(file)(images[:count]), expected[:count], rtol=1e-4, atol=1e-4)
