"""Reading anybody's picture: its pixels, in bounded memory, and what is said of those that cannot be read."""

import io
import os
import struct
import subprocess
import sys
import threading
import time
import warnings
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image, ImageCms, ImageOps, PngImagePlugin

from attnet.base.errors import DataError
from attnet.data import pictures
from attnet.data.objects import read_pairs
from attnet.data.pictures import picture_size, read_picture, read_whole
from attnet.data.pixels import EXACT, cut

RED, BLUE, WHITE = (255, 0, 0), (0, 0, 255), (255, 255, 255)


def bytes_of(image: Image.Image, kind: str = "PNG", **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def halves(width: int, height: int) -> Image.Image:
    """Red left half, blue right half."""
    image = Image.new("RGB", (width, height), RED)
    image.paste(BLUE, (width // 2, 0, width, height))
    return image


def test_the_middle_square_is_taken_and_resized(tmp_path):
    path = tmp_path / "wide.png"
    halves(400, 100).save(path)
    picture = read_picture(path, 32)
    assert picture.shape == (3, 32, 32) and picture.dtype == torch.uint8
    assert torch.equal(picture[:, 16, 2], torch.tensor(RED, dtype=torch.uint8))
    assert torch.equal(picture[:, 16, 29], torch.tensor(BLUE, dtype=torch.uint8))
    assert torch.equal(picture, read_picture(path.read_bytes(), 32))


@pytest.mark.parametrize("size", [(1, 1), (7, 300), (2000, 31)])
@pytest.mark.parametrize("target", [32, 224])
def test_any_size(size, target):
    assert (read_picture(bytes_of(Image.new("RGB", size, RED)), target)[0] == 255).all()


def test_turned_by_exif():
    image, exif = halves(100, 100), Image.Exif()
    exif[0x0112] = 6  # to be turned clockwise by a quarter: what is left comes to lie on top
    picture = read_picture(bytes_of(image, "JPEG", exif=exif, quality=95), 32)
    assert picture[0, 2, 16] > 200 and picture[2, 2, 16] < 60
    assert picture[0, 29, 16] < 60 and picture[2, 29, 16] > 200


def test_transparent_parts_are_white():
    image = Image.new("RGBA", (40, 40), (0, 0, 0, 0))
    image.paste((255, 0, 0, 255), (0, 0, 20, 40))
    for blob in (bytes_of(image), bytes_of(image.quantize(), "PNG"), bytes_of(image, "WEBP", lossless=True)):
        picture = read_picture(blob, 40)
        assert picture[:, 20, 35].tolist() == [255, 255, 255]
        assert picture[:, 20, 5].tolist() == pytest.approx([255, 0, 0], abs=2)


@pytest.mark.parametrize(
    "image",
    [
        Image.fromarray(np.full((20, 20), 32768, np.uint16)),
        Image.new("L", (20, 20), 128),
        Image.fromarray(np.tile(np.float32([[0, 0.5, 1]]).repeat(7, axis=1), (21, 1))).convert("F"),
        Image.new("CMYK", (20, 20), (0, 0, 0, 127)),
        Image.new("1", (20, 20), 1).convert("L").point(lambda _: 128),
        Image.frombytes("I;16B", (20, 20), b"\x80\0" * 400),
        Image.fromarray(np.tile(np.int32([[0, 5 * 10**8, 10**9]]).repeat(7, axis=1), (21, 1))),
        ImageCms.profileToProfile(
            Image.new("RGB", (20, 20), (128,) * 3),
            *(ImageCms.createProfile(space) for space in ("sRGB", "LAB")),
            outputMode="LAB",
        ),
    ],
    ids=["16 bit", "grey", "float", "cmyk", "point", "big-endian", "32 bit", "lab"],
)
def test_other_kinds_of_pixels_keep_their_brightness(image):
    blob = bytes_of(image, "TIFF")
    assert read_picture(blob, 21)[:, 10, 10].tolist() == pytest.approx([128] * 3, abs=2)


def test_numbers_above_two_thousand_million_are_no_negative_ones():
    image = Image.fromarray(np.tile(np.int32([[0, 2**31 - 1, -2]]).repeat(7, axis=1), (21, 1)))  # -2 for 2 ** 32 - 2
    blob = bytes_of(image, "TIFF", tiffinfo={339: 1})
    blob = blob.replace(struct.pack("<HHIH", 339, 3, 1, 2), struct.pack("<HHIH", 339, 3, 1, 1))
    grey = read_picture(blob, 21)[0, 10]
    assert [grey[3], grey[17]] == [0, 255] and grey[10] == pytest.approx(127, abs=2)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf, -3.4028235e38, -9999])
@pytest.mark.parametrize("side", [20, 2100])
def test_pixels_that_are_no_numbers_turn_no_picture_black(value, side):
    numbers = np.linspace(0, 1, side * side, dtype=np.float32).reshape(side, side)
    numbers[-1, :7] = value
    blob = bytes_of(Image.fromarray(numbers), "TIFF", tiffinfo={42113: "-9999"})
    with pytest.raises(DataError, match=rf"^picture dem\.tif has no number for 7 of its {side * side:,} pixels"):
        read_picture(blob, name="dem.tif")


def test_a_transparent_grey_of_sixteen_bits_is_white():
    levels = np.full((20, 20), 1000, np.uint16)
    levels[:, :10] = 20000
    picture = read_picture(bytes_of(Image.fromarray(levels), transparency=1000), 20)
    assert picture[:, 10, 17].tolist() == [255] * 3 and picture[0, 10, 3] == 77


def test_small_pictures_are_resized_from_every_pixel_and_large_ones_nearly_so():
    """To the bit what Pillow makes of the whole; large ones within a few levels of it."""
    y, x = np.mgrid[0:2001, 0:2501]
    colours = np.stack([(x + y) % 256, 127 + 120 * np.sin(x / 37 + y / 91), (x // 50 + y // 33) % 2 * 255], -1)
    large = Image.fromarray(np.uint8(colours))
    for image in (large, large.crop((0, 0, 1000, 701)), large.crop((0, 0, 90, 60)), large.resize((300, 17000))):
        for size in (32, 224):
            exact = np.array(ImageOps.fit(image, (size, size), Image.Resampling.LANCZOS)).astype(int)
            apart = abs(read_picture(bytes_of(image, "PPM"), size).permute(1, 2, 0).numpy() - exact)
            is_large = image.width * image.height > EXACT
            assert apart.max() <= (5 if is_large else 0) and apart.mean() < 1
    for way in (2, 6, 7):
        exif = Image.Exif()
        exif[0x0112] = way
        blob = bytes_of(large, exif=exif, compress_level=1)
        turned = ImageOps.exif_transpose(Image.open(io.BytesIO(blob)))
        exact = np.array(ImageOps.fit(turned, (32, 32), Image.Resampling.LANCZOS)).astype(int)
        assert abs(read_picture(blob).permute(1, 2, 0).numpy() - exact).max() <= 5


# ---- memory and time ----

MEASURE = """
import sys
from attnet.base.host import process_memory
from attnet.data.pictures import read_picture
from PIL import Image
Image.init()
before = process_memory().used
for path in sys.argv[1:]:
    read_picture(path)
print(process_memory().peak - before)
"""


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="the peak is Linux's own count")
def test_a_large_picture_takes_little_more_than_its_pixels(tmp_path):
    side = 4300
    grey = Image.fromarray(np.full((side, side), 30000, np.uint16))
    grey.save(tmp_path / "sixteen.png", compress_level=1)
    Image.fromarray(np.eye(side, dtype=np.float32)).save(tmp_path / "float.tif", compression="tiff_adobe_deflate")
    Image.new("RGBA", (side, side), (200, 10, 10, 128)).save(tmp_path / "through.png", compress_level=1)
    Image.new("RGB", (side, side), RED).save(tmp_path / "photo.jpg")
    command = [sys.executable, "-c", MEASURE, *map(str, sorted(tmp_path.iterdir()))]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert int(done.stdout) < 8 * side * side  # 4 bytes a pixel are Pillow's own; without strips it is 15 to 25


def test_threads_share_the_memory(monkeypatch, tmp_path):
    """A picture waits until what the others take leaves enough for it."""
    at_work, most, lock = [0], [0], threading.Lock()

    def slow(image, size, name):
        with lock:
            at_work[0] += 1
            most[0] = max(most[0], at_work[0])
        time.sleep(0.02)
        with lock:
            at_work[0] -= 1
        return Image.new("RGB", (size, size))

    halves(40, 40).save(tmp_path / "a.png")
    monkeypatch.setattr(pictures, "middle_square", slow)
    monkeypatch.setattr(pictures, "usable_cores", lambda: 8)
    for room, together in ((8 * 1600, 1), (3 * 8 * 1600, 3)):
        most[0] = 0
        monkeypatch.setattr(pictures, "_memory", pictures._Budget(room))
        assert read_pairs([tmp_path / "a.png"] * 16, [None] * 16, 32)[2] == []
        assert most[0] == together


def test_what_a_decoder_needs_beside_the_pixels_counts(monkeypatch):
    image = halves(40, 40)
    monkeypatch.setattr(pictures, "_MEMORY", 10 * 1600)
    assert read_picture(bytes_of(image)).shape == (3, 32, 32)
    for kind, options in (("WEBP", {}), ("JPEG", {"progressive": True})):
        with pytest.raises(DataError, match=f"too large to unpack safely .40 x 40 pixels in {kind}"):
            read_picture(bytes_of(image, kind, **options))


def test_a_small_picture_in_a_huge_tile_is_refused_unopened():
    tags = [
        (256, 64),
        (257, 64),
        (258, 8),
        (259, 8),
        (262, 1),
        (277, 1),
        (322, 40000),
        (323, 40000),
        (324, 8),
        (325, 9),
    ]
    entries = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in tags)
    blob = b"II*\0" + struct.pack("<IH", 8, len(tags)) + entries + bytes(4)
    with pytest.raises(DataError, match="too large to unpack safely"):
        read_picture(blob)


def test_a_jpeg_of_endless_scans_is_refused():
    blob = bytes_of(halves(40, 40), "JPEG", progressive=True)
    begin, end = blob.rindex(b"\xff\xda"), blob.rindex(b"\xff\xd9")
    for times in (2, 50):
        assert read_picture(blob[:begin] + times * blob[begin:end] + blob[end:]).shape == (3, 32, 32)
    with pytest.raises(DataError, match=r"takes too long to unpack \(2\d\d scans\)"):
        read_picture(blob[:begin] + 200 * blob[begin:end] + blob[end:])


# ---- metadata ----


def with_chunk(png: bytes, kind: bytes, content: bytes, checksum: int | None = None) -> bytes:
    """One more chunk behind the header."""
    checksum = zlib.crc32(kind + content) if checksum is None else checksum
    return png[:33] + struct.pack(">I", len(content)) + kind + content + struct.pack(">I", checksum) + png[33:]


@pytest.mark.parametrize(
    ("kind", "content", "checksum"),
    [
        (b"eXIf", b"no EXIF", None),
        (b"eXIf", b"MM\0*\0\0\0\x08", 0),
        (b"tEXt", b"Comment\0of whom?", 0),
        (b"zTXt", b"Comment\0\0" + zlib.compress(bytes(PngImagePlugin.MAX_TEXT_CHUNK + 1)), None),
        (b"iCCP", b"profile\0\0" + zlib.compress(bytes(PngImagePlugin.MAX_TEXT_CHUNK + 1)), None),
        (b"pHYs", b"", None),
        (b"acTL", b"\0", None),
    ],
)
def test_metadata_of_a_png_take_nothing_from_its_pixels(kind, content, checksum, tmp_path):
    for mode in ("RGB", "P"):
        image, options = halves(60, 40).convert(mode), {"transparency": 0} if mode == "P" else {}
        png = bytes_of(image, **options)
        odd = with_chunk(png, kind, content, checksum)
        assert torch.equal(read_picture(odd), read_picture(png))
        (tmp_path / "odd.png").write_bytes(odd)
        assert picture_size(tmp_path / "odd.png") == (60, 40)
    exif = Image.Exif()
    exif[0x0112] = 6
    turned = bytes_of(halves(60, 40), exif=exif)
    assert kind == b"eXIf" or torch.equal(
        read_picture(with_chunk(turned, kind, content, checksum)), read_picture(turned)
    )


def test_pixels_of_a_png_that_are_damaged_stay_damaged():
    noise = Image.fromarray(np.random.RandomState(0).randint(0, 255, (64, 64, 3), dtype=np.uint8))
    png = bytearray(with_chunk(bytes_of(noise), b"tEXt", b"odd", 0))
    png[len(png) // 2 : len(png) // 2 + 200] = bytes(200)
    with pytest.raises(DataError, match="is damaged"):
        read_picture(bytes(png))


@pytest.mark.parametrize("kind", ["JPEG", "WEBP"])
def test_an_exif_that_cannot_be_read_is_none(kind):
    blob, broken = (bytes_of(halves(60, 40), kind, exif=exif) for exif in (b"", b"Exif\0\0MN no EXIF"))
    assert torch.equal(read_picture(blob), read_picture(broken))


def test_an_orientation_is_honoured_beside_what_cannot_be_read():
    """Pillow can read the one but not write the other again."""
    fields = struct.pack(">HHHIHHHHII", 2, 0x0112, 3, 1, 6, 0, 0x011A, 2, 99, 9) + bytes(4)
    exif = b"Exif\0\0MM\0*\0\0\0\x08" + fields
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # what Pillow has to say of it is for nobody
        picture = read_picture(bytes_of(halves(100, 100), "JPEG", exif=exif, quality=95), 32)
    assert picture[0, 2, 16] > 200 and picture[2, 29, 16] > 200


def test_folders_of_metadata_in_a_tiff_take_nothing_from_its_pixels():
    exif = Image.Exif()
    exif[0x8769] = {0x9003: "2020"}
    whole = Image.Exif()
    whole.load(exif.tobytes())
    blob = bytes_of(halves(60, 40), "TIFF", exif=whole)
    entry = blob.index(struct.pack("<HH", 0x8769, 4))
    broken = blob[: entry + 2] + struct.pack("<HIi", 9, 1, -69) + blob[entry + 12 :]  # begins before the file does
    assert torch.equal(read_picture(broken), read_picture(blob))


def test_first_frame_of_an_animation():
    frames = [Image.new("RGB", (30, 30), colour) for colour in (RED, BLUE)]
    blob = bytes_of(frames[0], "GIF", save_all=True, append_images=frames[1:])
    assert read_picture(blob, 32)[:, 9, 9].tolist() == list(RED)


def test_what_cannot_be_read_gets_a_sentence(tmp_path, monkeypatch):
    text = tmp_path / "notes.txt"
    text.write_text("no picture")
    program = tmp_path / "program.png"
    program.write_bytes(bytes_of(halves(40, 40), "EPS"))  # PostScript, which Pillow would let another program run
    cut = tmp_path / "cut.png"
    noise = np.random.RandomState(0).randint(0, 255, (64, 64, 3), dtype=np.uint8)
    cut.write_bytes(bytes_of(Image.fromarray(noise))[:5000])
    for path, message in [
        (tmp_path / "none.png", "does not exist"),
        (tmp_path, "is a folder: give one file"),
        (text, "no picture that can be read, it is a text"),
        (program, "no picture that can be read, it is a PostScript program"),
        (cut, "is damaged"),
    ]:
        with pytest.raises(DataError, match=message) as error:
            read_picture(path)
        assert str(path) in str(error.value)
    with pytest.raises(DataError, match=r"picture holiday\.png is no picture"):
        read_picture(b"", name="holiday.png")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 500)
    with pytest.raises(DataError, match="too large to unpack safely"):
        read_picture(bytes_of(halves(40, 40)))


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "it is empty"),
        ("猫\n".encode(), "it is a text"),
        (b"<!DOCTYPE html><html>404", "it is a web page"),
        (b'<svg xmlns="http://www.w3.org/2000/svg"/>', "it is an XML or SVG text"),
        (b"version https://git-lfs.github.com/spec/v1\n", "it is a Git LFS pointer"),
        (b"PK\x03\x04\x14\0", "it is a ZIP archive"),
        (b"\0\0\0\x18ftypheic\0\0\0\0", "it is an HEIC picture"),
        (b"\x89PNG\r\n\x1a\n\0\0", "it is a picture cut short or damaged in its header"),
        (b"\x80\0\1\2", "PNG, JPEG, WebP"),
    ],
)
def test_a_file_is_called_what_it_is_whatever_its_name(content, words, tmp_path):
    (tmp_path / "cat.jpg").write_bytes(content)
    with pytest.raises(DataError, match=r"cat\.jpg is no picture that can be read") as error:
        read_picture(tmp_path / "cat.jpg")
    assert words in str(error.value) and "is damaged" not in str(error.value)


