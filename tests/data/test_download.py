"""attnet.data.download against a server on this machine that can be slow to learn ranges, break off, or say no."""

import hashlib
import io
import os
import re
import socket
import sys
import threading
import time
import urllib.request
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from attnet.base.errors import DataError
from attnet.base.files import paths
from attnet.data import cifar, download
from attnet.data.registry import find_dataset

BODY = bytes(range(256)) * 4_000  # about 1 MB
RIGHT = hashlib.sha256(BODY).hexdigest()
FILE = "cifar-10-python.tar.gz"


class Server(ThreadingHTTPServer):
    """Serves `body`; `asked` records the Range header of every request (None: the whole file)."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.body, self.asked = BODY, []
        self.ranges = True  # whether it knows Range
        self.shift = 0  # how far from the byte asked for a range starts
        self.breaks: list[int | None] = []  # for the next requests: how many bytes until the line goes dead
        self.statuses: list[int] = []  # for the next requests: answer with this alone
        self.url = f"http://127.0.0.1:{self.server_port}/{FILE}"

    def handle_error(self, request: object, address: object) -> None:
        pass  # a client that hangs up is part of the plan


class Handler(BaseHTTPRequestHandler):
    server: Server

    def log_message(self, *_: object) -> None:
        pass

    def do_GET(self) -> None:
        server, header = self.server, self.headers.get("Range")
        server.asked.append(header)
        if server.statuses:
            return self.send_error(server.statuses.pop(0))
        start = int(re.fullmatch(r"bytes=(\d+)-", header)[1]) if header and server.ranges else 0
        if start and start >= len(server.body):
            return self.send_error(416)
        if start:
            start += server.shift
            self.send_response(206)
            self.send_header("Content-Range", f"bytes {start}-{len(server.body) - 1}/{len(server.body)}")
        else:
            self.send_response(200)
        self.send_header("Content-Length", str(len(server.body) - start))
        self.end_headers()
        limit = server.breaks.pop(0) if server.breaks else None
        self.wfile.write(server.body[start:] if limit is None else server.body[start : start + limit])


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    for variable in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setitem(download._SHA256, "cifar10", RIGHT)
    monkeypatch.setattr(download, "_PAUSES", (0.0, 0.01, 0.02))
    with Server() as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def fetched(server: Server, dest: Path, asked: list[str | None]) -> None:
    """Downloads, and checks the file, what the server was asked for, and that nothing else is left."""
    path = download.download("cifar10", dest, server.url)
    assert path == dest / FILE and path.read_bytes() == BODY
    assert [entry.name for entry in dest.iterdir()] == [FILE]
    assert server.asked == asked


def refused(dest: Path, url: str | None, *fragments: str) -> None:
    with pytest.raises(DataError) as caught:
        download.download("cifar10", dest, url)
    for fragment in fragments:
        assert fragment in str(caught.value)


def part(dest: Path) -> Path:
    return dest / f"{FILE}.part"


def test_fresh_into_a_new_folder(server: Server, tmp_path: Path) -> None:
    fetched(server, tmp_path / "new" / "folder", [None])


def test_resumed(server: Server, tmp_path: Path) -> None:
    part(tmp_path).write_bytes(BODY[:300_000])
    fetched(server, tmp_path, ["bytes=300000-"])


def test_server_without_ranges_starts_over(server: Server, tmp_path: Path) -> None:
    server.ranges = False
    part(tmp_path).write_bytes(b"x" * 300_000)
    fetched(server, tmp_path, ["bytes=300000-"])


def test_server_that_sends_another_range_is_asked_for_all(server: Server, tmp_path: Path) -> None:
    server.shift = 5
    part(tmp_path).write_bytes(BODY[:300_000])
    fetched(server, tmp_path, ["bytes=300000-", None])


def test_part_longer_than_the_file_starts_over(server: Server, tmp_path: Path) -> None:
    part(tmp_path).write_bytes(BODY + b"of another day")
    fetched(server, tmp_path, [f"bytes={len(BODY) + 14}-", None])


def test_part_that_is_complete_only_gets_its_name(server: Server, tmp_path: Path) -> None:
    part(tmp_path).write_bytes(BODY)
    fetched(server, tmp_path, [])


def test_broken_connection_goes_on_where_it_was(server: Server, tmp_path: Path) -> None:
    server.breaks = [400_000, 100_000]
    fetched(server, tmp_path, [None, "bytes=400000-", "bytes=500000-"])


def test_busy_server_is_asked_again(server: Server, tmp_path: Path) -> None:
    server.statuses = [503, 429]
    fetched(server, tmp_path, [None, None, None])


def test_connection_that_always_breaks(server: Server, tmp_path: Path) -> None:
    server.breaks = [1_000] * 3
    refused(
        tmp_path,
        server.url,
        f"no {FILE}: {server.url} (broke off after 3,000 of 1,024,000 bytes)",
        "what came is kept",
        f"put it, still packed, at {tmp_path / FILE}",
    )
    assert len(server.asked) == 3 and part(tmp_path).read_bytes() == BODY[:3_000]
    server.asked.clear()
    fetched(server, tmp_path, ["bytes=3000-"])


def test_wrong_checksum(server: Server, tmp_path: Path) -> None:
    server.body = BODY[:-1] + b"!"
    wrong = hashlib.sha256(server.body).hexdigest()
    refused(tmp_path, server.url, f"sha256 {wrong}, expected {RIGHT}", "was removed", server.url)
    assert list(tmp_path.iterdir()) == []


def test_not_found_is_not_asked_twice(server: Server, tmp_path: Path) -> None:
    server.statuses = [404] * 3
    refused(tmp_path, server.url, f"{server.url} (HTTP Error 404: Not Found)", "another machine")
    assert len(server.asked) == 1


def test_mirror_when_the_authors_host_fails(server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(download, "_HOSTS", (f"{server.url}?{{file}}", f"{server.url}?{{name}}"))
    server.breaks = [1_000, 1_000, 1_000]
    assert download.download("cifar10", tmp_path).read_bytes() == BODY
    assert server.asked == [None, "bytes=1000-", "bytes=2000-", "bytes=3000-"]


def test_no_network(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def unknown(*_: object, **__: object) -> None:
        raise socket.gaierror(-2, "Name or service not known")

    for variable in [name for name in os.environ if name.lower().endswith("_proxy")]:
        monkeypatch.delenv(variable)
    monkeypatch.setattr(socket, "getaddrinfo", unknown)
    address = f"https://www.cs.toronto.edu/~kriz/{FILE}"
    refused(
        tmp_path,
        None,
        "Name or service not known",
        f"fetch {address} on another machine",
        str(tmp_path / FILE),
    )


def test_a_proxy_that_does_not_answer_is_named_by_its_variable(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for variable in [name for name in os.environ if name.lower() == "no_proxy"]:
        monkeypatch.delenv(variable)
    monkeypatch.setenv("http_proxy", "http://me:secret@127.0.0.1:1")
    monkeypatch.setattr(urllib.request, "_opener", None)  # it has read the variables already
    with pytest.raises(DataError, match=r"refused, asked through the proxy that http_proxy names\)") as error:
        download.download("cifar10", str(tmp_path), server.url)
    assert "secret" not in str(error.value) and server.asked == []
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    assert download.download("cifar10", str(tmp_path), server.url).read_bytes() == BODY


def test_address_that_is_none(tmp_path: Path) -> None:
    refused(tmp_path, "kriz/cifar", "kriz/cifar (unknown url type: 'kriz/cifar')")


def test_already_there(server: Server, tmp_path: Path) -> None:
    (tmp_path / FILE).write_bytes(BODY)
    fetched(server, tmp_path, [])


def test_another_file_of_that_name_is_left_alone(server: Server, tmp_path: Path) -> None:
    (tmp_path / FILE).write_bytes(b"mine")
    refused(tmp_path, server.url, f"{tmp_path / FILE} has sha256", f"expected {RIGHT}; move it away")
    assert (tmp_path / FILE).read_bytes() == b"mine" and server.asked == []


def test_folder_that_cannot_be_written(server: Server, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    refused(tmp_path / "file" / "data", server.url, f"data_path: {tmp_path / 'file' / 'data'} cannot be written")
    assert server.asked == []


def test_unknown_name() -> None:
    with pytest.raises(DataError, match="name: 'mnist' cannot be fetched; known are cifar10, cifar100"):
        download.download("mnist")


def test_data_path_of_a_training_run_is_understood(server: Server, tmp_path: Path) -> None:
    path = download.download("cifar10", tmp_path / "cifar-10-batches-py", server.url)
    assert path == tmp_path / FILE == find_dataset(tmp_path / "cifar-10-batches-py")


def test_relative_folders_mean_the_repository_root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert paths.repository_root() == Path(__file__).resolve().parents[2]
    monkeypatch.setattr(paths, "__file__", str(tmp_path / "site-packages" / "attnet" / "base" / "files" / "paths.py"))
    monkeypatch.chdir(tmp_path)
    assert paths.repository_root() == tmp_path


def test_names_agree_with_the_reader() -> None:
    assert {layout.original: layout.archive for layout in cifar._LAYOUTS.values()} == download._FILES


def test_progress_without_a_terminal(server: Server, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    part(tmp_path).write_bytes(BODY[:300_000])
    fetched(server, tmp_path, ["bytes=300000-"])
    lines = capsys.readouterr().err.splitlines()
    assert lines[-1] == f"{FILE}: 100 % of 1,024,000 bytes"
    assert len(lines) == len(set(lines)) and all(re.fullmatch(rf"{FILE}: \d+0 % of .*", line) for line in lines)


def test_progress_on_a_terminal(server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    monkeypatch.setattr(sys, "stderr", Terminal())
    fetched(server, tmp_path, [None])
    assert "100%" in sys.stderr.getvalue() and " % of" not in sys.stderr.getvalue()


def test_command_line(
    server: Server, tmp_path: Path, capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(paths, "repository_root", lambda: tmp_path)
    download.main(["--url", server.url])
    assert (tmp_path / "data" / FILE).read_bytes() == BODY
    assert f"{tmp_path / 'data' / FILE} is complete" in capsys.readouterr().out
    download.main(["cifar10", "--data_path", str(tmp_path / "other"), "--url", server.url])
    assert (tmp_path / "other" / FILE).read_bytes() == BODY


def test_command_line_errors_are_sentences(
    server: Server, tmp_path: Path, capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    server.statuses = [404]
    assert download.main(["--data_path", str(tmp_path), "--url", server.url]) == 2
    assert re.match(r"attnet: no cifar-10-python.tar.gz: .*404", capsys.readouterr().err.splitlines()[-1])
    with pytest.raises(SystemExit):
        download.main(["mnist"])
    assert "invalid choice: 'mnist'" in capsys.readouterr().err

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(download, "download", interrupt)
    with pytest.raises(SystemExit, match="the same command goes on from here"):
        download.main([])


def test_what_came_in_place_of_the_archive_is_called_what_it_is(server: Server, tmp_path: Path) -> None:
    server.body = b"<!DOCTYPE html><html>please log in"
    refused(tmp_path, server.url, "what came is a web page", "it was removed", server.url)
    server.body = b""
    refused(tmp_path, server.url, "what came is empty")
    assert list(tmp_path.iterdir()) == []


def test_an_endless_answer_ends(server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(download, "_MOST", 300_000)
    refused(tmp_path, server.url, "more than 300,000 bytes, which the archive has not")
    assert part(tmp_path).stat().st_size == 0 and len(server.asked) == 1  # by the length that was announced
    monkeypatch.setattr(Handler, "send_header", lambda *_: None)
    refused(tmp_path, server.url, "more than 300,000 bytes, which the archive has not")
    assert part(tmp_path).stat().st_size <= 300_000 and not (tmp_path / FILE).exists()


def test_nothing_is_written_through_a_link(server: Server, tmp_path: Path) -> None:
    (tmp_path / "precious").write_bytes(b"mine")
    part(tmp_path).symlink_to(tmp_path / "precious")
    refused(tmp_path, server.url, f"{part(tmp_path)} is no plain file")
    assert (tmp_path / "precious").read_bytes() == b"mine"
    part(tmp_path).unlink()
    os.mkfifo(tmp_path / FILE)
    refused(tmp_path, server.url, f"{tmp_path / FILE} is no plain file; move it away")
    assert server.asked == []


def test_a_line_that_drips_is_given_up_and_goes_on_later(server: Server, tmp_path: Path, monkeypatch) -> None:
    pieces = (BODY[:1000], BODY[1000:1001], BODY[1001:1002])

    def drip(handler: Handler) -> None:
        handler.send_response(200)
        handler.send_header("Content-Length", str(len(BODY)))
        handler.end_headers()
        for piece in pieces:
            handler.wfile.write(piece)
            time.sleep(0.2)
        time.sleep(30)  # far longer than anybody should wait for it

    with monkeypatch.context() as slow:
        slow.setattr(Handler, "do_GET", drip)
        slow.setattr(download, "_PATIENCE", 0.1)
        slow.setattr(download, "_SLOWEST", 10**9)
        slow.setattr(download, "_PAUSES", (0.0,))
        refused(tmp_path, server.url, "bytes came in", "what came is kept")
    kept = part(tmp_path).stat().st_size
    assert 0 < kept < len(BODY)
    fetched(server, tmp_path, [f"bytes={kept}-"])
