"""What is told of openQA's background jobs; test_content.py of the local cloud has the query at work."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.userdata import machine
from userdata.host import minion, openqa_database


def test_background_jobs_are_told(
    tmp_path: Path, aws: None, programs: machine.Programs, monkeypatch: pytest.MonkeyPatch
) -> None:
    host = machine.host(tmp_path, "webui")
    monkeypatch.setattr(openqa_database, "run", programs.run)
    programs.answers["podman exec --interactive"] = "3\t61.25\n"
    minion.tell(host)
    assert machine.told(host) == {"MinionFailed": 3.0, "MinionWaitSeconds": 61.25}
