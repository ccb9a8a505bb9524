"""Reading anybody's picture."""

import io

import numpy as np
import pytest
import torch
from PIL import Image

from attnet.base.errors import DataError
from attnet.data.pictures import read_picture

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
    ],
    ids=["16 bit", "grey", "float", "cmyk", "point"],
)
def test_other_kinds_of_pixels_keep_their_brightness(image):
    blob = bytes_of(image, "TIFF")
    assert read_picture(blob, 21)[:, 10, 10].tolist() == pytest.approx([128] * 3, abs=2)


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
        (text, "no picture that can be read; PNG, JPEG"),
        (program, "no picture that can be read"),
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
