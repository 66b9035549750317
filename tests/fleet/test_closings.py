"""Which workers take no jobs: written by the controller, read by hosts over HTTP."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from functools import partial
from http.server import BaseHTTPRequestHandler, SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fleet import closings
from fleet.closings import PATH, STALE_SECONDS, Told
from tests.fleet.test_openqa_api import serving

NOW = 1_000_000.0


class Quiet(SimpleHTTPRequestHandler):
    def log_message(self, format: str, *args: object) -> None:
        """Say nothing."""


@pytest.fixture
def file(tmp_path: Path) -> Path:
    made = tmp_path / PATH.lstrip("/")
    made.parent.mkdir()
    return made


@pytest.fixture
def url(tmp_path: Path) -> Iterator[str]:
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(tmp_path))) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}/"
        server.shutdown()
        thread.join()


@given(
    told=st.dictionaries(
        st.from_regex(r"i-[0-9a-f]{8}", fullmatch=True), st.frozensets(st.integers(1, 60), min_size=1)
    )
)
def test_what_is_written_is_read(
    told: dict[str, frozenset[int]], tmp_path_factory: pytest.TempPathFactory
) -> None:
    file = tmp_path_factory.mktemp("fleet") / "closings.json"
    closings.write(file, told, at=NOW)
    assert closings.parse(file.read_bytes()) == (NOW, told)
    assert closings.read(file) == told
    assert [path.name for path in file.parent.iterdir()] == ["closings.json"]


@pytest.mark.parametrize(
    "text",
    [
        "",
        "7",
        "[]",
        "{}",
        '{"at": 1}',
        '{"at": "now", "closed": {}}',
        '{"at": 1, "closed": []}',
        '{"at": 1, "closed": {"i-1": "x"}}',
        "[" * 100_000,
        '{"at": 1, "closed": {"i-1": [Infinity]}}',
    ],
)
def test_what_makes_no_sense_closes_nothing(text: str, file: Path, url: str) -> None:
    file.write_text(text)
    with pytest.raises(ValueError):
        closings.parse(text)
    assert closings.read(file) == {}
    assert Told(url, "i-1", clock=lambda: 1.0)() == frozenset()


def test_before_anything_was_told_nothing_is_closed(file: Path) -> None:
    assert closings.read(file) == {}


def test_a_web_ui_that_speaks_no_http_closes_nothing() -> None:
    def respond(handler: BaseHTTPRequestHandler) -> None:
        handler.wfile.write(b"nonsense\r\n\r\n")

    with serving(respond) as url:
        assert Told(url, "i-1", clock=lambda: 1.0)() == frozenset()


def test_a_web_ui_that_is_silent_holds_up_no_agent(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(closings, "_SILENCE", 0.1)
    began = time.monotonic()
    with serving(lambda handler: time.sleep(2)) as url:
        assert Told(url, "i-1", clock=lambda: 1.0)() == frozenset()
    assert time.monotonic() - began < 1


def test_a_host_is_told_of_its_own_workers(file: Path, url: str) -> None:
    closings.write(file, {"i-1": {2, 3}, "i-2": set()}, at=NOW)
    assert Told(url, "i-1", clock=lambda: NOW + 5)() == {2, 3}
    assert Told(url, "i-2", clock=lambda: NOW + 5)() == frozenset()


def test_what_was_told_counts_for_a_minute(file: Path, url: str) -> None:
    now = NOW
    told = Told(url, "i-1", clock=lambda: now)
    assert told() == frozenset(), "nobody has written anything yet"
    closings.write(file, {"i-1": {1}}, at=NOW)
    assert told() == {1}
    file.unlink()
    now = NOW + STALE_SECONDS
    assert told() == {1}, "the web UI does not answer just now"
    now += 1
    assert told() == frozenset()
    for at in (NOW, now + STALE_SECONDS + 1):
        closings.write(file, {"i-1": {1}}, at=at)
        assert told() == frozenset(), "the controller is not there, or its clock is wrong"
