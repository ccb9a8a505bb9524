"""Pickles and archives of anybody's: what is read, and that nothing is called, copied without end, or believed."""

import contextlib
import gzip
import io
import pickle
import pickletools
import struct
import subprocess
import sys
import tarfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from attnet.base.errors import DataError
from attnet.data import archive
from attnet.data.pickles import read_pickle

ROOT = Path(__file__).resolve().parents[2]
PROTOCOLS = range(pickle.HIGHEST_PROTOCOL + 1)


def same(found: object, value: object) -> bool:
    """Equal, with long bytes as views of the file."""
    if isinstance(value, np.ndarray):
        return isinstance(found, np.ndarray) and found.dtype == value.dtype and np.array_equal(found, value)
    if isinstance(value, dict):
        return found.keys() == value.keys() and all(same(found[key], value[key]) for key in value)
    if isinstance(value, list | tuple):
        return type(found) is type(value) and len(found) == len(value) and all(map(same, found, value))
    if isinstance(value, bytes):
        return bytes(found) == value
    return type(found) is type(value) and (found == value or (found != found and value != value))


plain = st.none() | st.booleans() | st.integers(-(2**63), 2**63 - 1) | st.floats() | st.text() | st.binary(max_size=99)
values = st.recursive(plain, lambda inner: st.lists(inner, max_size=4) | st.tuples(inner, inner), max_leaves=12)


@settings(max_examples=150, deadline=None)
@given(st.dictionaries(st.text() | st.integers(0, 99), values, max_size=4), st.sampled_from(PROTOCOLS))
def test_what_pickle_writes_is_read_back(content, protocol):
    assert same(read_pickle(pickle.dumps(content, protocol)), content)


@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize("dtype", ["u1", "i1", "<u2", ">i4", "i8", "f4", ">f8", "?"])
def test_arrays_of_every_type_and_order(protocol, dtype):
    array = np.arange(6000).reshape(30, 200).astype(dtype)
    content = {"data": array, "turned": np.asfortranarray(array), "none": array[:0], "same": array}
    assert same(read_pickle(pickle.dumps(content, protocol)), content)


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_numbers_that_numpy_wrote_are_numbers(protocol):
    content = {"labels": [np.int64(3), np.uint8(255), np.int32(-1)], "share": np.float64(0.5), "yes": np.bool_(True)}
    assert read_pickle(pickle.dumps(content, protocol)) == {"labels": [3, 255, -1], "share": 0.5, "yes": True}


def test_long_bytes_are_not_copied():
    blob = pickle.dumps({"data": np.zeros(100_000, np.uint8)}, 4)
    assert np.shares_memory(read_pickle(blob)["data"], np.frombuffer(blob, np.uint8))


def named(module: str, name: str) -> bytes:
    return b"c" + module.encode() + b"\n" + name.encode() + b"\n"


ARRAY = named("numpy.core.multiarray", "_reconstruct") + named("numpy", "ndarray") + b"K\x00\x85C\x01b\x87R"
U1 = named("numpy", "dtype") + b"X\x02\x00\x00\x00u1\x89\x88\x87R"
U1 += b"(K\x03X\x01\x00\x00\x00|NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb"


def filled(shape: bytes, kind: bytes = U1, data: bytes = b"C\x04abcd", order: bytes = b"\x89") -> bytes:
    """The opcodes of an array with this state."""
    return ARRAY + b"(K\x01" + shape + kind + order + data + b"tb."


def integer(value: int) -> bytes:
    return b"\x8a\x08" + struct.pack("<q", value)


