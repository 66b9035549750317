"""Every environment, synthesized once a session."""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING

import pytest

import settings
from tests.templates.synthesis import Synthesized, synthesize

if TYPE_CHECKING:
    from collections.abc import Callable


@pytest.fixture(scope="session")
def synthesized(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Synthesized]:
    """Returns a function that synthesizes an environment by its name, once."""

    @cache
    def once(name: str) -> Synthesized:
        return synthesize(settings.load(name), tmp_path_factory.mktemp(name))

    return once


@pytest.fixture(params=settings.names())
def environment(request: pytest.FixtureRequest, synthesized: Callable[[str], Synthesized]) -> Synthesized:
    """Each environment in turn."""
    return synthesized(request.param)


@pytest.fixture(scope="session")
def local(synthesized: Callable[[str], Synthesized]) -> Synthesized:
    """The environment of one machine."""
    return synthesized("local")


@pytest.fixture(scope="session")
def production(synthesized: Callable[[str], Synthesized]) -> Synthesized:
    """The environment with everything in it."""
    return synthesized("production")


@pytest.fixture(scope="session")
def almalinux(synthesized: Callable[[str], Synthesized]) -> Synthesized:
    """The environment that schedules by the clock."""
    return synthesized("almalinux")


@pytest.fixture(scope="session")
def replicated(tmp_path_factory: pytest.TempPathFactory) -> Synthesized:
    """An environment whose backups are copied elsewhere."""
    asked = settings.load("production")
    backups = asked.backups.model_copy(update={"replicate_to": "arn:aws:s3:::elsewhere"})
    changed = asked.model_copy(update={"backups": backups})
    return synthesize(changed, tmp_path_factory.mktemp("replicated"))
