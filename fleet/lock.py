"""One controller at a time: an advisory lock of openQA's own database, held as long as its session lives.

``pg_try_advisory_lock`` (PostgreSQL's documentation, "Advisory Locks"). The server checks every few seconds
whether the session is alive, and releases the lock if not, so that a host that died blocks nobody for long.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

log = logging.getLogger(__name__)

KEY = 0x6F70656E5141  # "openQA": our own number among advisory locks
_TIMEOUT_MILLISECONDS = 10_000
# Both ends give up a silent session after some 25 s: libpq's and the server's parameters for TCP keepalives.
_CLIENT = {
    "connect_timeout": 5,
    "keepalives_idle": 10,
    "keepalives_interval": 5,
    "keepalives_count": 3,
    "tcp_user_timeout": 15_000,
}
_SERVER = (
    "-c tcp_keepalives_idle=10 -c tcp_keepalives_interval=5 -c tcp_keepalives_count=3 "
    f"-c tcp_user_timeout=15000 -c statement_timeout={_TIMEOUT_MILLISECONDS}"
)


class Lock:
    """The lock, held or not.

    Args:
        connect: Opens a session, in which every statement is a transaction of its own.
    """

    def __init__(self, connect: Callable[[], Any]) -> None:
        self._connect = connect
        self._session: Any = None
        self._held = False
        self._said = ""

    def hold(self) -> bool:
        """Tell whether the lock is held, and take it if it is free.

        The server answers, so a lost session is noticed, and the lock requested again.
        """
        try:
            if self._session is None:
                self._session = self._connect()
            statement = "select true" if self._held else f"select pg_try_advisory_lock({KEY})"
            with self._session.cursor() as cursor:
                cursor.execute(statement)
                self._held = cursor.fetchone()[0] is True
        except Exception as error:  # psycopg2's, which only hosts have, and whatever a broken session raises
            self._say(f"the lock cannot be taken: {' '.join(str(error).split())}")
            self.release()
        else:
            self._say("the lock is held" if self._held else "another controller holds the lock")
        return self._held

    def release(self) -> None:
        """End the session, and with it the lock."""
        session, self._session, self._held = self._session, None, False
        if session is not None:
            try:
                session.close()
            except Exception as error:
                log.debug("%s", error)

    def _say(self, text: str) -> None:
        if text != self._said:
            self._said = text
            log.info("%s", text)


def connect(*, host: str, password: Path, certificate: Path) -> Any:
    """Open a session with openQA's database.

    Args:
        host: Its name, as in its certificate.
        password: The file with the role's password.
        certificate: The file with the CA certificate that signed the database's.
    """
    import psycopg2

    session = psycopg2.connect(
        host=host,
        dbname="openqa",
        user="openqa",
        password=password.read_text(encoding="ascii").strip(),
        sslmode="verify-full",
        sslrootcert=str(certificate),
        application_name="fleet controller",
        options=_SERVER,
        **_CLIENT,
    )
    session.autocommit = True
    return session
