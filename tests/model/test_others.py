"""Checkpoints of other projects: what lies beside the weights, weights under names of anybody's, and no checkpoints."""

import argparse
import collections
import datetime
import enum
import gzip
import pathlib
import sys
import tarfile
import types
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from networks import tiny

from attnet.base.errors import WeightsError
from attnet.model.pretrained import load_pretrained
from attnet.model.weights.opened import Weights
from attnet.model.weights.others import stand_ins

STATE = tiny().state_dict()


class Config:
    """Stands in for a class of the script that trained."""

    def __init__(self) -> None:
        self.lr, self.paths = 0.1, [pathlib.PurePosixPath("/data")]


class Colour(enum.Enum):
    RED = 1


class Attributes(dict):
    """As EasyDict, AttributeDict and CfgNode are made."""

    def __init__(self, **values: object) -> None:
        super().__init__(values)
        self.__dict__ = self


BESIDE = {
    "a figure of numpy": np.float64(93.2),
    "a curve": np.arange(5.0),
    "a dtype": np.dtype("float32"),
    "arguments": argparse.Namespace(lr=0.1, out=pathlib.PurePosixPath("x")),
    "a namespace": types.SimpleNamespace(a=[1]),
    "a date": datetime.datetime(2020, 1, 1),
    "a slice": slice(1, 2),
    "a default": collections.defaultdict(list, {"loss": [1.0, 2.0]}),
    "the last few": collections.deque([1, 2], maxlen=5),
    "keys of an enum": {Colour.RED: 1},
    "a class of the script": Config(),
    "attributes": Attributes(lr=0.1, name="x"),
}


# As pickles name a script's own classes, and a package's.
Config.__module__ = Colour.__module__ = "__main__"
Attributes.__module__, Attributes.__qualname__ = "easydict", "EasyDict"


@pytest.fixture(autouse=True)
def a_script(monkeypatch) -> None:
    """Who saves has these modules."""
    monkeypatch.setitem(sys.modules, "easydict", types.ModuleType("easydict"))
    for kind in (Config, Colour, Attributes):
        monkeypatch.setattr(sys.modules[kind.__module__], kind.__qualname__, kind, raising=False)


@pytest.mark.parametrize("zipped", [True, False], ids=["zip", "before"])
@pytest.mark.parametrize("what", BESIDE)
def test_what_others_keep_beside_their_weights_is_left_out(what, zipped, tmp_path, monkeypatch):
    file = tmp_path / "theirs.pt"
    content = {"state_dict": STATE, "beside": BESIDE[what], "config": BESIDE[what], "top1": BESIDE[what]}
    torch.save(content, file, _use_new_zipfile_serialization=zipped)
    monkeypatch.delitem(sys.modules, "easydict", raising=False)  # nothing of theirs is here
    for kind in (Config, Colour):
        monkeypatch.delattr(sys.modules["__main__"], kind.__qualname__)
    with pytest.raises(Exception, match="Weights only load failed"):
        torch.load(file, weights_only=True)
    opened = load_pretrained(file)
    assert torch.equal(opened.model.state_dict()["fc.weight"], STATE["fc.weight"])
    assert (opened.config, opened.top1) == ({}, None)


def test_no_other_name_has_a_stand_in():
    refused = ["builtins.eval", "builtins.getattr", "os.system", "posix.system", "subprocess.Popen", "numpyx.y"]
    refused += [
        "torch.nn.modules.conv.Conv2d",
        "torch.load",
        "importlib.import_module",
        "mainly.x",
        "functools.partial",
    ]
    assert stand_ins(refused) == []
    assert [name for _, name in stand_ins(["__builtin__.slice", "copy_reg._reconstructor"])] != []
    for kind, _ in stand_ins(["numpy.x.y", "__main__.Net", "argparse.Namespace"]):
        made = kind(1, 2, a=3)
        made.__setstate__({"b": 4})
        assert vars(made) == {} and hash(made) is not None