@pytest.mark.parametrize(
    ("blob", "says"),
    {
        # calls of numpy's own: an array of objects over the file's bytes, any size, a type with fields
        "object array": (named("numpy", "ndarray") + b"K\x01\x85C\x01OC\x08AAAAAAAA\x87R.", "calls numpy.ndarray"),
        "objects": (filled(b"K\x01\x85", U1.replace(b"u1", b"O8")), "type 'O8'"),
        "text type": (filled(b"K\x01\x85", U1.replace(b"u1", b"U9")), "type 'U9'"),
        "fields": (named("numpy", "dtype") + b"]\x85R.", "holds values of type 'list'"),
        "type with fields": (filled(b"K\x04\x85", U1.replace(b"|NNN", b"|NN}")), "numpy type of a form"),
        "larger items": (filled(b"K\x04\x85", U1.replace(b"J\xff\xff\xff\xffJ", integer(1 << 40) + b"J")), "of a form"),
        "build on an int": (b"K\x01}b.", "fills a int"),
        "build on ndarray": (named("numpy", "ndarray") + b"}b.", "fills a Name"),
        "build on dtype": (named("numpy", "dtype") + b"(K\x03X\x01\x00\x00\x00|NNNK\x01K\x01K\x00tb.", "fills a Name"),
        "2 GB in nine bytes": (filled(integer(1 << 31) + b"\x85"), "a shape that its 4 bytes cannot have"),
        "more than it has": (filled(b"K\x03K\x03\x86"), "array of shape (3, 3)"),
        "another size": (filled(b"K\x03\x85"), "array of shape (3,) and type uint8 in 4 bytes"),
        "negative": (filled(integer(-4) + b"\x85"), "a shape"),
        "many dimensions": (filled(b"(" + 40 * b"K\x01" + b"t"), "a shape"),
        "a list of objects": (filled(b"K\x01\x85", data=b"]"), "with a list"),
        "another kind": (ARRAY.replace(b"ndarray", b"dtype") + b".", "array of another kind"),
        "an own function": (named("attnet.data.pickles", "read_pickle") + b".", "asks for attnet.data.pickles.read_"),
        "by position": (b"\x80\x04\x8c\x02os\x8c\x06system\x93.", "asks for os.system"),
        "dotted": (b"\x80\x04\x8c\x05numpy\x8c\x0endarray.tofile\x93.", "asks for numpy.ndarray.tofile"),
        "instance": (b"(ios\nsystem\n.", "the opcode INST"),
        "object": (b"(c__builtin__\nlist\no.", "asks for __builtin__.list"),
        "new object": (named("numpy", "dtype") + b")\x81.", "the opcode NEWOBJ"),
        "extension": (b"\x82\x01.", "the opcode EXT1"),
        "persistent": (b"Pname\n.", "the opcode PERSID"),
        "buffer": (b"\x80\x05\x97.", "the opcode NEXT_BUFFER"),
        "call of a value": (b"]K\x01\x85R.", "calls a list"),
        "encode": (named("_codecs", "encode") + b"X\x01\x00\x00\x00aX\x03\x00\x00\x00hex\x86R.", "encodes a str"),
    }.values(),
    ids=lambda value: None if isinstance(value, bytes) else value,
)
def test_what_could_run_code_is_refused(blob, says):
    with pytest.raises(DataError) as refused:
        read_pickle(blob)
    assert says in str(refused.value)


@pytest.mark.parametrize(
    "blob",
    [
        *(b"", b"\x80", b"K", b".", b"(.", b"t.", b"u.", b"a.", b"s.", b"R.", b"b.", b"e.", b"h\x00.", b"q\x00."),
        *(b"]K\x01", b"}K\x01u.", b"}(K\x01u.", b"(]K\x01e.", b"}]K\x01s.", b"}}K\x01s.", b"I\n.", b"Ix\n.", b"L\n."),
        *(b"I" + 5000 * b"9" + b"\n.", b"\x8a\xff" + 255 * b"\x7f" + b".", b"\x8b\xff\xff\xff\x7f.", b"Fx\n."),
        *(
            b"X\xff\xff\xff\xffa.",
            b"\x8e\xff\xff\xff\xff\xff\xff\xff\xffa.",
            b"T\xff\xff\xff\xffa.",
            b"S'a\n.",
            b"S\n.",
        ),
        *(b"X\x01\x00\x00\x00\xff.", b"\xff.", b"c\xff\n\n.", b"c" + 9999 * b"a" + b"\n\n."),
    ],
    ids=lambda blob: repr(blob)[2:22],
)
def test_damage_is_a_sentence(blob):
    with pytest.raises(DataError, match=r"is damaged or cut short \([\d,]+ bytes"):
        read_pickle(blob)


