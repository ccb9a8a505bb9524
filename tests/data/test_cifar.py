"""attnet.data.cifar: what is read from folders and archives, and every way in which a data set can be wrong."""

import gzip
import io
import os
import pickle
import struct
import tarfile
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pytest
import torch

from attnet.base.errors import DataError
from attnet.data.registry import find_dataset, load_dataset

NAMES = ["airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"]
FOLDER, ARCHIVE = "cifar-10-batches-py", "cifar-10-python.tar.gz"
BATCHES = [*(f"data_batch_{k}" for k in range(1, 6)), "test_batch"]
REAL = Path(__file__).parents[2] / "data"
pytestmark = pytest.mark.filterwarnings("ignore:.*differ from the originals by md5")


def pixels(batch: int, rows: int = 10_000) -> np.ndarray:
    """Almost all zeros, so that it packs fast, with marks that tell where each number ends up."""
    data = np.zeros((rows, 3072), np.uint8)
    index = np.arange(rows)
    data[:, 0], data[:, 1], data[:, 32] = index % 256, index // 256, batch  # red: (0, 0), (0, 1), (1, 0)
    data[:, 1024 + 31], data[:, 3071] = 7, 9  # green: (0, 31); blue: (31, 31)
    return data


def python2(value: object) -> bytes:
    """The opcodes with which Python 2's cPickle, protocol 2, wrote `value`: its strings are bytes to us."""
    if isinstance(value, int):
        return b"K" + bytes([value]) if value < 256 else b"J" + struct.pack("<i", value)
    if isinstance(value, (str, bytes)):
        text = value.encode() if isinstance(value, str) else value
        return b"U" + bytes([len(text)]) + text if len(text) < 256 else b"T" + struct.pack("<i", len(text)) + text
    if isinstance(value, list):
        return b"](" + b"".join(map(python2, value)) + b"e"
    if isinstance(value, dict):
        return b"}(" + b"".join(python2(k) + python2(v) for k, v in value.items()) + b"u"
    assert isinstance(value, np.ndarray) and value.dtype == np.uint8
    shell = b"cnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\nK\x00\x85U\x01b\x87R"
    dtype = b"cnumpy\ndtype\nU\x02u1K\x00K\x01\x87R(K\x03U\x01|NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb"
    shape = b"(" + b"".join(map(python2, value.shape)) + b"t"
    return shell + b"(K\x01" + shape + dtype + b"\x89" + python2(value.tobytes()) + b"tb"


def original(value: object) -> bytes:
    return b"\x80\x02" + python2(value) + b"."


def batch(k: int, **changes: object) -> dict[str, object]:
    content = {"data": pixels(k), "labels": [i % 10 for i in range(10_000)]} | changes
    return {key: value for key, value in content.items() if value is not None}


@pytest.fixture(scope="module")
def cifar10() -> Iterator[Path]:
    """The folder of a complete set, as Python 2 wrote it. Never write into it: copies share its files."""
    with TemporaryDirectory() as root:
        folder = Path(root) / FOLDER
        folder.mkdir()
        (folder / "batches.meta").write_bytes(original({"label_names": NAMES}))
        for k, file in enumerate(BATCHES):
            (folder / file).write_bytes(original(batch(k)))
        yield folder


@pytest.fixture(scope="module")
def archive(cifar10: Path) -> Path:
    """The same set packed, beside nothing else, its members in another order, as in the authors' archive."""
    path = cifar10.parent / "packed" / ARCHIVE
    path.parent.mkdir()
    with tarfile.open(path, "w:gz", compresslevel=1) as tar:
        for file in [*reversed(BATCHES), "batches.meta"]:
            tar.add(cifar10 / file, f"{FOLDER}/{file}")
    return path


@pytest.fixture
def altered(cifar10: Path, tmp_path: Path) -> Callable[..., Path]:
    """Makes a copy of the set's folder in which a file holds other bytes (None: it is missing)."""

    def make(**files: bytes | None) -> Path:
        folder = tmp_path / FOLDER
        folder.mkdir()
        replaced = {name.replace("meta", "batches.meta"): content for name, content in files.items()}
        for file in cifar10.iterdir():
            if file.name not in replaced:
                (folder / file.name).symlink_to(file)
            elif replaced[file.name] is not None:
                (folder / file.name).write_bytes(replaced[file.name])
        return folder

    return make