def test_what_may_not_be_read_is_not_damaged(tmp_path, monkeypatch):
    path = tmp_path / "cat.png"
    halves(40, 40).save(path)

    def forbidden(*_: object) -> None:
        raise PermissionError(13, "Permission denied", str(path))

    with monkeypatch.context() as patch:
        patch.setattr(pictures, "open", forbidden, raising=False)
        with pytest.raises(DataError, match=r"cat\.png cannot be read \(Permission denied\); check its permissions$"):
            read_picture(path)

    class Torn(io.BytesIO):  # the disk, or a network's drive, gives up in the middle
        def read(self, *_: object) -> bytes:
            raise OSError(5, "Input/output error")

    monkeypatch.setattr(pictures, "open", lambda *_: Torn(), raising=False)
    with pytest.raises(DataError, match=r"cat\.png cannot be read \(Input/output error\)$"):
        read_picture(path)


def test_what_is_no_regular_file_is_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "pipe.png")
    (tmp_path / "gone.png").symlink_to(tmp_path / "nowhere.png")
    for name, words in (("pipe.png", "is no regular file"), ("gone.png", "is a link to a file that does not exist")):
        with pytest.raises(DataError, match=words):
            read_picture(tmp_path / name)


def test_an_error_of_ours_is_not_laid_to_the_picture(tmp_path, monkeypatch):
    def wrong(*_: object) -> None:
        raise ZeroDivisionError("ours")

    monkeypatch.setattr(pictures, "middle_square", wrong)
    halves(40, 40).save(tmp_path / "cat.png")
    for read in (
        lambda: read_picture(tmp_path / "cat.png"),
        lambda: read_pairs([tmp_path / "cat.png"], [None], 32),
    ):
        with pytest.raises(ZeroDivisionError, match="ours"):
            read()


