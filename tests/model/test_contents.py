"""Files that are damaged, foreign or meant badly: plain weights, or a sentence that says what is wrong with them."""

import json
import os
import pickle
import re
import struct
import zipfile
from pathlib import Path

import pytest
import torch
from networks import tiny

import attnet
from attnet.base.errors import WeightsError
from attnet.model.export import export_onnx
from attnet.model.pretrained import load_pretrained
from attnet.model.variants import build_model
from attnet.model.weights import formats
from attnet.model.weights.contents import own_record
from attnet.model.weights.graphs import OnnxNetwork
from attnet.model.weights.loading import load_weights
from attnet.model.weights.opened import Weights
from attnet.model.weights.wrappers import AVERAGES, CONTAINERS, unwrap_state

STATE = tiny().state_dict()
SOME = dict(list(STATE.items())[:4])  # for what is refused before it is asked what fits
OURS = {"model": "attention56_tiny", "num_classes": 10, "seed": 3, "modules": None, "p": 1}


def saved(tmp_path: Path, content: object, **options: bool) -> Path:
    torch.save(content, tmp_path / "weights.pt", **options)
    return tmp_path / "weights.pt"


def check_refused(file: Path, message: str) -> None:
    """By name, in a sentence with a way out, by everything that opens weights."""
    for ask in (Weights.open, load_pretrained):
        with pytest.raises(WeightsError, match=message) as error:
            ask(file)
        assert str(error.value).startswith(f"weights {file}: ")
        assert any(way in str(error.value) for way in ("save it again", "copy", "leave out", "give "))


# -- records -------------------------------------------------------------------------------------------------------

CYCLE: dict[str, object] = {}
CYCLE["config"] = CYCLE
FOREIGN = {
    "config": ["text", 3, ["model"], torch.ones(2), {"model": "resnet"}, {"model": ["attention92"]}, CYCLE, {}]
    + [{torch.ones(2): 1, "model": torch.ones(2)}, {"model": "attention56_tiny", "p": torch.ones(3)}]
    + [{"model": "attention56_tiny", option: value} for option in ("p", "t", "r") for value in (0, 10**9, "x", 1.5)]
    + [{"model": "attention56_tiny", "modules": value} for value in ([1, [2]], "9" * 5000, {"a": 1}, 10**30)]
    + [{"model": "attention56_tiny", "attention": "soft"}, {"model": "attention56_tiny", "num_classes": "ten"}]
    + [{"model": "attention56_tiny", "num_classes": True}],
    "top1": ["best", float("nan"), float("inf"), -1, 101, 10**400, True, torch.tensor(90.0), [90.0], {"val": 90.0}],
    "epoch": ["best", 3.5, -1, True, 10**30, torch.tensor(3), [3]],
    "classes": ["ten", 10, torch.arange(10), [1, 2], [["a"]], ["a"] * 11, ["a", ""], {"a": 0}, [None]],
    "colour": [
        *("rgb", [0.5], {"mean": [0.5] * 3}, {"mean": 0.5, "std": 0.5}, {"mean": "rgb", "std": "rgb"}),
        *({"mean": [0.5] * 4, "std": [0.5] * 4}, {"mean": [0.5] * 3, "std": [0, 1, 1]}),
        *({"mean": [float("nan")] * 3, "std": [1] * 3}, {"mean": torch.ones(3), "std": torch.ones(3)}),
    ],
}


@pytest.mark.parametrize("entry", FOREIGN)
def test_what_has_not_our_form_is_not_ours(entry):
    ours = {"top1": 91.5, "epoch": 3, "classes": ["cat"], "config": OURS}
    kept = {"top1": 91.5, "epoch": 3, "classes": ("cat",), "config": OURS, "colour": None}
    assert own_record(ours, 10, "file") == kept
    nothing = {"config": {}, "classes": ()}.get(entry)
    for value in FOREIGN[entry]:
        assert own_record({**ours, entry: value}, 10, "file") == kept | {entry: nothing}, value


@pytest.mark.parametrize("index", range(5))
def test_files_of_other_projects_open_as_plain_weights(index, tmp_path):
    foreign = {entry: values[index] for entry, values in FOREIGN.items()}
    opened = load_pretrained(saved(tmp_path, {"state_dict": STATE, **foreign}))
    assert (opened.top1, opened.epoch, opened.config, opened.colour) == (None, None, {}, None)
    assert opened.classes[1] == "class 1" and opened.model.variant.name == "attention56_tiny"