def refused(*fragments: str, data_path: Path | str | None, name: str = "cifar10") -> str:
    """The message with which the set is refused, after checking that it says `fragments`."""
    with pytest.raises(DataError) as caught:
        load_dataset(data_path, name)
    message = str(caught.value)
    for fragment in fragments:
        assert fragment in message
    return message


def check_cifar10(data: object) -> None:
    assert data.train.images.shape == (50_000, 3, 32, 32) and data.test.images.shape == (10_000, 3, 32, 32)
    assert data.train.images.dtype == data.test.images.dtype == torch.uint8
    assert data.train.labels.dtype == data.test.labels.dtype == torch.int64
    assert len(data.train) == 50_000 and len(data.test) == 10_000
    assert data.classes == tuple(NAMES) and data.name == "cifar10"
    assert data.train.masks is None and data.train.images.is_contiguous()
    for k in range(6):
        images = data.train.images[k * 10_000 : (k + 1) * 10_000] if k < 5 else data.test.images
        assert images[300, 0, 0, :3].tolist() == [300 % 256, 1, 0]
        assert (images[:, 0, 1, 0] == k).all()
        assert (images[:, 1, 0, 31] == 7).all() and (images[:, 2, 31, 31] == 9).all()
    assert torch.equal(data.train.labels, torch.arange(50_000) % 10)


# What is read


