"""The wait for openQA's cache service, asked from a service that is played."""

from __future__ import annotations

import json
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from socketserver import UnixStreamServer

from tests.userdata import machine

SCRIPT = machine.REPOSITORY / "userdata/roles/fleet/bin/await-cache.sh"


@contextmanager
def cache_service(folder: Path, answers: list[dict[str, int] | None]) -> Iterator[str]:
    """A cache service that gives one answer after the other, errors among them, and repeats the last."""

    class Service(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            answer = answers[0] if len(answers) == 1 else answers.pop(0)
            self.send_response(500 if answer is None else 200)
            self.end_headers()
            self.wfile.write(json.dumps(answer, separators=(",", ":")).encode())

        def log_message(self, *_: object) -> None:
            pass

    with UnixStreamServer(str(folder / "socket"), Service) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield str(folder / "socket")
        server.shutdown()


def wait(*words: str) -> int:
    return subprocess.run(["bash", SCRIPT, *words], timeout=30, check=False).returncode


def test_it_waits_for_an_answer(tmp_path: Path) -> None:
    answers: list[dict[str, int] | None] = [None, {"active_workers": 0, "workers": 0}]
    with cache_service(tmp_path, answers) as socket:
        assert wait(socket) == 0
    assert len(answers) == 1


def test_it_waits_for_the_minion(tmp_path: Path) -> None:
    idle = {"active_workers": 0, "workers": 0}
    answers: list[dict[str, int] | None] = [None, idle, idle, {"active_workers": 0, "workers": 1}]
    with cache_service(tmp_path, answers) as socket:
        assert wait(socket, "minion") == 0
    assert len(answers) == 1
