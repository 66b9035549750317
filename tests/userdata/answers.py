"""An HTTP server that answers what a test says."""

from __future__ import annotations

from collections.abc import Mapping
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import Any

NO_HTTP = 0  # instead of a status


class Server(HTTPServer):
    """Answers what it is told to, and keeps what it is asked."""

    answers: list[tuple[int, bytes]]
    asked: list[tuple[str, Mapping[str, str]]]

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"


class Handler(BaseHTTPRequestHandler):
    """Passes everything to the server."""

    server: Server

    def do_GET(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", 0))).decode()
        self.server.asked.append((f"{self.path} {body}".strip(), dict(self.headers)))
        code, answer = self.server.answers.pop(0)
        if code != NO_HTTP:
            self.send_response(code)
            self.end_headers()
        self.wfile.write(answer)

    do_POST = do_GET  # noqa: N815

    def log_message(self, format: str, *args: Any) -> None:
        pass
