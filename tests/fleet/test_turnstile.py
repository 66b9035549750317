"""Assets in turn: whose turn it is, and the relay between real sockets."""

from __future__ import annotations

import asyncio
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fleet import turnstile
from fleet.turnstile import DRIP_BYTES, LARGE_BYTES, PACE, Turns, Turnstile
from tests.fleet.test_closings import Quiet

ROOT = Path(__file__).parents[2]


def test_the_smallest_goes_first() -> None:
    turns: Turns[str] = Turns(1)
    for who, size in (("middle", 2e9), ("large", 3e9), ("small", 1e9)):
        turns.ask(who, size=size, at=0)
    order: list[str] = []
    while len(turns):
        order += turns.grant()
        turns.leave(order[-1])
    assert order == ["small", "middle", "large"]


def test_a_large_one_does_not_wait_for_what_comes_long_after_it() -> None:
    turns: Turns[str] = Turns(1)
    turns.ask("large", size=3e9, at=0)
    turns.ask("small", size=1e9, at=2e9 / PACE + 1)
    assert list(turns.grant()) == ["large"]


def test_of_those_who_ask_for_the_same_at_once_the_first_goes_first() -> None:
    first, second = (asyncio.Event() for _ in range(2))  # which have no order
    turns: Turns[asyncio.Event] = Turns(2)
    turns.ask(first, size=1, at=0)
    turns.ask(second, size=1, at=0)
    assert list(turns.grant()) == [first, second]


def test_who_leaves_the_queue_gets_no_turn() -> None:
    turns: Turns[str] = Turns(1)
    for who in ("first", "second", "third"):
        turns.ask(who, size=1, at=0)
    assert list(turns.grant()) == ["first"]
    turns.leave("second")
    turns.leave("first")
    turns.leave("first")
    assert list(turns.grant()) == ["third"]


@given(sizes=st.lists(st.integers(1, 100), unique=True), gone=st.sets(st.integers(1, 100)))
def test_who_leaves_the_queue_changes_no_order(sizes: list[int], gone: set[int]) -> None:
    turns: Turns[int] = Turns(len(sizes) or 1)
    for size in sizes:
        turns.ask(size, size=size, at=0)
    for size in gone:
        turns.leave(size)
    assert list(turns.grant()) == sorted(set(sizes) - gone)


@given(
    most=st.integers(1, 4),
    steps=st.lists(st.one_of(st.floats(0, 1e10), st.integers(0, 20)), max_size=60),
)
def test_everyone_gets_one_turn_and_never_too_many_at_a_time(most: int, steps: list[float | int]) -> None:
    turns: Turns[int] = Turns(most)
    asked, had, having = 0, set[int](), list[int]()

    def grant() -> None:
        for who in turns.grant():
            assert who not in had
            had.add(who)
            having.append(who)
        assert len(having) <= most

    def leave(place: int) -> None:
        if having:
            turns.leave(having.pop(place % len(having)))
            grant()

    for second, step in enumerate(steps):
        if isinstance(step, float):
            turns.ask(asked, size=step, at=float(second))
            asked += 1
            grant()
        else:
            leave(step)
    while having:
        leave(0)
    assert had == set(range(asked))


LARGE = os.urandom(LARGE_BYTES + 12345)
SMALL = b"small" * 100_000  # more than is read with the head
DRIP_SECONDS, SLOW_SECONDS = 0.05, 0.2

Fetch = Callable[..., socket.socket]


class Server(ThreadingHTTPServer):
    def handle_error(self, request: object, client_address: object) -> None:
        """Say nothing of who goes away."""


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, int]]:
    """An HTTP server with assets."""
    folder = tmp_path_factory.mktemp("assets")
    (folder / "large").write_bytes(LARGE)
    (folder / "small").write_bytes(SMALL)
    handler: Callable[..., SimpleHTTPRequestHandler] = partial(Quiet, directory=str(folder))
    with Server(("127.0.0.1", 0), handler) as made:
        thread = threading.Thread(target=made.serve_forever)
        thread.start()
        yield "127.0.0.1", made.server_port
        made.shutdown()
        thread.join()


