"""Assets in turn: ``python3 -m fleet.turnstile`` on the web UI's host, between its nginx and the files.

When many hosts fetch at the same time, all share the web UI's network, and all wait until everything is sent.
Here a few fetch at a time, at full speed, while the others wait: on average, hosts are done sooner (`Turns`).
A waiting host gets some bytes of its asset now and then: openQA's downloader gives up on a connection that
is silent for 40 seconds (Mojolicious' inactivity timeout), and so notices when the web UI is lost.

It relays one answer per connection, whatever that is; where it does not run, nginx bypasses it.
"""

from __future__ import annotations

import argparse
import asyncio
import logging
import os
import re
import socket
import sys
from collections.abc import Callable, Hashable, Iterator
from heapq import heapify, heappop, heappush
from typing import Generic, TypeVar

log = logging.getLogger(__name__)

ASSETS = ("127.0.0.1", 8081)  # nginx with the files: nginx.conf
TURNS = 6  # hosts that store 125 MB/s, a volume's rate: together they fill a web UI's link of 6 Gbit/s
PACE = 1e6  # bytes a second: see Turns
LARGE_BYTES = 1 << 24  # smaller files need no turn
DRIP_SECONDS = 10.0
DRIP_BYTES = 1 << 10
# A client that gets less than this in this time, for whatever reason, loses its turn. (One that takes nothing
# at all loses its connection: nginx's send_timeout, a minute.)
SLOW_BYTES, SLOW_SECONDS = 50_000_000, 10.0
HEAD_SECONDS = 60.0  # for a whole request: nginx sends only complete ones
_CHUNK_BYTES = 1 << 18
_MOST_HEAD_BYTES = 1 << 16
_FIRST_SOCKET = 3  # where systemd passes a unit's sockets: sd_listen_fds(3)

Who = TypeVar("Who", bound=Hashable)


class Turns(Generic[Who]):
    """Whose turn it is: the smallest first, but none waits for requests that come long after it.

    Serving the smallest first makes the average wait shortest. Each goes before all that come later than its
    size divided by `PACE`: fifty minutes for 3 GB.

    Args:
        most: How many have a turn at the same time.
    """

    def __init__(self, most: int = TURNS) -> None:
        self._most = most
        self._waiting: list[tuple[float, int, Who]] = []
        self._having: set[Who] = set()
        self._asked = 0

    def __len__(self) -> int:
        """Tell how many wait."""
        return len(self._waiting)

    def ask(self, who: Who, *, size: float, at: float) -> None:
        """Ask for a turn.

        Args:
            who: Who wants it; nobody asks twice.
            size: Bytes.
            at: Seconds, by the same clock for all.
        """
        self._asked += 1
        heappush(self._waiting, (at + size / PACE, self._asked, who))

    def grant(self) -> Iterator[Who]:
        """Give turns, while there are any, to those who wait; yields who gets one."""
        while self._waiting and len(self._having) < self._most:
            who = heappop(self._waiting)[2]
            self._having.add(who)
            yield who

    def leave(self, who: Who) -> None:
        """Give up the turn that someone has or waits for, if any."""
        if who in self._having:
            self._having.remove(who)
        else:
            self._waiting = [waiting for waiting in self._waiting if waiting[2] != who]
            heapify(self._waiting)