def test_what_has_our_form_is_ours_and_in_it_what_a_parameter_can_be(tmp_path):
    strange = {"normalize": "no", "dataset": 3, "lr": float("nan"), "freeze": torch.ones(2), 5: 6, "rows": [[1]]}
    colour = {"mean": (0.5, 0.4, 0.3), "std": [1, 0.2, 0.3]}
    file = saved(tmp_path, {"model": STATE, "config": OURS | strange, "colour": colour, "epoch": 0, "top1": 10})
    opened = Weights.open(file)
    assert opened.config == OURS and opened.colour == colour
    assert (opened.epoch, opened.top1) == (0, 10.0)


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"num_classes": 10**12}, "records num_classes=1000000000000, and its last layer has 10 outputs"),
        ({"p": 100, "modules": "100,100,100"}, r"it records .*modules=100,100,100, which has 61200 residual units"),
        ({"p": 2}, r"do not fit attention56_tiny with p=2.*\n  missing .*pre\.1\."),
        ({"modules": "1,1"}, "its record cannot be: modules=.*has 3 stages"),
        ({"model": "attention452_cifar"}, "do not fit attention452_cifar"),
        ({"model": "attention92_224"}, "do not fit attention92_224"),
    ],
)
def test_a_record_cannot_have_a_network_built_that_the_file_does_not_hold(config, message, tmp_path, monkeypatch):
    file = saved(tmp_path, {"model": STATE, "config": OURS | config})
    monkeypatch.setattr("attnet.model.pretrained.build_model", lambda *_, **__: pytest.fail("it was built"))
    for ask in (load_pretrained, lambda path: attnet.plan_evaluation(attnet.TrainConfig(pretrained=str(path)))):
        with pytest.raises(WeightsError, match=message) as error:
            ask(file)
        assert str(error.value).startswith(f"weights {file}: ")


# -- state dicts ---------------------------------------------------------------------------------------------------

KINDS = {
    "a name that is no text": ({3: torch.ones(2)}, "entry 3 is a name that is no text"),
    "a long name": ({"module." * 1_000_000 + "fc.weight": torch.ones(2)}, "has a name of 7,000,009 characters"),
    "no tensor": ({"fc.weight": [1.0, 2.0]}, "'fc.weight' is a list; a mapping of names to tensors"),
    "sparse": ({"fc.weight": torch.eye(10).to_sparse()}, "'fc.weight' is a sparse tensor"),
    "rows": ({"fc.weight": torch.eye(10).to_sparse_csr()}, "'fc.weight' is a sparse tensor"),
    "meta": ({"fc.weight": torch.empty(10, 256, device="meta")}, "'fc.weight' is a meta tensor"),
    "quantised": (
        {"fc.weight": torch.quantize_per_tensor(torch.ones(10, 256), 0.1, 0, torch.qint8)},
        "'fc.weight' is a quantised tensor",
    ),
    "complex": ({"fc.weight": torch.ones(10, 256, dtype=torch.complex64)}, "'fc.weight' holds complex64"),
    "whole": ({"fc.weight": torch.ones(10, 256, dtype=torch.int32)}, "'fc.weight' holds int32; weights are one of"),
    "truth": ({"fc.weight": torch.ones(10, 256, dtype=torch.bool)}, "'fc.weight' holds bool"),
    "stride 0": ({"fc.weight": torch.ones(1).expand(5 * 10**9)}, "needs 20,000,000,000 bytes and stores 4"),
    "shared": (
        dict.fromkeys(map(str, range(100)), torch.ones(10_000)),
        r"its entries ask for 4,00\d,\d{3} bytes, and the file has",
    ),
}


@pytest.mark.parametrize("zipped", [True, False], ids=["zip", "before"])
@pytest.mark.parametrize("kind", KINDS)
def test_a_state_dict_of_anything_but_dense_numbers(kind, zipped, tmp_path):
    entries, message = KINDS[kind]
    for content in ({**SOME, **entries}, {"state_dict": {**SOME, **entries}}):
        check_refused(saved(tmp_path, content, _use_new_zipfile_serialization=zipped), message)


