"""Pictures that every viewer shows and Pillow alone takes otherwise, or refuses with the wrong reason."""

import io
import struct
import zlib

import numpy as np
import pytest
import torch
from PIL import Image

from attnet.base.errors import DataError
from attnet.data.objects import read_pair
from attnet.data.pictures import picture_size, read_picture

RED, BLUE, WHITE = [255, 0, 0], [0, 0, 255], [255] * 3


def chunk(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def png(depth: int, colours: int, row: bytes, more: bytes = b"") -> bytes:
    """Eight equal rows of eight pixels; `more` stands before the pixels."""
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", 8, 8, depth, colours, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + more + chunk(b"IDAT", zlib.compress(8 * (b"\0" + row))) + chunk(b"IEND", b"")


def tiff(values: np.ndarray, bits: int, shades: int = 1, form: int = 1, **more: tuple[int, int]) -> bytes:
    """A TIFF, uncompressed, of numbers of one kind [H, W] or [3, H, W] in planes; `more`: t284=(type, value)."""
    spp, (height, width) = (values.shape[0] if values.ndim == 3 else 1), values.shape[-2:]
    tags = {256: (4, width), 257: (4, height), 258: (3, bits), 259: (3, 1), 262: (3, shades), 273: (4, 0)}
    tags |= {277: (3, spp), 278: (4, height), 279: (4, values.nbytes // spp), 339: (3, form)}
    tags |= {int(name[1:]): entry for name, entry in more.items()}
    start = 8 + 2 + 12 * len(tags) + 4
    offsets = [start + 24 + k * values.nbytes // spp for k in range(spp)]
    far = struct.pack("<3I", *offsets, *[0] * (3 - spp)) + struct.pack("<3I", *[values.nbytes // spp] * 3)
    tags[273] = (4, offsets[0])
    entries = b""
    for tag, (kind, value) in sorted(tags.items()):
        if spp > 1 and tag in (273, 279):
            entries += struct.pack("<HHII", tag, 4, spp, start + (12 if tag == 279 else 0))
        elif kind == 2:
            entries += struct.pack("<HHI4s", tag, 2, 4, value)
        else:
            entries += struct.pack("<HHII", tag, kind, 1, value)
    return b"II*\0\x08\0\0\0" + struct.pack("<H", len(tags)) + entries + bytes(4) + far + values.tobytes()


def sides(blob: bytes) -> list[list[int]]:
    """The colours at the left and at the right."""
    picture = read_picture(blob, 8)
    return [picture[:, 4, 1].tolist(), picture[:, 4, 6].tolist()]


def halves(left: float, right: float, dtype: str) -> np.ndarray:
    return np.tile(np.array([left] * 4 + [right] * 4, dtype), (8, 1))


# ---- transparency ----


@pytest.mark.parametrize(("depth", "levels"), [(2, (1, 2)), (4, (1, 5))])
def test_a_transparent_grey_of_few_bits_is_white(depth, levels):
    bits = "".join(format(level, f"0{depth}b") * 4 for level in levels)
    row = int(bits, 2).to_bytes(depth, "big")
    shades = [[255 * level // (2**depth - 1)] * 3 for level in levels]
    assert sides(png(depth, 0, row)) == shades
    assert sides(png(depth, 0, row, chunk(b"tRNS", struct.pack(">H", levels[0])))) == [WHITE, shades[1]]


def test_a_transparent_bit_of_a_mask_is_no_object(tmp_path):
    Image.new("RGB", (8, 8)).save(tmp_path / "cat.png")
    mask = tmp_path / "cat.mask.png"
    mask.write_bytes(png(1, 0, b"\x0f", chunk(b"tRNS", struct.pack(">H", 1))))
    with pytest.raises(DataError, match="has no object"):
        read_pair(tmp_path / "cat.png", size=8)


def test_a_transparent_colour_of_sixteen_bits_is_white():
    left, right = (1000, 2000, 3000), (60000, 0, 0)
    row = struct.pack(">3H", *left) * 4 + struct.pack(">3H", *right) * 4
    assert sides(png(16, 2, row, chunk(b"tRNS", struct.pack(">3H", *left)))) == [WHITE, [60000 >> 8, 0, 0]]


@pytest.mark.parametrize("content", [b"", b"x", b"\0" * 300])
def test_transparency_of_a_length_that_cannot_be_ends_nothing(content):
    palette = chunk(b"PLTE", bytes(RED + BLUE))
    row = bytes([0] * 4 + [1] * 4)
    for blob in (png(8, 3, row, palette + chunk(b"tRNS", content)), png(8, 2, bytes(RED * 8), chunk(b"tRNS", content))):
        assert read_picture(blob, 8).shape == (3, 8, 8)


# ---- numbers in a TIFF ----


def test_where_the_lowest_is_white_it_is_shown_so():
    for bits, dtype, values in ((8, "u1", (10, 200)), (16, "<u2", (10 * 257, 200 * 257))):
        assert sides(tiff(halves(*values, dtype), bits, shades=0)) == [[245] * 3, [55] * 3]
    assert sides(tiff(halves(0, 1, "<f4"), 32, shades=0, form=3)) == [WHITE, [0] * 3]


@pytest.mark.parametrize(("bits", "dtype", "form"), [(32, "<u4", 1), (32, "<i4", 2), (16, "<i2", 2)])
def test_numbers_that_fill_a_small_part_of_their_range_are_not_all_black(bits, dtype, form):
    assert sides(tiff(halves(0, 255, dtype), bits, form=form)) == [[0] * 3, WHITE]


def test_twelve_bits_are_on_their_own_scale():
    image = tiff(np.frombuffer((bytes(6) + b"\xff" * 6) * 8, "u1").reshape(8, 12), 12, t256=(4, 8))
    assert sides(image) == [[0] * 3, WHITE]


def test_what_stands_for_no_data_is_no_number_of_whole_ones_either():
    numbers = halves(0, 200, "<i2")
    numbers[:, 0] = -99
    with pytest.raises(DataError, match=r"^picture dem\.tif has no number for 8 of its 64 pixels"):
        read_picture(tiff(numbers, 16, form=2, t42113=(2, b"-99\0")), name="dem.tif")
    # On a scale that does not depend on it, it is the colour that every viewer shows.
    assert sides(tiff(halves(0, 257 * 200, "<u2"), 16, t42113=(2, b"0\0\0\0"))) == [[0] * 3, [200] * 3]


def test_a_mask_of_numbers_is_on_their_scale_too(tmp_path):
    Image.new("RGB", (8, 8)).save(tmp_path / "cat.png")
    (tmp_path / "mask.tif").write_bytes(tiff(halves(0, 65535, "<u2"), 16, shades=0))
    object_ = read_pair(tmp_path / "cat.png", tmp_path / "mask.tif", 8).masks[0]
    assert object_[:, :4].all() and not object_[:, 4:].any()
    (tmp_path / "mask.tif").write_bytes(tiff(halves(0, 255, "<i4"), 32, form=2))
    with pytest.raises(DataError, match=r"mask .*mask\.tif has pixels of kind I: save it as a black and white PNG"):
        read_pair(tmp_path / "cat.png", tmp_path / "mask.tif", 8)


def test_colours_of_sixteen_bits_in_planes_are_refused_since_pillow_misreads_them():
    planes = np.zeros((3, 8, 8), "<u2")
    planes[0, :, :4], planes[2, :, 4:] = 0x1234, 0x1234
    with pytest.raises(DataError, match=r"gdal\.tif has colours of 16 bits in planes .*save it as PNG"):
        read_picture(tiff(planes, 16, shades=2, t284=(3, 2)), name="gdal.tif")
    assert sides(tiff((planes >> 8).astype("u1") * 14, 8, shades=2, t284=(3, 2))) == [[252, 0, 0], [0, 0, 252]]


# ---- metadata of a JPEG, and reasons ----


def jpeg() -> bytes:
    image = Image.new("RGB", (64, 48), tuple(RED))
    image.paste(tuple(BLUE), (32, 0, 64, 48))
    exif, buffer = Image.Exif(), io.BytesIO()
    exif[0x0112] = 6
    image.save(buffer, "JPEG", quality=95, exif=exif)
    return buffer.getvalue()


@pytest.mark.parametrize(
    ("number", "content"),
    [
        (0xE0, b"JFIF\0"),
        (0xE2, b"ICC_PROFILE\0"),
        (0xED, b"Photoshop 3.0\x008BIM\x04\x04"),
        (0xEE, b"Adobe\0"),
        (0xE2, b"MPF\0II*\0\xff\xff"),
    ],
    ids=["jfif", "icc", "photoshop", "adobe", "mpf"],
)
def test_metadata_of_a_jpeg_take_nothing_from_its_pixels(number, content, tmp_path):
    good = jpeg()
    odd = good[:2] + struct.pack(">BBH", 0xFF, number, len(content) + 2) + content + good[2:]
    assert torch.equal(read_picture(odd), read_picture(good))
    (tmp_path / "odd.jpg").write_bytes(odd)
    assert picture_size(tmp_path / "odd.jpg") == (64, 48)


def test_pixels_of_a_jpeg_that_are_cut_off_stay_so():
    odd = jpeg()
    odd = odd[:2] + b"\xff\xe0\0\7JFIF\0" + odd[2 : len(odd) // 2]
    with pytest.raises(DataError, match="is damaged"):
        read_picture(odd)


def test_a_picture_of_a_kind_that_pillow_does_not_know_is_not_called_damaged_alone():
    start = jpeg().find(b"\xff\xc0")
    twelve = jpeg()[: start + 4] + b"\x0c" + jpeg()[start + 5 :]
    for blob, reason in (
        (tiff(halves(0, 1, "<f8"), 64, form=3), "unknown pixel mode"),
        (twelve, "cannot handle 12-bit layers"),
    ):
        with pytest.raises(DataError, match=rf"or of a kind that this Pillow does not know \({reason}\)$"):
            read_picture(blob)


@pytest.mark.parametrize(
    ("head", "what"),
    [
        (b"\0\0\0\x0cjP  \r\n\x87\n", "a JPEG 2000 picture"),
        (b"\xff\x0a\0\0", "a JPEG XL picture"),
        (b"\0\0\0\x18ftypheim", "an HEIC picture"),
        (b"\0\0\0\x18ftypcrx ", "a raw picture"),
        (b"\0\0\0\x18ftypisom", "a film"),
        (b"\x93NUMPY\1\0v\0", "an array of NumPy's"),
    ],
)
def test_pictures_of_formats_that_are_not_read_are_called_by_name(head, what):
    with pytest.raises(DataError, match=f"no picture that can be read, it is {what}"):
        read_picture(head)
