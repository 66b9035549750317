"""A small WebSocket client (RFC 6455): text messages without extensions, as openQA's developer mode sends."""

from __future__ import annotations

import base64
import json
import os
import socket
import ssl
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO
from urllib.parse import urlsplit

_TEXT, _PONG = 1, 10


class RefusedError(Exception):
    """The server did not switch to WebSocket; the text is its status line."""


class WebSocket:
    """An open connection."""

    def __init__(self, connection: ssl.SSLSocket, incoming: BinaryIO) -> None:
        self._connection = connection
        self._incoming = incoming

    def send(self, message: Any) -> None:
        """Sends a message as JSON."""
        self._send(_TEXT, json.dumps(message).encode())

    def messages(self) -> Iterator[Any]:
        """The messages as they come, parsed, until the server closes; TimeoutError where none comes."""
        while True:
            first, second = self._read(2)
            assert first & 0x80, "no message of this server comes in parts"
            length = second & 0x7F
            if length >= 126:
                length = int.from_bytes(self._read(2 if length == 126 else 8), "big")
            payload = self._read(length)
            match first & 0x0F:
                case 1:
                    yield json.loads(payload)
                case 8:
                    return
                case 9:
                    self._send(_PONG, payload)

    def _send(self, kind: int, payload: bytes) -> None:
        assert len(payload) < 126
        mask = os.urandom(4)
        masked = bytes(byte ^ mask[i % 4] for i, byte in enumerate(payload))
        self._connection.sendall(bytes([0x80 | kind, 0x80 | len(payload)]) + mask + masked)

    def _read(self, length: int) -> bytes:
        data = self._incoming.read(length)
        if len(data) < length:
            raise ConnectionError("the server ended the connection within a message")
        return data


@contextmanager
def connect(url: str, *, authority: Path, cookie: str = "", seconds: float = 60) -> Iterator[WebSocket]:
    """Opens a connection for a block.

    Args:
        url: an https:// address.
        authority: the certificate that the server's must be signed by.
        cookie: the header ``Cookie``.
        seconds: how long to wait for each message.

    Raises:
        RefusedError: the server answers something else.
    """
    parts = urlsplit(url)
    assert parts.hostname and parts.port
    context = ssl.create_default_context(cafile=str(authority))
    with (
        socket.create_connection((parts.hostname, parts.port), timeout=seconds) as plain,
        context.wrap_socket(plain, server_hostname=parts.hostname) as connection,
        connection.makefile("rb") as incoming,
    ):
        lines = [
            f"GET {parts.path} HTTP/1.1",
            f"Host: {parts.netloc}",
            "Upgrade: websocket",
            "Connection: Upgrade",
            f"Sec-WebSocket-Key: {base64.b64encode(os.urandom(16)).decode()}",
            "Sec-WebSocket-Version: 13",
            *([f"Cookie: {cookie}"] if cookie else []),
        ]
        connection.sendall("\r\n".join([*lines, "", ""]).encode())
        status = incoming.readline().decode().strip()
        if " 101 " not in status:
            raise RefusedError(status)
        while incoming.readline().strip():
            pass
        yield WebSocket(connection, incoming)
