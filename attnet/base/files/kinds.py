"""What a file is by its bytes, whatever it is called."""

from __future__ import annotations

SEEN = 512  # first bytes that are looked at, at most
# Those that somebody asks about; a kind is the words that name it.
EMPTY, TEXT, NUMPY, HDF5 = "empty", "a text", "an array of NumPy's", "an HDF5 file"
ZIP, GZIP, XZ, BZIP2 = "a ZIP archive", "a gzip archive", "an xz archive", "a bzip2 archive"
SEVEN, RAR, TAR = "a 7z archive", "a RAR archive", "a tar archive"
ARCHIVES = (ZIP, GZIP, XZ, BZIP2, SEVEN, RAR, TAR)
# Where the bytes stand, which, and what has them.
_MARKS = (
    *((8, mark, "an HEIC picture") for mark in (b"hei", b"hev", b"mif1", b"msf1")),
    (4, b"ftypcrx ", "a raw picture of a Canon camera"),
    (4, b"ftyp", "a film"),
    (4, b"jP  ", "a JPEG 2000 picture"),
    *((place, mark, "a JPEG XL picture") for place, mark in ((4, b"JXL "), (0, b"\xff\x0a"))),
    (0, b"%PDF", "a PDF document"),
    (0, b"%!PS", "a PostScript program"),
    (0, b"8BPS", "a Photoshop document"),
    (0, b"PK\x03\x04", ZIP),
    (0, b"\x1f\x8b", GZIP),
    (0, b"\xfd7zXZ\0", XZ),
    (0, b"BZh", BZIP2),
    (0, b"7z\xbc\xaf\x27\x1c", SEVEN),
    (0, b"Rar!\x1a", RAR),
    (0, b"\x93NUMPY", NUMPY),
    (0, b"\x89HDF\r\n", HDF5),
    (0, b"MATLAB 5.0", "a file of MATLAB's"),
    (257, b"ustar", TAR),
    (0, b"version https://git-lfs", "a Git LFS pointer (`git lfs pull` fetches what it stands for)"),
)


def kind_of(head: bytes) -> str:
    """What a file is, by its first bytes; "" where nobody can tell.

    Args:
        head: SEEN of them, or all that there are.
    """
    if not head:
        return EMPTY
    for place, mark, what in _MARKS:
        if head.startswith(mark, place):
            return what
    text = head.decode("utf-8", "ignore").lstrip("\ufeff \r\n\t").lower()
    if text.startswith(("<!doctype html", "<html")):
        return "a web page, such as comes in place of a file that is gone or wants a login"
    if text.startswith(("<svg", "<?xml")):
        return "an XML or SVG text"
    return TEXT if "\0" not in text and " ".join(text.split()).isprintable() else ""
