"""The web UI's port on this machine: passes connections on to the load balancer in the cloud's network."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import threading
from collections.abc import Callable
from ipaddress import IPv4Address

from localcloud.addresses import OPERATOR
from localcloud.aws.ports import LoadBalancer

_CHUNK = 1 << 16


def entrance(balancers: tuple[LoadBalancer, ...]) -> tuple[IPv4Address, int] | None:
    """Where a browser is led: to HTTPS of the first balancer that has it; None while none has.

    Args:
        balancers: All load balancers.
    """
    for balancer in balancers:
        for listener in balancer.listeners:
            if listener.protocol == "HTTPS" and balancer.addresses:
                return balancer.addresses[0], listener.port
    return None


def serve(listener: socket.socket, target: Callable[[], tuple[IPv4Address, int] | None]) -> None:
    """Pass connections on, in a thread of this process.

    Args:
        listener: A listening socket, in any network namespace.
        target: Returns where a new connection goes; None closes it.
    """

    async def connection(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError), contextlib.closing(writer):
            if (where := target()) is None:
                return
            there = await asyncio.open_connection(str(where[0]), where[1], local_addr=(str(OPERATOR), 0))
            with contextlib.closing(there[1]):
                await asyncio.gather(_copy(reader, there[1]), _copy(there[0], writer))

    async def run() -> None:
        server = await asyncio.start_server(connection, sock=listener)
        await server.serve_forever()

    threading.Thread(target=lambda: asyncio.run(run()), daemon=True, name="web-ui").start()


async def _copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while data := await reader.read(_CHUNK):
        writer.write(data)
        await writer.drain()
    writer.write_eof()
