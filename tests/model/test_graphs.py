"""ONNX graphs that are not what `attnet export` writes: what they may not do."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import psutil
import pytest

from attnet.base.errors import WeightsError
from attnet.model.weights.graphs import OnnxNetwork

onnx = pytest.importorskip("onnx", reason='pip install -e ".[export]" brings onnx')
pytest.importorskip("onnxruntime", reason='pip install -e ".[export]" brings onnxruntime')
from onnx import TensorProto, helper, numpy_helper  # noqa: E402 (after the check that it is here)

HEAD = numpy_helper.from_array(np.full((2, 3), 0.1, np.float32), "head")
MEAN = helper.make_node("ReduceMean", ["large"], ["mean"], axes=[2, 3], keepdims=0)
GEMM = helper.make_node("Gemm", ["mean", "head"], ["logits"], transB=1)
HUGE = 200_000


def graph(nodes: list, constants: list = (), change: Callable[[onnx.ModelProto], None] | None = None) -> bytes:
    """From images [N, 3, 8, 8] over `large` [N, 3, H, W] to logits [N, 2]."""
    ends = [
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["N", *sides])]
        for name, sides in (("images", [3, 8, 8]), ("logits", [2]))
    ]
    whole = helper.make_graph([*nodes, MEAN, GEMM], "g", *ends, [HEAD, *constants])
    model = helper.make_model(whole, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    config = json.dumps({"model": "attention56_tiny"})
    helper.set_model_props(model, {"classes": '["a", "b"]', "config": config})
    if change is not None:
        change(model)
    return model.SerializeToString()


def constant(name: str, value: list, kind: type = np.float32) -> TensorProto:
    return numpy_helper.from_array(np.array(value, kind), name)


def open_at_run_time() -> list:
    """An up-sampling by what it sees in the image."""
    return [
        helper.make_node("ReduceMax", ["images"], ["most"], keepdims=0),
        helper.make_node("Unsqueeze", ["most", "first"], ["one"]),
        helper.make_node("Concat", ["ones", "one", "one"], ["scales"], axis=0),
        helper.make_node("Resize", ["images", "", "scales"], ["large"]),
    ]


def elsewhere(model: onnx.ModelProto) -> None:
    """The head's numbers as bytes of another file."""
    head = model.graph.initializer[0]
    head.ClearField("raw_data")
    head.data_location = TensorProto.EXTERNAL
    head.external_data.add(key="location", value="../secret")


def loop() -> list:
    inner = helper.make_graph(
        [helper.make_node("Identity", ["on"], ["more"]), helper.make_node("Identity", ["x"], ["y"])], "inner",
        [helper.make_tensor_value_info("i", TensorProto.INT64, []), helper.make_tensor_value_info("on", 9, []),
         helper.make_tensor_value_info("x", 1, None)],
        [helper.make_tensor_value_info("more", 9, []), helper.make_tensor_value_info("y", 1, None)],
    )  # fmt: skip
    return [helper.make_node("Loop", ["", "", "images"], ["large"], body=inner)]


HOSTILE = {
    "up-sampled": (
        [helper.make_node("Resize", ["images", "", "scales"], ["large"])],
        [constant("scales", [1, 1, HUGE, HUGE])],
        "would compute .* numbers of an image",
    ),
    "padded": (
        [helper.make_node("MaxPool", ["images"], ["small"], kernel_shape=[1, 1]),
         helper.make_node("Pad", ["small", "pads"], ["large"])],
        [constant("pads", [0, 0, HUGE, HUGE, 0, 0, HUGE, HUGE], np.int64)],
        "would compute .* numbers of an image",
    ),
    "a constant of any size": (
        [helper.make_node("ConstantOfShape", ["sides"], ["much"]),
         helper.make_node("Add", ["images", "much"], ["large"])],
        [constant("sides", [1, 3, HUGE, HUGE], np.int64)],
        "its sizes do not fit together|would compute",
    ),
    "two constants that spread": (
        [helper.make_node("Mul", ["row", "column"], ["much"]),
         helper.make_node("ReduceMax", ["much"], ["most"], keepdims=0),
         helper.make_node("Add", ["images", "most"], ["large"])],
        [constant("row", [[1.0] * HUGE]), constant("column", [[1.0]] * HUGE)],
        "would compute .* numbers of an image",
    ),
    "by what it sees": (
        open_at_run_time(), [constant("first", [0], np.int64), constant("ones", [1, 1])], "Resize .* becomes is open",
    ),
    "a loop without end": (loop(), [], "a graph within operator 'Loop'"),
    "an initializer of 8 TB": (
        [helper.make_node("Relu", ["images"], ["large"])],
        [TensorProto(name="unused", dims=[1 << 20, 1 << 20], data_type=1, raw_data=b"abcd")],
        r"'unused' has the shape \[1048576, 1048576\] and 4 bytes",
    ),
    "an operator of elsewhere": (
        [helper.make_node("Mystery", ["images"], ["large"], domain="elsewhere")], [],
        "No opset import for domain elsewhere",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", HOSTILE)
def test_what_would_take_memory_or_time_without_end_is_refused(name, tmp_path):
    nodes, constants, message = HOSTILE[name]
    (tmp_path / "hostile.onnx").write_bytes(graph(nodes, constants))
    before = psutil.Process().memory_info().rss
    with pytest.raises(WeightsError, match=message) as told:
        OnnxNetwork(tmp_path / "hostile.onnx")
    assert "hostile.onnx" in str(told.value)
    assert psutil.Process().memory_info().rss - before < 100 << 20


def test_no_other_file_is_read(tmp_path):
    secret: Path = tmp_path / "secret"
    secret.write_bytes(np.ones(6, np.float32).tobytes())
    (tmp_path / "run").mkdir()
    file = tmp_path / "run" / "graph.onnx"
    file.write_bytes(graph([helper.make_node("Relu", ["images"], ["large"])], change=elsewhere))
    with pytest.raises(WeightsError, match="the numbers of 'head' lie in another file"):
        OnnxNetwork(file)


def test_what_fails_only_when_it_runs_is_a_sentence():
    import torch

    nodes = [helper.make_node("Relu", ["images"], ["large"])]
    network = OnnxNetwork(graph(nodes))
    assert network(torch.zeros(3, 3, 8, 8)).shape == (3, 2)
    with pytest.raises(WeightsError, match="the graph: cannot be run on images of 3x3x9x9"):
        network(torch.zeros(3, 3, 9, 9))