class Turnstile:
    """Relays the answers of an HTTP server, large ones in turn.

    Args:
        server: Where it listens: host and port.
        turns: Whose turn it is.
        drip_seconds: How often a waiting client gets some bytes.
        slow_seconds: How often to check whether a turn is used.
    """

    def __init__(
        self,
        server: tuple[str, int],
        *,
        turns: Turns[asyncio.Event],
        drip_seconds: float = DRIP_SECONDS,
        slow_seconds: float = SLOW_SECONDS,
    ) -> None:
        self._server = server
        self._turns = turns
        self._drip_seconds = drip_seconds
        self._slow_seconds = slow_seconds
        self._tasks: set[asyncio.Task[None]] = set()

    async def run(self, listener: socket.socket) -> None:
        """Serve all who connect, for ever.

        Args:
            listener: A socket that listens and does not block.
        """
        while True:
            client, _ = await asyncio.get_running_loop().sock_accept(listener)
            task = asyncio.create_task(self._serve(client))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _serve(self, client: socket.socket) -> None:
        with client, socket.socket(socket.AF_INET, socket.SOCK_STREAM) as server:
            server.setblocking(False)
            try:
                await asyncio.get_running_loop().sock_connect(server, self._server)
                await self._relay(client, server)
            except (OSError, ValueError) as error:  # one side has gone, and the other's connection closes
                log.debug("%s", error)

    async def _relay(self, client: socket.socket, server: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        async with asyncio.timeout(HEAD_SECONDS):
            request = await _head(client)
        await loop.sock_sendall(server, request)
        answer = await _head(server)
        await loop.sock_sendall(client, answer)
        size = _length(answer) if request.startswith(b"GET ") else 0
        if size < LARGE_BYTES:
            await self._pump(client, server, lambda: None)
            return
        turn = asyncio.Event()
        asked = loop.time()
        self._turns.ask(turn, size=size, at=asked)
        try:
            self._grant()
            while not turn.is_set():
                try:
                    await asyncio.wait_for(turn.wait(), self._drip_seconds)
                except TimeoutError:
                    await loop.sock_sendall(client, await loop.sock_recv(server, DRIP_BYTES))
            if (waited := loop.time() - asked) >= 1:
                log.info("%.1f GB waited %.0f s; %d more wait", size / 1e9, waited, len(self._turns))
            await self._pump(client, server, lambda: self._leave(turn))
        finally:
            self._leave(turn)

    async def _pump(self, client: socket.socket, server: socket.socket, slow: Callable[[], None]) -> None:
        """Relay the rest; call `slow` whenever that is slow."""
        loop = asyncio.get_running_loop()
        chunk = memoryview(bytearray(_CHUNK_BYTES))
        since, moved = loop.time(), 0
        while count := await loop.sock_recv_into(server, chunk):
            await loop.sock_sendall(client, chunk[:count])
            moved += count
            if loop.time() - since >= self._slow_seconds:
                if moved < SLOW_BYTES:
                    slow()
                since, moved = loop.time(), 0

    def _leave(self, turn: asyncio.Event) -> None:
        self._turns.leave(turn)
        self._grant()

    def _grant(self) -> None:
        for turn in self._turns.grant():
            turn.set()


async def _head(connection: socket.socket) -> bytes:
    """Read up to an empty line, and perhaps beyond."""
    read = b""
    while b"\r\n\r\n" not in read:
        more = await asyncio.get_running_loop().sock_recv(connection, _MOST_HEAD_BYTES)
        if not more or len(read) > _MOST_HEAD_BYTES:
            raise ValueError("this is no HTTP")
        read += more
    return read


def _length(answer: bytes) -> int:
    """The length that an answer states; 0 if it states none."""
    head = answer.partition(b"\r\n\r\n")[0]
    found = re.search(rb"\r\ncontent-length:[ \t]*([0-9]+)", head, re.IGNORECASE)
    return int(found[1]) if found else 0


def main(arguments: list[str] | None = None) -> int:
    """Run until the process is ended; returns the exit code.

    Args:
        arguments: The command line's words; None takes the process's own.
    """
    parser = argparse.ArgumentParser(
        prog="python3 -m fleet.turnstile",
        description="Has worker hosts fetch large assets in turn. openqa-turnstile.socket starts it.",
    )
    parser.parse_args(arguments)
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr)
    if os.environ.get("LISTEN_FDS") != "1":
        log.error("no socket: systemctl start openqa-turnstile.socket starts this with one")
        return 1
    with socket.socket(fileno=_FIRST_SOCKET) as listener:
        listener.setblocking(False)
        asyncio.run(Turnstile(ASSETS, turns=Turns()).run(listener))
    return 0


if __name__ == "__main__":
    sys.exit(main())
