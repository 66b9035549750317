"""Telling a database that presents the published authority's certificate from one that does not."""

from __future__ import annotations

import socket
import ssl
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from userdata.host import certificates
from userdata.host.certificates import Certificates

# The module itself is played in this package's other tests: conftest.py.
from userdata.host.postgres_tls import trusted

REQUEST = b"\x00\x00\x00\x08\x04\xd2\x16\x2f"


def authority(folder: Path) -> Certificates:
    folder.mkdir()
    made = Certificates(folder)
    certificates.ensure(made, name="localhost", address="127.0.0.1", user=0)
    return made


@pytest.fixture
def ours(tmp_path: Path) -> Certificates:
    return authority(tmp_path / "ours")


@pytest.fixture
def port(ours: Certificates, request: pytest.FixtureRequest) -> Iterator[int]:
    """A server that says yes to TLS as PostgreSQL does."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(ours.folder / "server.crt", ours.folder / "server.key")
    with socket.create_server((getattr(request, "param", "127.0.0.1"), 0)) as listening:

        def serve() -> None:
            connection, _ = listening.accept()
            with connection:
                if connection.recv(8) == REQUEST:
                    connection.sendall(b"S")
                    try:
                        context.wrap_socket(connection, server_side=True).close()
                    except OSError:
                        return

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        yield int(listening.getsockname()[1])
        thread.join(5)


def test_the_database_of_the_authority(ours: Certificates, port: int) -> None:
    assert trusted(ours.ca.read_text(), host="localhost", port=port)


def test_an_authority_that_is_gone(tmp_path: Path, port: int) -> None:
    other = authority(tmp_path / "other")
    assert not trusted(other.ca.read_text(), host="localhost", port=port)


@pytest.mark.parametrize("port", ["127.0.0.2"], indirect=True)
def test_another_name(ours: Certificates, port: int) -> None:
    assert not trusted(ours.ca.read_text(), host="127.0.0.2", port=port)


def test_nobody_there(ours: Certificates) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        port = listening.getsockname()[1]
    assert not trusted(ours.ca.read_text(), host="localhost", port=port)
    assert not trusted("no certificate", host="localhost", port=port)
