"""Whether the files that a build fetches are others than they were, by what a real server says of them."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from userdata.messages import sources
from userdata.messages.openqa import UnavailableError

MONDAY = "Mon, 02 Mar 2026 10:00:00 GMT"
NO_HTTP, SILENCE = 1, 2  # instead of a status


class Server(ThreadingHTTPServer):
    """A server of files: by path, the headers that it answers with, or a status."""

    files: dict[str, dict[str, str] | int]


class Handler(BaseHTTPRequestHandler):
    """Answers HEAD, and nothing else."""

    server: Server

    def do_HEAD(self) -> None:
        found = self.server.files.get(self.path, 404)
        if found == NO_HTTP:
            self.wfile.write(b"no HTTP\r\n")
            return
        if found == SILENCE:
            time.sleep(0.5)
            return
        self.send_response(found if isinstance(found, int) else 302 if "Location" in found else 200)
        for name, value in ({} if isinstance(found, int) else found).items():
            self.send_header(name, value)
        self.end_headers()

    def log_message(self, format: str, *args: object) -> None:
        """Says nothing."""


@pytest.fixture
def server() -> Iterator[Server]:
    with Server(("127.0.0.1", 0), Handler) as made:
        made.files = {"/a.iso": {"Last-Modified": MONDAY, "Content-Length": "9"}}
        thread = threading.Thread(target=made.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield made
        made.shutdown()
        thread.join()


def address(server: Server, path: str = "/a.iso") -> str:
    return f"http://127.0.0.1:{server.server_port}{path}"


def test_the_same_files_have_the_same_stamp(server: Server) -> None:
    first = sources.stamp({"ISO_URL": address(server), "ISO": "1.iso"})
    assert first
    assert sources.stamp({"ISO_URL": address(server), "ISO": "2.iso"}) == first


@pytest.mark.parametrize(
    "headers",
    [
        {"Last-Modified": MONDAY, "Content-Length": "10"},
        {"Last-Modified": MONDAY.replace("10:", "11:"), "Content-Length": "9"},
        {"ETag": '"9"', "Content-Length": "9"},
    ],
)
def test_other_files_have_others(server: Server, headers: dict[str, str]) -> None:
    first = sources.stamp({"ISO_URL": address(server)})
    server.files["/a.iso"] = headers
    assert sources.stamp({"ISO_URL": address(server)}) not in (first, None)


def test_all_files_count(server: Server) -> None:
    server.files["/b.img"] = {"ETag": '"1"'}
    parameters = {"ISO_URL": address(server), "HDD_1_DECOMPRESS_URL": address(server, "/b.img")}
    first = sources.stamp(parameters)
    server.files["/b.img"] = {"ETag": '"2"'}
    assert sources.stamp(parameters) != first


def test_what_openqa_does_not_fetch_does_not_count(server: Server) -> None:
    with_others = {"ISO_URL": address(server), "UPDATE_URL": address(server, "/none")}
    assert sources.stamp(with_others) == sources.stamp({"ISO_URL": address(server)})


def test_a_mirror_is_followed(server: Server) -> None:
    server.files["/latest.iso"] = {"Location": address(server)}
    assert sources.stamp({"ISO_URL": address(server, "/latest.iso")}) == sources.stamp(
        {"ISO_URL": address(server)}
    )


def test_who_does_not_say_when_has_no_stamp(server: Server) -> None:
    server.files["/a.iso"] = {"Content-Length": "9"}
    assert sources.stamp({"ISO_URL": address(server)}) is None


@pytest.mark.parametrize(
    ("status", "words"), [(404, "HTTP 404"), (503, "HTTP 503"), (NO_HTTP, "no HTTP"), (SILENCE, "timed out")]
)
def test_a_file_that_is_not_to_be_had(
    server: Server, monkeypatch: pytest.MonkeyPatch, status: int, words: str
) -> None:
    monkeypatch.setattr(sources, "_SECONDS", 0.2)
    server.files["/a.iso"] = status
    with pytest.raises(UnavailableError, match=rf"^HEAD http://\S+/a.iso: {words}\s*$"):
        sources.stamp({"ISO_URL": address(server)})


def test_a_server_that_is_away(server: Server) -> None:
    url = address(server)
    server.server_close()
    with pytest.raises(UnavailableError, match=r"^HEAD http://\S+: "):
        sources.stamp({"ISO_URL": url})


def test_an_address_that_is_none() -> None:
    with pytest.raises(UnavailableError, match=r"^HEAD http://\[none: "):
        sources.stamp({"ISO_URL": "http://[none"})