@pytest.fixture
def fetch(server: tuple[str, int], tmp_path: Path) -> Iterator[Fetch]:
    """Asks a turnstile that gives one turn at a time."""
    path = str(tmp_path / "sock")
    loop = asyncio.new_event_loop()
    loop.set_debug(True)  # it refuses sockets that block
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(path)
    listener.listen()
    listener.setblocking(False)
    relay = Turnstile(server, turns=Turns(1), drip_seconds=DRIP_SECONDS, slow_seconds=SLOW_SECONDS)

    async def run() -> None:
        await relay.run(listener)

    task = loop.create_task(run())

    def work() -> None:
        with pytest.raises(asyncio.CancelledError):
            loop.run_until_complete(task)

    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    clients: list[socket.socket] = []

    def ask(what: str, method: str = "GET", end: str = "\r\n\r\n") -> socket.socket:
        client = socket.socket(socket.AF_UNIX)
        client.settimeout(20)
        client.connect(path)
        client.sendall(f"{method} /{what} HTTP/1.0{end}".encode())
        clients.append(client)
        return client

    yield ask
    for client in clients:
        client.close()
    loop.call_soon_threadsafe(task.cancel)
    thread.join(20)
    assert not thread.is_alive(), "it is caught in a loop"
    listener.close()
    loop.run_until_complete(loop.shutdown_asyncgens())
    loop.close()


def rest(client: socket.socket) -> bytes:
    """What a client is sent until the end."""
    return b"".join(iter(lambda: client.recv(1 << 20), b""))


def body(answer: bytes) -> bytes:
    """An answer without its head."""
    return answer.partition(b"\r\n\r\n")[2]


def begun(client: socket.socket) -> bytes:
    """What a client is sent first: it has its turn, or waits for it."""
    found = b""
    while b"\r\n\r\n" not in found:
        found += client.recv(1 << 16)
    return found


@pytest.mark.parametrize(("what", "expected"), [("large", LARGE), ("small", SMALL)])
def test_what_is_relayed_is_the_same(fetch: Fetch, what: str, expected: bytes) -> None:
    assert body(rest(fetch(what))) == expected


def test_what_is_not_there_is_said(fetch: Fetch) -> None:
    assert b" 404 " in begun(fetch("nothing")).splitlines()[0]


def test_who_has_no_turn_gets_drips_and_then_all(fetch: Fetch) -> None:
    holder = fetch("large")
    begun(holder)  # and reads no further for now
    waiting = fetch("large")
    found = begun(waiting)
    drips = [waiting.recv(1 << 20) for _ in range(3)]
    assert {len(drip) for drip in drips} == {DRIP_BYTES}
    assert rest(holder)
    assert body(found + b"".join(drips) + rest(waiting)) == LARGE


@pytest.mark.parametrize(("what", "method"), [("small", "GET"), ("nothing", "GET"), ("large", "HEAD")])
def test_what_is_small_needs_no_turn(fetch: Fetch, what: str, method: str) -> None:
    holder = fetch("large")
    begun(holder)
    assert rest(fetch(what, method))
    assert rest(holder)


def test_who_goes_away_before_it_has_asked_holds_up_nobody(fetch: Fetch) -> None:
    fetch("large", end="").close()
    assert body(rest(fetch("small"))) == SMALL


def test_who_never_comes_to_the_end_of_its_request_holds_up_nobody(fetch: Fetch) -> None:
    slow = fetch("large", end="\r\nA: ")
    assert body(rest(fetch("large"))) == LARGE
    slow.sendall(b"b\r\n\r\n")
    assert body(rest(slow)) == LARGE


