"""A cloud with two machines, booted once for all tests that want it."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from xdist.scheduler import LoadFileScheduling

from localcloud.cloud import RunningCloud
from tests.localcloud.lab import SERVER, Lab, make_lab, passing_cloud, remove_what_killed_runs_left
from tests.prerequisites import require_machine

# Marks of tests that do not deploy.
QUICK = {"machine", "parametrize", "usefixtures"}


class ByDeployment(LoadFileScheduling):  # type: ignore[misc]  # xdist has no types
    """Keeps a module's tests in one of several processes, and a package's, which share a deployment."""

    def _split_scope(self, nodeid: str) -> str:
        file = Path(nodeid.split("::", 1)[0])
        return str(file.parent if (self.config.rootpath / file.parent / "__init__.py").exists() else file)


def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> ByDeployment:
    return ByDeployment(config, log)


def pytest_sessionstart(session: pytest.Session) -> None:
    """Removes what killed runs left: in one process only, where several run the tests."""
    if not hasattr(session.config, "workerinput") and os.geteuid() == 0:
        remove_what_killed_runs_left()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Puts tests that deploy first, so that the last ones are short."""
    items.sort(key=lambda item: not {mark.name for mark in item.iter_markers()} - QUICK)


@pytest.fixture(scope="session")
def new_cloud() -> Iterator[Callable[[str], RunningCloud]]:
    """Starts clouds for the tests, by a name of the caller's choice; all are gone at the end."""
    require_machine()
    with ExitStack() as clouds:
        yield lambda name: clouds.enter_context(passing_cloud(f"test-{name}-{os.getpid()}"))


@pytest.fixture(scope="session")
def lab(new_cloud: Callable[[str], RunningCloud]) -> Lab:
    """A cloud with a VPC."""
    return make_lab(new_cloud("lab"))


@pytest.fixture(scope="session")
def pair(lab: Lab) -> tuple[str, str]:
    """A booted client and server in the lab; the server has the role ``lab``."""
    client = lab.launch("client", user_data="#!/bin/sh\necho hello from the client >/dev/console\n")
    server = lab.launch("server", user_data=SERVER, IamInstanceProfile={"Name": "lab"})
    for instance in (client, server):
        lab.wait_for_boot(instance)
    return client, server