def test_what_is_wrong_with_a_long_text_is_said_without_it():
    blob = b"X" + struct.pack("<I", 10**6) + b"a" * (10**6 - 1) + b"\xff."
    with pytest.raises(DataError, match=r"\(1,000,006 bytes; UnicodeDecodeError: 'utf-8' codec can't decode byte 0xff"):
        read_pickle(blob)


@pytest.mark.parametrize(
    "blob",
    [
        b"]" * 2_000_000 + b".",  # so many lists
        b"N" + 2_000_000 * b"\x85" + b".",  # one within the other
        b"]q\x00" + 3_000_000 * b"h\x00" + b".",
        b"X"
        + struct.pack("<I", 10**6)
        + 10**6 * b"a"
        + b"q\x00"
        + 50 * (named("_codecs", "encode") + b"h\x00X\x06\x00\x00\x00latin1\x86R")
        + b".",  # fifty copies of a long text
    ],
    ids=["lists", "nested", "references", "copies"],
)
def test_small_files_stay_small(blob):
    """In a process of its own, whose memory is known: 100 MB for files of 1 to 6 MB, which ask for any amount."""
    script = (
        "import resource, sys\n"
        "from attnet.base.errors import DataError\n"
        "from attnet.data.pickles import read_pickle\n"
        "blob = sys.stdin.buffer.read()\n"
        "before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n"
        "try: read_pickle(blob)\n"
        "except DataError as error: print(str(error)[:80])\n"
        "assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 100_000\n"
    )
    done = subprocess.run([sys.executable, "-c", script], input=blob, capture_output=True, cwd=ROOT, check=False)
    assert done.returncode == 0, done.stderr
    assert b"more" in done.stdout


SEEDS = [pickle.dumps({"data": np.eye(9, dtype=np.uint8), "labels": [1, 2, 3], "names": ["a"]}, p) for p in PROTOCOLS]
OPCODES = bytes(ord(opcode.code) for opcode in pickletools.opcodes)


@settings(max_examples=400, deadline=None)
@given(st.data())
def test_whatever_the_bytes_it_is_a_value_or_a_sentence(data):
    """Streams of real opcodes, and real files with some bytes changed."""
    if data.draw(st.booleans()):
        pieces = st.binary(max_size=6) | st.sampled_from(
            [ARRAY, U1, b"K\x01", b"(", b"tb", b"\x85R", b"h\x00", b"q\x00"]
        )
        opcode = st.sampled_from(OPCODES).map(lambda code: bytes([code]))
        blob = b"".join(data.draw(st.lists(pieces | opcode, max_size=30))) + b"."
    else:
        blob = bytearray(data.draw(st.sampled_from(SEEDS)))
        for _ in range(data.draw(st.integers(1, 4))):
            blob[data.draw(st.integers(0, len(blob) - 1))] = data.draw(st.integers(0, 255))
    try:
        read_pickle(bytes(blob))
    except DataError as error:
        assert len(str(error)) < 400


# ---- archives ----


def packed(tmp_path: Path, *members: tuple[tarfile.TarInfo, bytes], form: int = tarfile.GNU_FORMAT) -> Path:
    file = tmp_path / "data.tar.gz"
    with tarfile.open(file, "w:gz", format=form) as tar:
        for info, content in members:
            tar.addfile(info, io.BytesIO(content))
    return file


def member(name: str = "f", size: int = 0, **others: object) -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.size = size
    for key, value in others.items():
        setattr(info, key, value)
    return info