@pytest.mark.parametrize("value", [float("nan"), float("-inf"), 1e300])
def test_values_that_are_no_finite_numbers_are_named(value, tmp_path):
    state = {name: item.double() if item.is_floating_point() else item for name, item in STATE.items()}
    name = next(name for name in state if name.startswith("stages.stage2.") and name.endswith("conv1.weight"))
    state[name] = torch.full_like(state[name], value)
    file = saved(tmp_path, state)
    with pytest.raises(WeightsError, match=re.escape(f"{name} holds values that are no finite")):
        load_pretrained(file)
    network = build_model("attention56_tiny")
    before = network.state_dict()["fc.weight"].clone()
    with pytest.raises(WeightsError, match=f"state dict: {re.escape(name)}"):
        load_weights(network, state)
    assert torch.equal(network.state_dict()["fc.weight"], before)
    assert load_weights(
        network, {**STATE, "fc.bias": torch.full((10,), value, dtype=torch.float64)}, new_head=True
    ).loaded  # not taken


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_other_precisions_and_whole_counters_are_weights(dtype, tmp_path):
    state = {name: value.to(dtype) if value.is_floating_point() else value.int() for name, value in STATE.items()}
    assert load_pretrained(saved(tmp_path, state)).model.fc.weight.dtype == torch.float32
    everything = {name: value.to(dtype) for name, value in STATE.items()}  # as `state[name].half()` in a loop makes it
    assert load_pretrained(saved(tmp_path, everything)).model.fc.weight.dtype == torch.float32


# -- files ---------------------------------------------------------------------------------------------------------


class Made:
    """Pickled as a call of what torch is ready to call."""

    def __init__(self, maker: type, size: int) -> None:
        self.maker, self.size = maker, size

    def __reduce__(self) -> tuple:
        return self.maker, (self.size,)


@pytest.mark.parametrize("zipped", [True, False], ids=["zip", "before"])
@pytest.mark.parametrize("maker", [bytearray, torch.Tensor, torch.FloatTensor, torch.UntypedStorage])
def test_a_pickle_makes_no_memory_from_a_number(maker, zipped, tmp_path):
    file = saved(tmp_path, {"model": STATE, "extra": Made(maker, 10**8)}, _use_new_zipfile_serialization=zipped)
    check_refused(file, rf"refused, .*asks for \S+{maker.__name__}")


def test_a_member_that_unpacks_to_more_is_not_unpacked(tmp_path):
    plain, packed = saved(tmp_path, {"fc.weight": torch.zeros(10**6)}), tmp_path / "packed.pt"
    with zipfile.ZipFile(plain) as source, zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as target:
        for member in source.infolist():
            target.writestr(member.filename, source.read(member))
    assert packed.stat().st_size < 100_000
    check_refused(packed, "is compressed .* which torch.save never does")


@pytest.mark.parametrize("name", ["DATA.PKL", "Data.pkl"])
def test_a_pickle_is_looked_at_under_every_name_that_torch_takes_for_its(name, tmp_path):
    plain, other = saved(tmp_path, {"model": STATE, "extra": Made(bytearray, 10**8)}), tmp_path / "other.pt"
    with zipfile.ZipFile(plain) as source, zipfile.ZipFile(other, "w") as target:
        for member in source.infolist():
            target.writestr(member.filename.replace("data.pkl", name), source.read(member))
    check_refused(other, r"refused, .*asks for \S+bytearray")


def test_members_that_claim_more_than_the_file_has(tmp_path):
    file = saved(tmp_path, STATE)
    content = bytearray(file.read_bytes())
    entry = content.rindex(b"PK\x01\x02")
    content[entry + 20 : entry + 28] = struct.pack("<II", 3_800_000_000, 3_800_000_000)
    file.write_bytes(content)
    check_refused(file, r"its members claim 3,80\d,\d{3},\d{3} bytes, and the file has")


@pytest.mark.parametrize("zipped", [True, False], ids=["zip", "before"])
def test_much_that_is_no_tensor_is_not_read(zipped, tmp_path, monkeypatch):
    file = saved(tmp_path, {"model": STATE, "rows": list(range(400_000))}, _use_new_zipfile_serialization=zipped)
    assert Weights.open(file).model == "attention56_tiny"
    monkeypatch.setattr(formats, "_MOST_PICKLED", 1 << 20)
    check_refused(file, "1 MB or more of it are no tensors")


def test_containers_within_themselves_end(tmp_path):
    content: dict[str, object] = {}
    content["model"] = content
    check_refused(saved(tmp_path, content), "'model' is a dict")


