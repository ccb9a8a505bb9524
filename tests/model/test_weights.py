"""Reference checkpoints of all five classes load and give the reference's own outputs."""

import pickle

import numpy as np
import pytest
import torch
from conftest import REFERENCE, draw_images, draw_weights

import attnet
from attnet.base.errors import WeightsError


def loaded(reference_class: str, reference_variants: dict):
    entry = reference_variants[reference_class]
    state = draw_weights(entry["state_dict"])
    model = attnet.build_model(REFERENCE[reference_class]).eval()
    return model, attnet.load_weights(model, state), entry


@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last], ids=["nchw", "nhwc"])
@pytest.mark.parametrize(
    "reference_class",
    [pytest.param(c, marks=pytest.mark.slow if "4" in n else ()) for c, n in REFERENCE.items()],
)
def test_golden_logits_and_masks(reference_class, memory_format, reference_variants, golden):
    model, report, entry = loaded(reference_class, reference_variants)
    assert report.layout == "reference"
    assert sorted(report.dropped) == sorted(entry["unused"])
    model.to(memory_format=memory_format)
    images = draw_images(entry["input_size"])
    with torch.no_grad():
        logits = model(images)
    expected = golden[f"{reference_class}.logits"]
    assert np.abs(logits.numpy() - expected).max() <= 1e-4 * np.abs(expected).max()

    masks = attnet.capture_masks(model, images)
    assert len(masks) == len(entry["masks"])
    for (name, mask), (reference_name, statistics) in zip(masks.items(), entry["masks"].items(), strict=True):
        assert list(mask.shape) == statistics["shape"], name
        assert mask.mean().item() == pytest.approx(statistics["mean"], rel=1e-4)
        assert mask.std().item() == pytest.approx(statistics["std"], rel=1e-3)
        channels = golden.get(f"{reference_class}.mask.{reference_name}")
        if channels is not None:
            assert np.abs(mask[:, :8].numpy() - channels).max() <= 1e-4


def test_prefixed_reference_checkpoint(reference_variants):
    """As the reference's training scripts save it, from nn.DataParallel."""
    state = draw_weights(reference_variants["ResidualAttentionModel_92_32input_update"]["state_dict"])
    model = attnet.build_model("attention92")
    report = attnet.load_weights(model, {f"module.{name}": value for name, value in state.items()})
    assert (report.layout, report.loaded) == ("reference", len(model.state_dict()))


@pytest.mark.parametrize("prefix", ["module.", "_orig_mod.", "module._orig_mod."])
def test_prefixed_checkpoint(prefix):
    source, target = attnet.build_model("attention56_tiny"), attnet.build_model("attention56_tiny")
    attnet.load_weights(target, {prefix + name: value for name, value in source.state_dict().items()})
    for name, value in source.state_dict().items():
        assert torch.equal(value, target.state_dict()[name]), name


def test_own_checkpoint_round_trip(tmp_path):
    source = attnet.build_model("attention56_tiny")
    path = tmp_path / "best.pt"
    torch.save({"model": source.state_dict(), "epoch": 3}, path)
    target = attnet.build_model("attention56_tiny")
    assert attnet.load_weights(target, path).layout == "attnet"
    for name, value in source.state_dict().items():
        assert torch.equal(value, target.state_dict()[name]), name


def test_half_precision_file_keeps_the_model_float32(tmp_path):
    source = attnet.build_model("attention56_tiny")
    torch.save({name: value.half() for name, value in source.state_dict().items()}, tmp_path / "half.pt")
    target = attnet.build_model("attention56_tiny")
    attnet.load_weights(target, tmp_path / "half.pt")
    assert {p.dtype for p in target.parameters()} == {torch.float32}


def test_checkpoint_without_batch_counters(reference_variants):
    """PyTorch before 0.4.1, with which the reference was published, stored no num_batches_tracked."""
    entries = reference_variants["ResidualAttentionModel_92_32input_update"]["state_dict"]
    state = {n: v for n, v in draw_weights(entries).items() if not n.endswith("num_batches_tracked")}
    attnet.load_weights(attnet.build_model("attention92"), state)


def test_weights_of_another_network_name_the_right_one():
    state = attnet.build_model("attention56_tiny", num_classes=7).state_dict()
    with pytest.raises(WeightsError) as error:
        attnet.load_weights(attnet.build_model("attention56_cifar"), state)
    message = str(error.value)
    assert "attention56_cifar, num_classes=10" in message
    assert "stem.0.weight (8, 3, 3, 3) where (16, 3, 3, 3) is needed" in message
    assert "they fit model=attention56_tiny with num_classes=7" in message


def test_missing_and_unknown_names_are_listed():
    model = attnet.build_model("attention56_tiny")
    before = {name: value.clone() for name, value in model.state_dict().items()}
    state = dict(model.state_dict())
    state["bogus.weight"] = state.pop("fc.bias")
    with pytest.raises(WeightsError, match=r"missing \(1\): fc\.bias\n.*not in this network \(1\): bogus\.weight"):
        attnet.load_weights(model, state)
    assert all(torch.equal(before[n], v) for n, v in model.state_dict().items()), "a refused load changed the model"


class Payload:
    def __reduce__(self):
        import os

        return os.system, ("echo attacked > attacked.txt",)


def test_a_file_with_a_payload_is_refused_and_not_run(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    torch.save({"model": {"fc.weight": Payload()}}, "evil.pt")
    (tmp_path / "evil.pkl").write_bytes(pickle.dumps(Payload(), protocol=2))
    model = attnet.build_model("attention56_tiny")
    for name in ("evil.pt", "evil.pkl"):
        with pytest.raises(WeightsError, match=r"refused.*system.*plain state dict"):
            attnet.load_weights(model, tmp_path / name)
    assert not (tmp_path / "attacked.txt").exists()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "it is empty; download or copy it again"),
        (b"<html>404</html>", "it is a web page, such as comes in place"),
        (None, "no such file"),
    ],
)
def test_unreadable_files(tmp_path, content, message):
    path = tmp_path / "weights.pt"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(WeightsError, match=message) as error:
        attnet.load_weights(attnet.build_model("attention56_tiny"), path)
    assert str(path) in str(error.value)


def test_half_a_file_is_refused(tmp_path):
    torch.save(attnet.build_model("attention56_tiny").state_dict(), tmp_path / "whole.pt")
    whole = (tmp_path / "whole.pt").read_bytes()
    (tmp_path / "half.pt").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(WeightsError, match=r"half\.pt"):
        attnet.load_weights(attnet.build_model("attention56_tiny"), tmp_path / "half.pt")


@pytest.mark.parametrize("state", [{}, [1, 2], {"fc.weight": "text"}, {"model": 3}])
def test_something_that_is_no_state_dict(state):
    with pytest.raises(WeightsError, match="mapping of names to tensors"):
        attnet.load_weights(attnet.build_model("attention56_tiny"), state)