def read(file: Path, most: int = 10_000) -> dict[str, bytes]:
    return dict(archive.members(file, {"f", "g"}.__contains__, most))


@pytest.mark.parametrize("form", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_wanted_files_are_read_from_any_tar(tmp_path, form):
    others = (
        (member("x" * 300, 700), 700 * b"x"),
        (member("./g", 512), 512 * b"g"),
        (member("d", type=tarfile.DIRTYPE), b""),
    )
    others = others if form != tarfile.USTAR_FORMAT else others[1:]
    file = packed(tmp_path, *others, (member("f", 3, mtime=1.5, pax_headers={"comment": "é"}), b"abc"), form=form)
    assert read(file) == {"g": 512 * b"g", "f": b"abc"}
    file.write_bytes(gzip.decompress(file.read_bytes()))  # a plain tar under the same name
    assert read(file) == {"g": 512 * b"g", "f": b"abc"}


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.FIFOTYPE, tarfile.CHRTYPE, tarfile.BLKTYPE])
def test_links_and_devices_are_refused(tmp_path, kind):
    with pytest.raises(DataError, match="f is no plain file in it"):
        read(packed(tmp_path, (member(type=kind, linkname="/etc/passwd"), b"")))


def test_holes_are_refused(tmp_path):
    sparse = member(type=tarfile.GNUTYPE_SPARSE).tobuf(tarfile.GNU_FORMAT)
    file = tmp_path / "data.tar.gz"
    file.write_bytes(gzip.compress(sparse))
    with pytest.raises(DataError, match="no plain file"):
        read(file)


def test_what_a_header_announces_is_not_believed(tmp_path):
    file = tmp_path / "data.tar.gz"
    for name, kind in (("f", tarfile.REGTYPE), ("other", tarfile.REGTYPE), ("pax", tarfile.XHDTYPE)):
        file.write_bytes(gzip.compress(member(name, 1 << 40, type=kind).tobuf(tarfile.GNU_FORMAT) + b"abc"))
        with pytest.raises((DataError, EOFError), match=r"1,099,511,627,776 bytes, more than 10,000|ends too soon"):
            read(file)


def test_a_file_larger_than_the_data_sets_is_refused(tmp_path):
    file = packed(tmp_path, (member("f", 20_000), bytes(20_000)))
    assert read(file, most=20_000) == {"f": bytes(20_000)}
    with pytest.raises(DataError, match="f has 20,000 bytes, more than 10,000"):
        read(file)


def test_the_whole_has_a_bound(tmp_path):
    file = packed(tmp_path, (member("other", 90_000), 90_000 * b"\0"))
    with pytest.raises(DataError, match="unpacks to far more"):
        read(file)
    with gzip.open(tmp_path / "tail.tar.gz", "wb") as tail:
        tail.write(bytes(2_000_000))  # after the end of the tar
    with pytest.raises(DataError, match="unpacks to far more"):
        read(tmp_path / "tail.tar.gz")
    with pytest.raises(DataError, match="more than 1,000 files"):
        read(packed(tmp_path, *((member(str(n)), b"") for n in range(1_001))), most=10**6)


@settings(max_examples=150, deadline=None)
@given(st.data())
def test_a_damaged_archive_is_an_error_that_is_known(tmp_path_factory, data):
    folder = tmp_path_factory.mktemp("archive")
    file = packed(folder, (member("f", 700), 700 * b"f"), (member("g", 3), b"abc"), form=tarfile.PAX_FORMAT)
    blob = bytearray(gzip.decompress(file.read_bytes())[:3072])
    for _ in range(data.draw(st.integers(1, 5))):
        blob[data.draw(st.integers(0, len(blob) - 1))] = data.draw(st.integers(0, 255))
    file.write_bytes(bytes(blob))
    with contextlib.suppress(DataError, EOFError, tarfile.TarError, OSError):
        assert read(file).keys() <= {"f", "g"}
