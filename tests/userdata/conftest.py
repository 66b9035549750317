"""What the tests of the hosts share."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from moto import mock_aws

from tests.prerequisites import missing
from tests.userdata import machine
from tests.userdata.answers import Handler, Server
from userdata.host import postgres_tls


@pytest.fixture
def tmp_path(open_path: Path) -> Path:
    """A folder for a host's files that all of its users may enter."""
    return open_path


@pytest.fixture
def elsewhere(tmp_path: Path) -> Path:
    """A folder that only root may enter, for links to lead to."""
    if os.geteuid() != 0:
        missing("only root can act as other users")
    made = tmp_path / "elsewhere"
    made.mkdir(mode=0o700)
    (made / "kept").write_text("root's")
    return made


@pytest.fixture(autouse=True)
def credentials(monkeypatch: pytest.MonkeyPatch) -> None:
    """No test reaches the real AWS."""
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "testing")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "testing")
    monkeypatch.delenv("AWS_ENDPOINT_URL", raising=False)


@pytest.fixture(autouse=True)
def database(monkeypatch: pytest.MonkeyPatch) -> None:
    """The database presents a certificate of whatever authority it publishes."""
    monkeypatch.setattr(postgres_tls, "trusted", lambda ca, *, host: True)


@pytest.fixture
def aws() -> Iterator[None]:
    """An AWS account of the test's own."""
    with mock_aws():
        yield


@pytest.fixture
def programs(monkeypatch: pytest.MonkeyPatch) -> machine.Programs:
    """The programs that the host runs."""
    made = machine.Programs()
    machine.install(made, monkeypatch)
    return made


@pytest.fixture
def server() -> Iterator[Server]:
    """An HTTP server that answers what a test says."""
    with Server(("127.0.0.1", 0), Handler) as made:
        made.answers, made.asked = [], []
        threading.Thread(target=made.serve_forever, args=(0.01,), daemon=True).start()
        yield made
        made.shutdown()