def test_weights_that_are_numpys_are_named(tmp_path):
    torch.save({name: value.numpy() for name, value in STATE.items()}, tmp_path / "numpy.pt")
    with pytest.raises(WeightsError, match=r"entry 'stem\.0\.weight' is a numpy\.\S+; a mapping of names to tensors"):
        Weights.open(tmp_path / "numpy.pt")


def test_weights_under_names_of_anybodys_are_named_and_taken_when_asked_for(tmp_path):
    other = {name: value + 1 for name, value in STATE.items()}
    optimizer = {"state": {0: torch.ones(3)}, "param_groups": [{"lr": 0.1}]}
    torch.save({"generator": STATE, "discriminator": {"deep": other}, "optimizer": optimizer}, tmp_path / "two.pt")
    with pytest.raises(
        WeightsError, match=r"it holds weights under 'generator and discriminator\.deep'.*FILE:generator$"
    ):
        Weights.open(tmp_path / "two.pt")
    for entry, state in (("generator", STATE), ("discriminator.deep", other)):
        assert torch.equal(Weights.open(f"{tmp_path / 'two.pt'}:{entry}").state["fc.bias"], state["fc.bias"])
    with pytest.raises(WeightsError, match="there are no weights at 'nobody' in it; there is generator, discriminator"):
        Weights.open(f"{tmp_path / 'two.pt'}:nobody")
    torch.save({"model": STATE, "best": other}, tmp_path / "known.pt")
    assert torch.equal(Weights.open(tmp_path / "known.pt").state["fc.bias"], STATE["fc.bias"])
    assert torch.equal(Weights.open(f"{tmp_path / 'known.pt'}:best").state["fc.bias"], other["fc.bias"])


def program(file: Path) -> None:
    torch.jit.save(torch.jit.trace(torch.nn.ReLU(), torch.ones(1)), file)


def exported(file: Path) -> None:
    torch.export.save(torch.export.export(torch.nn.ReLU(), (torch.ones(1),)), file)


def packed(file: Path) -> None:
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("net.pth", b"x")


def tarred(file: Path) -> None:
    (file.parent / "net.pth").write_bytes(b"x")
    with tarfile.open(file, "w") as archive:
        archive.add(file.parent / "net.pth", "net.pth")


@pytest.mark.parametrize(
    ("write", "message"),
    [
        (lambda file: file.write_bytes(b""), "it is empty; download or copy it again"),
        (
            lambda file: file.write_bytes(b"version https://git-lfs.github.com/spec/v1\noid x\n"),
            "it is a Git LFS pointer",
        ),
        (lambda file: file.write_bytes(gzip.compress(b"x")), "it is a gzip archive; unpack it"),
        (lambda file: file.write_bytes(b"<!DOCTYPE html>"), "it is a web page, such as comes in place"),
        (
            lambda file: file.write_bytes(b"\x89HDF\r\n"),
            "it is an HDF5 file; make tensors of its arrays, save it again",
        ),
        (lambda file: np.savez(file.open("wb"), a=np.ones(3)), r"arrays of NumPy's \(\.npz\)"),
        (program, "a TorchScript archive, which is a program; save it again as a plain state dict"),
        (exported, "a program of torch.export; save it again"),
        (packed, "a ZIP archive of 'net.pth'; unpack it"),
        (tarred, "it is a tar archive; unpack it"),
        (lambda file: file.write_bytes(b"%PDF-1.4"), "it is a PDF document; download or copy it again"),
    ],
)
def test_what_is_no_checkpoint_is_said_to_be_what_it_is(write, message, tmp_path):
    write(tmp_path / "weights.pth")
    with pytest.raises(WeightsError, match=message):
        Weights.open(tmp_path / "weights.pth")


def test_a_folder_says_what_it_holds(tmp_path):
    with pytest.raises(WeightsError, match=r"a folder without best\.pt; give a run's folder, or a file"):
        Weights.open(tmp_path)
    for name in ("model.safetensors", "last.pt", "notes.txt"):
        (tmp_path / name).write_bytes(b"")
    with pytest.raises(
        WeightsError, match=r"a folder without best\.pt; it holds 'last\.pt, model\.safetensors': give one"
    ):
        Weights.open(tmp_path)
