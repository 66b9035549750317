"""Whether a PostgreSQL server presents a certificate signed by a given authority."""

from __future__ import annotations

import socket
import ssl
import struct

PORT = 5432
_SECONDS = 5
# The request for TLS: its length and its code, src/include/libpq/pqcomm.h.
_REQUEST = struct.pack("!ii", 8, (1234 << 16) | 5679)


def trusted(ca: str, *, host: str, port: int = PORT) -> bool:
    """Performs a TLS handshake with a server and verifies its name and certificate.

    Args:
        ca: the authority's certificate, PEM.
        host: the server's name.
        port: where it listens.

    Returns:
        Whether it answers and is the right one.
    """
    try:
        context = ssl.create_default_context(cadata=ca)
        with socket.create_connection((host, port), timeout=_SECONDS) as plain:
            plain.sendall(_REQUEST)
            if plain.recv(1) != b"S":
                return False
            with context.wrap_socket(plain, server_hostname=host):
                return True
    except (OSError, ValueError):
        # ssl.SSLError is an OSError.
        return False
