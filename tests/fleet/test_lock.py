"""The lock: taken, refused, lost, taken again."""

from __future__ import annotations

import logging
import re
import sys
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from fleet import lock
from fleet.lock import KEY, Lock


@dataclass
class Server:
    """A PostgreSQL that knows advisory locks and nothing else."""

    owner: Session | None = None
    away: bool = False

    def connect(self) -> Session:
        if self.away:
            raise OSError("connection refused\nIs the server running?")
        return Session(self)


@dataclass(eq=False)
class Session:
    """A session; also its own cursor."""

    server: Server
    broken: bool = False
    said: list[str] = field(default_factory=list)
    answer: bool = False

    def cursor(self) -> Session:
        return self

    def __enter__(self) -> Session:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def execute(self, statement: str) -> None:
        if self.broken or self.server.away:
            raise OSError("terminating connection")
        self.said.append(statement)
        if "pg_try_advisory_lock" in statement:
            assert f"({KEY})" in statement
            self.answer = self.server.owner in (None, self)
            if self.answer:
                self.server.owner = self
        else:
            self.answer = True

    def fetchone(self) -> tuple[Any, ...]:
        return (self.answer,)

    def close(self) -> None:
        if self.server.owner is self:
            self.server.owner = None


def test_one_of_two_holds_it_until_it_is_gone() -> None:
    server = Server()
    first, second = Lock(server.connect), Lock(server.connect)
    assert first.hold()
    assert not second.hold()
    assert first.hold()
    first.release()
    assert second.hold()
    assert not first.hold()


def test_a_session_that_is_lost_is_found_out_and_taken_anew() -> None:
    server = Server()
    lock = Lock(server.connect)
    assert lock.hold()
    assert server.owner is not None
    server.owner.broken = True
    assert not lock.hold()
    assert lock.hold()


def test_a_lock_that_another_took_meanwhile_is_not_held() -> None:
    server = Server()
    lock, other = Lock(server.connect), Lock(server.connect)
    assert lock.hold()
    assert server.owner is not None
    server.owner.broken = True
    server.owner = None
    assert other.hold()
    assert not lock.hold()
    assert not lock.hold()


def test_it_is_asked_for_once_and_then_only_whether_the_session_lives() -> None:
    server = Server()
    lock = Lock(server.connect)
    lock.hold()
    lock.hold()
    assert server.owner is not None
    assert ["lock" in statement for statement in server.owner.said] == [True, False]


def test_who_holds_it_is_said_when_that_changes(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    server = Server()
    first, second = Lock(server.connect), Lock(server.connect)
    first.hold()
    second.hold()
    second.hold()
    first.release()
    second.hold()
    assert caplog.messages == [
        "the lock is held",
        "another controller holds the lock",
        "the lock is held",
    ]


def test_a_session_that_cannot_even_be_closed_is_left_behind(monkeypatch: pytest.MonkeyPatch) -> None:
    def close(self: Session) -> None:
        raise OSError("connection already closed")

    server = Server()
    lock = Lock(server.connect)
    assert lock.hold()
    monkeypatch.setattr(Session, "close", close)
    lock.release()
    server.owner = None  # it no longer hears of the session
    assert lock.hold()


def test_a_session_is_only_with_a_database_that_proves_who_it_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: dict[str, Any] = {}
    session = SimpleNamespace(autocommit=False)
    psycopg2 = SimpleNamespace(connect=lambda **words: asked.update(words) or session)
    monkeypatch.setitem(sys.modules, "psycopg2", psycopg2)
    (tmp_path / "password").write_text("secret\n")
    made = lock.connect(
        host="db.internal", password=tmp_path / "password", certificate=tmp_path / "certificate"
    )
    assert (asked["host"], asked["sslmode"]) == ("db.internal", "verify-full")
    assert (asked["password"], asked["sslrootcert"]) == ("secret", str(tmp_path / "certificate"))
    assert (asked["dbname"], asked["user"]) == ("openqa", "openqa")
    assert made.autocommit, "or the session would be one transaction without end"
    # Else a session of a host that died would hold the lock for hours.
    assert asked["options"] == lock._SERVER
    assert asked.items() >= lock._CLIENT.items()


def test_a_session_that_died_is_given_up_within_half_a_minute_at_both_ends() -> None:
    client, server = lock._CLIENT, dict(re.findall(r"-c (\w+)=(\d+)", lock._SERVER))
    for idle, interval, count in (
        [client[f"keepalives_{what}"] for what in ("idle", "interval", "count")],
        [int(server[f"tcp_keepalives_{what}"]) for what in ("idle", "interval", "count")],
    ):
        assert idle + interval * count <= 30
    assert {client["tcp_user_timeout"], int(server["tcp_user_timeout"])} == {15_000}


def test_a_database_that_is_away_is_said_once(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    server = Server(away=True)
    lock = Lock(server.connect)
    assert not any(lock.hold() for _ in range(5))
    assert caplog.messages == ["the lock cannot be taken: connection refused Is the server running?"]
    server.away = False
    assert lock.hold()
