"""CIFAR as other people have it: packed, named and written otherwise; another version of it, or another set."""

import collections
import gzip
import io
import lzma
import pickle
import tarfile
from pathlib import Path

import numpy as np
import pytest

from attnet.base.errors import DataError
from attnet.data import cifar
from attnet.data.registry import load_dataset

NAMES = [f"class {k}" for k in range(10)]
FOLDER, FILES = "cifar-10-batches-py", ["batches.meta", *(f"data_batch_{k}" for k in range(1, 6)), "test_batch"]
pytestmark = pytest.mark.filterwarnings("ignore:.*differ from the originals by md5")


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cifar, "TRAIN", 50)
    monkeypatch.setattr(cifar, "TEST", 10)


def written(**meta: object) -> dict[str, bytes]:
    """Name -> bytes of the files of a set with ten images each; image k has label k."""
    batch = {"data": np.zeros((10, 3072), np.uint8), "labels": list(range(10))}
    contents = {file: batch for file in FILES} | {"batches.meta": {"label_names": NAMES} | meta}
    return {file: pickle.dumps(content, 4) for file, content in contents.items()}


def packed(files: dict[str, bytes], mode: str = "w:gz") -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode=mode) as tar:
        for name, blob in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(blob)
            tar.addfile(info, io.BytesIO(blob))
    return buffer.getvalue()


def in_folder(folder: str, files: dict[str, bytes]) -> dict[str, bytes]:
    return {f"{folder}{name}": blob for name, blob in files.items()}


def laid(path: Path, files: dict[str, bytes]) -> Path:
    path.mkdir(parents=True, exist_ok=True)
    for name, blob in files.items():
        (path / name).write_bytes(blob)
    return path


def why(path: Path, name: str = "cifar10") -> str:
    with pytest.raises(DataError) as caught:
        load_dataset(path, name)
    return str(caught.value)


@pytest.mark.parametrize("folder", ["", "./", "data/" + FOLDER + "/", "/home/me/" + FOLDER + "/", f".//{FOLDER}//"])
def test_an_archive_packed_anew_may_hold_its_folder_anywhere(folder: str, tmp_path: Path) -> None:
    file = tmp_path / "cifar-10-python.tar.gz"
    file.write_bytes(packed(in_folder(folder, written())))
    assert load_dataset(tmp_path).train.labels.tolist() == [*range(10)] * 5


@pytest.mark.parametrize("name", ["cifar-10-python.tar", "cifar-10-python.tgz"])
def test_an_archive_as_a_browser_leaves_it_is_found(name: str, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(packed(in_folder(f"{FOLDER}/", written()), "w" if name.endswith("tar") else "w:gz"))
    assert load_dataset(tmp_path).source == load_dataset(tmp_path / name).source == str(tmp_path / name)


def test_an_archive_is_known_by_its_bytes_when_it_is_given_itself(tmp_path: Path) -> None:
    (tmp_path / "archive").write_bytes(packed(in_folder(f"{FOLDER}/", written())))
    assert len(load_dataset(tmp_path / "archive").train) == 50
    (tmp_path / "archive.txz").write_bytes(packed(written(), "w:xz"))
    assert "archive.txz is an xz archive; unpack it and give the folder" in why(tmp_path / "archive.txz")


@pytest.mark.parametrize(("version", "short", "ending"), [("binary", "bin", "bin"), ("MATLAB", "mat", "mat")])
def test_another_version_of_the_set_is_called_what_it_is(version: str, short: str, ending: str, tmp_path: Path) -> None:
    files = {f"data_batch_{k}.{ending}": b"\6" for k in range(1, 6)}
    folder = laid(tmp_path / "a" / f"cifar-10-batches-{short}", files)
    file = tmp_path / f"cifar-10-{version.lower()}.tar.gz"
    file.write_bytes(packed(in_folder(f"cifar-10-batches-{short}/", files)))
    for path in (folder, folder.parent, laid(tmp_path / "b", files), file, tmp_path):
        message = why(path)
        assert f"the {version} version of CIFAR" in message and "`attnet download cifar10`" in message


def test_an_archive_of_the_other_set_is_called_by_its_name(tmp_path: Path) -> None:
    (tmp_path / "mine.tgz").write_bytes(packed({"cifar-100-python/train": b"", "cifar-100-python/meta": b""}))
    assert "holds no file of cifar10, but cifar100: ask for it as dataset=cifar100" in why(tmp_path / "mine.tgz")
    (tmp_path / "other.tgz").write_bytes(packed({"notes.txt": b"hello"}))
    assert "holds no file of cifar10, but notes.txt" in why(tmp_path / "other.tgz")


@pytest.mark.parametrize(
    ("changed", "what"),
    [
        (gzip.compress, "a gzip archive"),
        (lzma.compress, "an xz archive"),
        (lambda blob: b"PK\3\4" + blob, "a ZIP archive"),
        (lambda blob: b"\x93NUMPY\1\0" + blob, "an array of NumPy's"),
        (lambda blob: b"<!DOCTYPE html><html>", "a web page"),
        (lambda blob: b"version https://git-lfs.github.com/spec/v1\n", "a Git LFS pointer"),
    ],
    ids=["gzip", "xz", "zip", "npy", "html", "lfs"],
)
def test_a_file_that_is_no_pickle_is_called_what_it_is(changed, what: str, tmp_path: Path) -> None:
    files = written()
    folder = laid(tmp_path / FOLDER, files | {"data_batch_3": changed(files["data_batch_3"])})
    message = why(folder)
    assert f"data_batch_3 is {what}" in message and "damaged" not in message and "trust" not in message


@pytest.mark.parametrize("kind", [tuple, list])
def test_class_names_are_text_for_every_terminal(kind: type, tmp_path: Path) -> None:
    odd = [b"\xb2\xe2", b"\xe0", b"\xe1", "\x1b[31mred", "a\nb", "\ud800", "\u202ereversed", "猫", "a,b", "plain"]
    folder = laid(tmp_path / FOLDER, written(label_names=kind(odd)))
    classes = load_dataset(folder).classes
    assert classes[:3] == (r"\xb2\xe2", r"\xe0", r"\xe1") and classes[7:] == ("猫", "a,b", "plain")
    assert len(set(classes)) == 10 and "".join(classes).isprintable()
    "".join(classes).encode()


def test_a_dict_that_is_in_order_is_a_dict(tmp_path: Path) -> None:
    files = written()
    batch = collections.OrderedDict(data=np.ones((10, 3072), np.uint8), labels=tuple(range(10)))
    for protocol in (2, 3, 4, 5):
        folder = laid(tmp_path / FOLDER, files | {"data_batch_1": pickle.dumps(batch, protocol)})
        assert load_dataset(folder).train.images[:10].eq(1).all()


def test_half_of_a_plain_tar_is_half_and_not_only_a_tar(tmp_path):
    info = tarfile.TarInfo("cifar-10-batches-py/data_batch_1")
    info.size = 5_000
    (tmp_path / "cifar-10-python.tar").write_bytes(info.tobuf() + bytes(100))
    with pytest.raises(DataError, match=r"cifar-10-python\.tar is damaged, perhaps half a download"):
        load_dataset(tmp_path, "cifar10")