def test_a_container_under_many_names_is_looked_into_once():
    """A file of 2 kB would have five million ways through it."""

    class Counted(dict):
        looks = 0

        def get(self, name: str) -> object:
            Counted.looks += 1
            return super().get(name)

    names = (*CONTAINERS, *AVERAGES)
    content = Counted(STATE)
    for _ in range(3):
        content = Counted(dict.fromkeys(names, content))
    assert unwrap_state(content).state.keys() == STATE.keys()
    assert Counted.looks < 10 * len(names) ** 2


@pytest.mark.parametrize("name", ["\0", "x" * 5000, "~nobody-of-that-name/x.pt"])
def test_what_is_no_path_is_a_sentence(name):
    with pytest.raises(attnet.base.errors.AttnetError):
        Weights.open(name)


# -- metadata of other tools' files --------------------------------------------------------------------------------

DEEP = "[" * 200_000 + "]" * 200_000


@pytest.fixture(scope="module")
def safetensors():
    return pytest.importorskip("safetensors.torch", reason='pip install -e ".[export]" brings safetensors')


@pytest.mark.parametrize("text", ["best", "{", '{"model": "resnet50"}', "NaN", "9" * 5000, "[1, [2]]", "1e999", "\0"])
@pytest.mark.parametrize("entry", FOREIGN)
def test_foreign_metadata_of_safetensors(entry, text, safetensors, tmp_path):
    safetensors.save_file(STATE, tmp_path / "foreign.safetensors", {entry: text})
    opened = Weights.open(tmp_path / "foreign.safetensors")
    assert opened.model == "attention56_tiny" and not getattr(opened, entry)


def test_hostile_safetensors(safetensors, tmp_path):
    file = tmp_path / "weights.safetensors"
    safetensors.save_file(STATE, file, {"config": DEEP})
    check_refused(file, "config in its metadata is nested too deeply")
    safetensors.save_file({**STATE, "fc.weight": torch.ones(10, 256, dtype=torch.int32)}, file)
    check_refused(file, "'fc.weight' holds int32")
    for header in (
        json.dumps({"a": {"dtype": "F32", "shape": [5 * 10**9], "data_offsets": [0, 2 * 10**10]}}),
        json.dumps({"a": {"dtype": "F32", "shape": [2**62, 2**62], "data_offsets": [0, 4]}}),
        '{"a": ' + DEEP + "}",
    ):
        file.write_bytes(struct.pack("<Q", len(header)) + header.encode() + bytes(4))
        check_refused(file, "not a readable safetensors file")
    file.write_bytes(struct.pack("<Q", 2**63) + b"{}")
    check_refused(file, "not a readable safetensors file")


@pytest.fixture(scope="module")
def exported(tmp_path_factory) -> Path:
    """A graph of ours."""
    pytest.importorskip("onnx", reason='pip install -e ".[export]" brings onnx')
    pytest.importorskip("onnxruntime", reason='pip install -e ".[export]" brings onnxruntime')
    return graph(tmp_path_factory.mktemp("graph"))


@pytest.mark.parametrize(
    ("metadata", "message"),
    [
        ({"config": DEEP}, "config in its metadata is nested too deeply"),
        ({"config": "text"}, "not written by attnet export"),
        ({"config": '{"model": "resnet50"}'}, "not written by attnet export"),
        ({"config": json.dumps(OURS | {"num_classes": 10**12})}, "records num_classes=1000000000000"),
        ({"classes": "3"}, "not written by attnet export"),
        ({"classes": json.dumps(["a"] * 11)}, "not written by attnet export"),
    ],
)
def test_foreign_and_hostile_metadata_of_onnx(metadata, message, exported, tmp_path):
    onnx = pytest.importorskip("onnx")
    model = onnx.load(exported)
    kept = {entry.key: entry.value for entry in model.metadata_props}
    onnx.helper.set_model_props(model, kept | metadata)
    onnx.save(model, tmp_path / "weights.onnx")
    with pytest.raises(WeightsError, match=message) as error:
        Weights.open(tmp_path / "weights.onnx")
    assert str(error.value).startswith(f"weights {tmp_path / 'weights.onnx'}: ")