def test_a_name_that_is_no_text_is_shown_escaped(tmp_path):
    path = Path(os.fsdecode(os.fsencode(tmp_path) + b"/\xb2\xe2\x1b[1m.png"))
    halves(40, 40).save(os.fsencode(path))
    assert read_picture(path).shape == (3, 32, 32)
    path.write_bytes(b"")
    with pytest.raises(DataError, match=r"/\\xb2\\xe2\\x1b\[1m\.png is no picture") as error:
        read_picture(path)
    str(error.value).encode()


@pytest.mark.parametrize(("size", "shown"), [((301, 97), (301, 97)), ((5000, 1250), (1600, 400)), ((1, 3), (1, 3))])
def test_a_whole_picture_keeps_its_sides_and_its_size_as_long_as_it_fits(tmp_path, size, shown):
    Image.new("RGB", size, (200, 30, 40)).save(tmp_path / "wide.png")
    whole = read_whole(tmp_path / "wide.png")
    assert whole.size == shown and whole.getpixel((0, 0)) == (200, 30, 40)


def test_a_whole_picture_is_upright_and_white_where_it_is_transparent(tmp_path):
    image = Image.new("RGBA", (40, 20), (255, 0, 0, 0))
    image.paste((0, 0, 255, 255), (0, 0, 40, 10))
    exif = Image.Exif()
    exif[274] = 6  # to be shown turned by 90 degrees, clockwise
    image.save(tmp_path / "turned.png", exif=exif)
    whole = read_whole(tmp_path / "turned.png")
    assert whole.size == (20, 40)
    assert whole.getpixel((19, 0)) == (0, 0, 255) and whole.getpixel((0, 0)) == (255, 255, 255)


def test_squares_cut_from_a_picture_are_its_pixels():
    image = Image.fromarray(np.random.RandomState(0).randint(0, 255, (40, 60, 3), np.uint8))
    squares = cut(image, [(0, 0, 32), (20, 8, 32)], 32)
    assert np.array_equal(squares[1].permute(1, 2, 0), np.asarray(image)[8:40, 20:52])
    assert squares.shape == (2, 3, 32, 32) and cut(image, [(0, 0, 40)], 16).shape == (1, 3, 16, 16)