def test_who_stops_within_its_request_is_not_waited_for(
    fetch: Fetch, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(turnstile, "HEAD_SECONDS", 0.1)
    assert rest(fetch("small", end="\r\nA: ")) == b""


def test_a_request_without_end_is_not_read_for_ever(fetch: Fetch) -> None:
    asking = fetch("small", end="\r\nA: ")
    with pytest.raises((BrokenPipeError, ConnectionResetError)):
        for _ in range(1000):
            asking.sendall(b"b" * (1 << 16))


def test_who_goes_away_leaves_the_turn(fetch: Fetch) -> None:
    holder, waiting, last = (fetch("large") for _ in range(3))
    begun(holder)
    begun(waiting)
    waiting.close()
    holder.close()
    assert body(rest(last)) == LARGE


def test_who_fetches_slowly_keeps_nobody_waiting(fetch: Fetch) -> None:
    holder = fetch("large")
    begun(holder)
    other = fetch("large")
    begun(other)
    done, taken = threading.Event(), list[int]()

    def trickle() -> None:
        while not done.wait(SLOW_SECONDS / 10):
            taken.append(len(holder.recv(1 << 14)))

    thread = threading.Thread(target=trickle)
    thread.start()
    try:
        assert len(rest(other)) > LARGE_BYTES / 2
        assert sum(taken) < LARGE_BYTES / 2, "it has not been waited for"
    finally:
        done.set()
        thread.join()


def test_who_does_not_fetch_slowly_keeps_the_turn(fetch: Fetch, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(turnstile, "SLOW_BYTES", 1)
    holder = fetch("large")
    begun(holder)
    other = fetch("large")
    begun(other)
    until = time.monotonic() + 3 * SLOW_SECONDS
    while time.monotonic() < until:
        assert holder.recv(1 << 14)
        time.sleep(0.01)
    assert len(other.recv(1 << 20)) < 100 * DRIP_BYTES


@pytest.mark.parametrize(
    ("taken", "slow"),
    [
        # By seconds: each time, what a client takes.
        ({0: 30, 9: 30, 10: 1}, []),
        ({0: 10, 10: 1}, [10]),
        ({0: 49, 10: 1}, []),
        ({0: 60, 10: 1, 15: 1, 20: 1}, [20]),
        ({0: 60, 10: 1, 11: 1, 15: 60, 20: 1}, []),
    ],
    ids=[
        "fast, in many pieces",
        "slow",
        "just fast enough",
        "no longer fast",
        "fast again before the time is over",
    ],
)
def test_a_client_is_slow_by_what_it_took_lately(
    monkeypatch: pytest.MonkeyPatch, taken: dict[int, int], slow: list[int]
) -> None:
    monkeypatch.setattr(turnstile, "SLOW_BYTES", 50)
    found: list[float] = []

    async def run() -> None:
        loop, now = asyncio.get_running_loop(), 0.0
        monkeypatch.setattr(loop, "time", lambda: now)
        server, answers = socket.socketpair()
        relay, client = socket.socketpair()
        for end in (server, answers, relay, client):
            end.setblocking(False)
        with server, answers, relay, client:
            pumped = Turnstile(("", 0), turns=Turns())._pump(relay, answers, lambda: found.append(now))
            task = asyncio.create_task(pumped)
            for second, count in taken.items():
                now = float(second)
                for _ in range(count):
                    await loop.sock_sendall(server, b"a")
                    assert await loop.sock_recv(client, 100) == b"a"
            server.close()
            await task

    asyncio.run(run())
    assert found == slow


@pytest.mark.parametrize(
    ("answer", "length"),
    [
        (b"HTTP/1.1 200 OK\r\nContent-Length: 12\r\n\r\n", 12),
        (b"HTTP/1.1 200 OK\r\ncontent-length:12\r\n\r\n", 12),
        (b"HTTP/1.1 200 OK\r\nX-Content-Length: 12\r\n\r\n", 0),
        (b"HTTP/1.1 200 OK\r\n\r\nA list:\r\nContent-Length: 12", 0),
    ],
)
def test_how_long_an_answer_is_its_head_says(answer: bytes, length: int) -> None:
    assert turnstile._length(answer) == length


def test_it_serves_who_connects_to_systemds_socket(server: tuple[str, int], tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as listener, socket.socket(socket.AF_UNIX) as client:
        listener.bind(str(tmp_path / "sock"))
        listener.listen()
        said = f"turnstile.ASSETS, turnstile._FIRST_SOCKET = {server}, {listener.fileno()}"
        process = subprocess.Popen(
            [sys.executable, "-c", f"from fleet import turnstile; {said}; turnstile.main([])"],
            cwd=ROOT,
            env=os.environ | {"LISTEN_FDS": "1"},
            pass_fds=[listener.fileno()],
        )
        with process:
            try:
                client.settimeout(20)
                client.connect(str(tmp_path / "sock"))
                client.sendall(b"GET /small HTTP/1.0\r\n\r\n")
                assert body(rest(client)) == SMALL
            finally:
                process.kill()


def test_without_systemd_it_says_who_starts_it() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "fleet.turnstile"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 1
    assert "openqa-turnstile.socket" in done.stderr