def test_every_accepted_path(cifar10: Path, archive: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert find_dataset(cifar10) == cifar10
    assert find_dataset(str(cifar10.parent)) == cifar10
    assert find_dataset(archive) == archive
    assert find_dataset(archive.parent) == archive
    assert find_dataset(archive.parent / FOLDER) == archive  # not unpacked (yet): the archive beside it
    monkeypatch.chdir(cifar10.parent)
    assert find_dataset(f"./{FOLDER}") == Path(FOLDER)
    assert find_dataset(".") == Path(FOLDER)


def test_nothing_to_find(tmp_path: Path, cifar10: Path) -> None:
    (tmp_path / FOLDER).mkdir()
    (tmp_path / "test").mkdir()
    (tmp_path / "notes.txt").write_text("")
    for path in (None, tmp_path, tmp_path / FOLDER, tmp_path / "absent", tmp_path / "notes.txt"):
        assert find_dataset(path) is None
        assert find_dataset(path, "cifar100") is None
    assert find_dataset(cifar10, "cifar100") is None
    assert find_dataset(cifar10, "shapes") is None


def test_folder_under_another_name(cifar10: Path, tmp_path: Path) -> None:
    (tmp_path / "mine").symlink_to(cifar10)
    assert find_dataset(tmp_path / "mine") == tmp_path / "mine"


def test_incomplete_folder_gives_way_to_the_archive(cifar10: Path, archive: Path, tmp_path: Path) -> None:
    (tmp_path / FOLDER).mkdir()
    (tmp_path / FOLDER / "data_batch_1").symlink_to(cifar10 / "data_batch_1")
    assert find_dataset(tmp_path) == tmp_path / FOLDER
    (tmp_path / ARCHIVE).symlink_to(archive)
    assert find_dataset(tmp_path) == find_dataset(tmp_path / FOLDER) == tmp_path / ARCHIVE


def test_folder_of_python2_pickles(cifar10: Path) -> None:
    data = load_dataset(cifar10.parent)
    check_cifar10(data)
    assert data.source == str(cifar10)


def test_archive_is_read_without_unpacking(archive: Path) -> None:
    data = load_dataset(archive)
    check_cifar10(data)
    assert data.source == str(archive)
    assert [entry.name for entry in archive.parent.iterdir()] == [ARCHIVE]


@pytest.mark.parametrize("protocol", [2, 4, pickle.HIGHEST_PROTOCOL])
def test_pickles_written_by_python3(altered: Callable[..., Path], protocol: int) -> None:
    as_bytes = {key.encode(): value for key, value in batch(1, labels=np.arange(10_000) % 10).items()}
    folder = altered(
        meta=pickle.dumps({"label_names": NAMES}, protocol),
        data_batch_1=pickle.dumps(batch(0), protocol),
        data_batch_2=pickle.dumps(as_bytes, protocol),
    )
    check_cifar10(load_dataset(folder))


def test_cifar100(tmp_path: Path) -> None:
    names, coarse = [f"class {i}" for i in range(100)], [f"superclass {i}" for i in range(20)]
    contents: dict[str, dict[str, object]] = {"meta": {"fine_label_names": names, "coarse_label_names": coarse}}
    for file, rows in (("train", 50_000), ("test", 10_000)):
        labels = {"fine_labels": [i % 100 for i in range(rows)], "coarse_labels": [i % 100 // 5 for i in range(rows)]}
        contents[file] = {"data": pixels(3, rows)} | labels
    with tarfile.open(tmp_path / "cifar-100-python.tar.gz", "w:gz", compresslevel=1) as tar:
        for file, content in contents.items():
            blob = pickle.dumps(content, 4)
            member = tarfile.TarInfo(f"./cifar-100-python/{file}")
            member.size = len(blob)
            tar.addfile(member, io.BytesIO(blob))
    data = load_dataset(tmp_path, "cifar100")
    assert data.name == "cifar100" and data.classes == tuple(names)
    assert data.train.images.shape == (50_000, 3, 32, 32) and data.test.images.shape == (10_000, 3, 32, 32)
    assert torch.equal(data.train.labels, torch.arange(50_000) % 100)
    assert data.train.images[49_999, 0, 0, :2].tolist() == [49_999 % 256, 49_999 // 256]
    supers = load_dataset(tmp_path / FOLDER, "cifar100_coarse")  # the default data_path, in the same folder
    assert supers.name == "cifar100_coarse" and supers.classes == tuple(coarse) and supers.source == data.source
    assert torch.equal(supers.train.labels, data.train.labels // 5)
    assert torch.equal(supers.test.labels, data.test.labels // 5)


def test_other_md5_warns_once(cifar10: Path) -> None:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        data = load_dataset(cifar10)
    assert [str(warning.message) for warning in caught] == list(data.warnings)
    assert caught[0].category is UserWarning and caught[0].filename == __file__
    assert "7 of 7 files differ from the originals by md5 (batches.meta, data_batch_1," in data.warnings[0]
    assert "Fine if preprocessed; if not, `attnet download cifar10`" in data.warnings[0]


@pytest.mark.skipif(find_dataset(REAL) is None, reason="needs CIFAR-10 in data/")
def test_real_cifar10() -> None:
    data = load_dataset(REAL)
    assert data.classes == tuple(NAMES)
    assert data.train.labels.bincount().tolist() == [5000] * 10
    assert data.test.labels.bincount().tolist() == [1000] * 10
    means = data.train.images.float().mean((0, 2, 3)) / 255  # the well-known 0.4914, 0.4822, 0.4465
    torch.testing.assert_close(means, torch.tensor([0.4914, 0.4822, 0.4465]), atol=2e-3, rtol=0)


# Bad input: nothing there, or something else


def test_unknown_name() -> None:
    refused(
        "name: 'mnist' is not a data set",
        "known are cifar10, cifar100, cifar100_coarse, folder, shapes",
        data_path=".",
        name="mnist",
    )


def test_no_path() -> None:
    refused("data_path: None", FOLDER, "attnet download cifar10", data_path=None)


def test_absent_path(tmp_path: Path) -> None:
    refused(f"{tmp_path / 'no'} does not exist", ARCHIVE, "attnet download cifar10", data_path=tmp_path / "no")


@pytest.mark.parametrize("name", ["cifar100", "cifar100_coarse"])
def test_empty_folder(tmp_path: Path, name: str) -> None:
    refused(
        "is an empty folder",
        "the folder cifar-100-python",
        "or cifar-100-python.tar.gz",
        "`attnet download cifar100`",
        data_path=tmp_path,
        name=name,
    )


def test_folder_of_something_else(tmp_path: Path) -> None:
    (tmp_path / "train").mkdir()
    for i in range(20):
        (tmp_path / f"photo_{i:02d}.jpg").touch()
    refused(
        f"data_path: {tmp_path} holds photo_00.jpg, photo_01.jpg,",
        "photo_07.jpg and 13 more; expected",
        f"the folder {FOLDER} (batches.meta, data_batch_1,",
        "attnet download cifar10",
        data_path=tmp_path,
    )


def test_folder_of_the_other_set(cifar10: Path) -> None:
    refused("is cifar10: ask for it as dataset=cifar10", data_path=cifar10, name="cifar100")


def test_file_of_something_else(tmp_path: Path, cifar10: Path) -> None:
    refused("data_batch_1 is a file of another kind", f"{FOLDER} (batches.meta,", data_path=cifar10 / "data_batch_1")


def test_missing_files_are_listed(altered: Callable[..., Path]) -> None:
    folder = altered(data_batch_3=None, test_batch=None)
    refused(f"{folder} lacks data_batch_3, test_batch of batches.meta,", "attnet download", data_path=folder)


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="needs a user without all rights")
def test_unreadable(altered: Callable[..., Path]) -> None:
    folder = altered(meta=b"")
    (folder / "batches.meta").chmod(0)
    refused("cannot be read", "check its permissions", data_path=folder)


# Bad input: damaged


@pytest.mark.parametrize("keep", [0.5, 0.999])
def test_half_a_download(archive: Path, tmp_path: Path, keep: float) -> None:
    blob = archive.read_bytes()
    half = tmp_path / ARCHIVE
    half.write_bytes(blob[: int(len(blob) * keep)])
    refused(f"{half} is damaged, perhaps half a download", "Move it away", data_path=tmp_path)


def test_archive_with_a_flipped_bit(archive: Path, tmp_path: Path) -> None:
    blob = bytearray(archive.read_bytes())
    blob[-6] ^= 1  # in gzip's own checksum: all members are whole, yet the archive is not to be trusted
    (tmp_path / ARCHIVE).write_bytes(blob)
    refused("is damaged", "CRC check failed", data_path=tmp_path)


@pytest.mark.parametrize(
    ("blob", "what"),
    [
        (b"", "damaged, perhaps half a download (0 bytes;"),
        (b"<html>404</html>", "a web page"),
        (b"PK\3\4" + bytes(2000), "a ZIP archive"),
        (gzip.compress(b"not a tar" * 100), "damaged"),
    ],
    ids=["empty", "html", "zip", "no tar"],
)
def test_no_archive_at_all(tmp_path: Path, blob: bytes, what: str) -> None:
    (tmp_path / ARCHIVE).write_bytes(blob)
    refused(f"{ARCHIVE} is {what}", "Move it away", data_path=tmp_path / ARCHIVE)


def test_archive_without_the_files(tmp_path: Path, cifar10: Path) -> None:
    with tarfile.open(tmp_path / "mine.tgz", "w:gz") as tar:
        tar.add(cifar10 / "batches.meta", f"{FOLDER}/batches.meta")
        tar.add(cifar10 / "batches.meta", "elsewhere/data_batch_1")
    refused("mine.tgz lacks data_batch_1, data_batch_2,", data_path=tmp_path / "mine.tgz")


@pytest.mark.parametrize(
    "blob",
    [b"", b"\x00\x01\x02", b"hello", original(batch(0))[:-1_000_000], original(batch(0))[:1000]],
    ids=["empty", "binary", "text", "pixels cut", "labels cut"],
)
def test_truncated_or_damaged_pickle(altered: Callable[..., Path], blob: bytes) -> None:
    folder = altered(data_batch_1=blob)
    message = refused(f"{folder}/data_batch_1 is damaged or cut short ({len(blob):,} bytes;", data_path=folder)
    assert "Move it away; `attnet download cifar10`" in message


# Bad input: unsafe


class Payload:
    def __init__(self, function: Callable[..., object], *arguments: object) -> None:
        self.call = function, arguments

    def __reduce__(self) -> tuple[Callable[..., object], tuple[object, ...]]:
        return self.call


@pytest.mark.parametrize("protocol", [0, 2, 4])
@pytest.mark.parametrize("function", [os.system, eval, np.load], ids=["system", "eval", "np.load"])
def test_payload_is_refused_by_name_and_not_executed(
    altered: Callable[..., Path], tmp_path: Path, function: Callable[..., object], protocol: int
) -> None:
    proof = tmp_path / "proof"
    command = {os.system: f"touch {proof}", eval: f"open({str(proof)!r}, 'w')"}.get(function, str(proof))
    blob = pickle.dumps({"data": Payload(function, command)}, protocol)
    folder = altered(data_batch_1=blob)
    name = {os.system: f"{os.system.__module__}.system", eval: ".eval", np.load: "numpy.load"}[function]
    message = refused(f"{folder}/data_batch_1 asks for", f"{name}, which could run code", data_path=folder)
    assert "only numpy arrays" in message and "do not trust this file" in message
    assert not proof.exists()


def test_payload_in_an_archive(tmp_path: Path) -> None:
    blob = pickle.dumps({"label_names": Payload(os.system, f"touch {tmp_path / 'proof'}")})
    with tarfile.open(tmp_path / ARCHIVE, "w:gz") as tar:
        member = tarfile.TarInfo(f"{FOLDER}/batches.meta")
        member.size = len(blob)
        tar.addfile(member, io.BytesIO(blob))
    refused("system, which could run code", data_path=tmp_path)
    assert not (tmp_path / "proof").exists()


def test_payload_behind_a_dotted_name(altered: Callable[..., Path]) -> None:
    """Protocol 4 may ask for an attribute of what is allowed; only whole names are."""
    folder = altered(meta=b"\x80\x04\x8c\x05numpy\x8c\x0endarray.tofile\x93.")
    refused("asks for numpy.ndarray.tofile", data_path=folder)


# Bad input: well-formed, but wrong


@pytest.mark.parametrize(
    ("changes", "fragment"),
    [
        ({"labels": None}, "has no `labels`, only ['data']"),
        ({"data": None}, "has no `data`, only ['labels']"),
        ({"data": pixels(0)[:, :3000].copy()}, "has `data` of shape (10000, 3000)"),
        ({"data": pixels(0).reshape(-1, 3, 32, 32)}, "has `data` of shape (10000, 3, 32, 32)"),
        ({"data": pixels(0)[:99], "labels": [0] * 99}, "holds 99 images where 10,000 are expected"),
        ({"data": pixels(0, 8).astype(np.float32)}, "of type float32; they must be a numpy array of uint8"),
        ({"data": [[0] * 3072]}, "of type list; they must be a numpy array of uint8"),
        ({"labels": [0] * 9_999}, "has 9,999 `labels` for 10,000 images"),
        ({"labels": [0] * 9_998 + [10, 11]}, "outside 0 to 9 (10 at position 9998, 2 such in all)"),
        ({"labels": [-1] + [0] * 9_999}, "outside 0 to 9 (-1 at position 0, 1 such in all)"),
        ({"labels": [0.5] * 10_000}, "has `labels` with 0.5 among them; whole numbers"),
        ({"labels": [0.0] * 10_000}, "has `labels` with 0.0 among them"),
        ({"labels": np.full(10_000, 0.5)}, "has `labels` of float64 (10000,)"),
        ({"labels": [[0], [1, 2]]}, "has `labels` with [0] among them"),
        ({"labels": [1 << 63] + [0] * 9_999}, "is damaged or cut short"),
        ({"labels": "cat"}, "has `labels` of"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_wrong_batch(altered: Callable[..., Path], changes: dict[str, object], fragment: str) -> None:
    folder = altered(data_batch_1=pickle.dumps(batch(0, **changes), 4))
    refused(f"{folder}/data_batch_1 ", "Move it away", "attnet download cifar10", fragment, data_path=folder)


def test_not_a_dict(altered: Callable[..., Path]) -> None:
    refused("batches.meta holds a list where a dict", data_path=altered(meta=original(["a"])))


@pytest.mark.parametrize("names", [NAMES[:9], ["cat"] * 10, list(range(10)), "cat", [[]] * 10])
def test_wrong_class_names(altered: Callable[..., Path], names: object) -> None:
    folder = altered(meta=pickle.dumps({"label_names": names}, 2))
    refused("batches.meta must give 10 different names in `label_names`, not", data_path=folder)