def test_an_absurd_batch_of_onnx(tmp_path):
    onnx = pytest.importorskip("onnx", reason='pip install -e ".[export]" brings onnx')
    pytest.importorskip("onnxruntime", reason='pip install -e ".[export]" brings onnxruntime')
    model = onnx.load(graph(tmp_path, dynamic_batch=False, batch_size=4))
    for side in (*model.graph.input, *model.graph.output):
        side.type.tensor_type.shape.dim[0].dim_value = 10**9
    onnx.save(model, tmp_path / "weights.onnx")
    with pytest.raises(WeightsError, match="made for batches of 1,000,000,000 images"):
        OnnxNetwork(tmp_path / "weights.onnx")


def test_a_graph_larger_than_protobuf_reads_is_not_read(tmp_path, monkeypatch):
    pytest.importorskip("onnx", reason='pip install -e ".[export]" brings onnx')
    pytest.importorskip("onnxruntime", reason='pip install -e ".[export]" brings onnxruntime')
    with open(tmp_path / "large.onnx", "wb") as file:
        file.truncate(3 << 30)  # a hole: no bytes on the disk
    monkeypatch.setattr(Path, "read_bytes", lambda path: pytest.fail("it was read"))
    with pytest.raises(WeightsError, match=r"large\.onnx: 3,221,225,472 bytes, and an ONNX graph in one file has"):
        Weights.open(tmp_path / "large.onnx")


def graph(tmp_path: Path, **options: object) -> Path:
    torch.save(STATE, tmp_path / "bare.pt")
    return export_onnx(tmp_path / "bare.pt", tmp_path / "ours.onnx", **options)


# -- values within values ------------------------------------------------------------------------------------------


def in_both_formats(tmp_path: Path, pickled: bytes) -> list[Path]:
    """A pickle as the content of a PyTorch file, in its zip format and the one before."""
    new, old = tmp_path / "new.pt", tmp_path / "old.pt"
    with zipfile.ZipFile(new, "w") as archive:
        archive.writestr("archive/data.pkl", pickled)
        archive.writestr("archive/version", "3\n")
    machine = {"protocol_version": 1001, "little_endian": True, "type_sizes": {"short": 2, "int": 4, "long": 4}}
    start = b"".join(pickle.dumps(value, 2) for value in (0x1950A86A20F9469CFC6C, 1001, machine))
    old.write_bytes(start + pickled + pickle.dumps([], 2))
    return [new, old]


def twice(levels: int) -> bytes:
    """A tuple that holds the one before twice, and so on: 2**levels values to go over, six bytes each to write."""
    return b"K\x01" + b"".join(b"q" + bytes([level]) + b"h" + bytes([level]) + b"\x86" for level in range(levels))


ENDLESS = {
    "a key that takes for ever": b"}" + twice(60) + b"K\x01s.",
    "in a set": b"c__builtin__\nset\n]" + twice(60) + b"a\x85R.",
    "as a size": b"}ctorch\nSize\n" + twice(60) + b"\x85RK\x01s.",
    "a key too deep for the machine's stack": b"}K\x01" + b"\x85" * 100_000 + b"K\x01s.",
    "a long key again and again": b"}(" + b"K\x01" * 20_000 + b"tq\x00" + b"K\x01s" + b"h\x00K\x01s" * 20_000 + b".",
}


@pytest.mark.parametrize("name", ENDLESS)
def test_values_within_values_without_end_are_never_made(name, tmp_path):
    for file in in_both_formats(tmp_path, b"\x80\x02" + ENDLESS[name]):
        check_refused(file, "values within values without end")


def test_values_that_are_used_again_are_read(tmp_path):
    shared = (0.9, (0.999, 1e-8))
    groups = [{"betas": shared, "params": [number]} for number in range(500)]
    content = {"model": STATE, "ema": STATE, "optimizer": {"param_groups": groups}, "rng": (3, tuple(range(625)), None)}
    assert Weights.open(saved(tmp_path, content)).entry == "ema"


@pytest.mark.parametrize("name", ["pipe.pt", "device.pt", "folder.pt"])
def test_what_is_no_plain_file_is_not_waited_for(name, tmp_path):
    file = tmp_path / name
    if name == "pipe.pt":
        os.mkfifo(file)
    elif name == "device.pt":
        file.symlink_to("/dev/zero")
    else:
        file.mkdir()
    with pytest.raises(WeightsError, match="is no plain file"):
        formats.read_torch(file)
