"""What starts anew, and what becomes of openQA's jobs after a restore, with programs that only take notes."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from unittest.mock import Mock

import pytest

from tests.userdata import machine
from userdata.host import interrupted, openqa_database, progress, ready, reconcile, restart
from userdata.host.content import repository
from userdata.host.errors import HostError
from userdata.host.layout import Layout


def test_assets_whose_files_are_gone(tmp_path: Path) -> None:
    for name in ("iso/a.iso", "iso/fixed/b.iso", "hdd/c.qcow2"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    rows = [
        ["iso", "a.iso", "1"],
        ["iso", "b.iso", "2"],
        ["iso", "c.qcow2", "3"],
        ["hdd", "c.qcow2", "4"],
        ["repo", "none", "5"],
    ]
    assert reconcile.lost_assets(rows, tmp_path) == [3, 5]


def test_results_whose_folders_are_gone(tmp_path: Path) -> None:
    for name in ("testresults/00000/00000007-a", "archive/testresults/00001/00001234-b"):
        (tmp_path / name).mkdir(parents=True)
    rows = [["7", "00000007-a", "f"], ["7", "00000007-a", "t"], ["1234", "00001234-b", "t"]]
    assert reconcile.lost_results(rows, tmp_path) == [7]


def test_what_is_done_in_which_order(
    tmp_path: Path, programs: machine.Programs, monkeypatch: pytest.MonkeyPatch
) -> None:
    host = machine.host(tmp_path, "webui")
    answers = {
        "from assets": "iso\tlost.iso\t1\n",
        "state in": "11\n12\n",
        "clone_id is null": "11\n12\n13\n",
        "state = 'scheduled'": "14\n15\n",
        "state = 'done'": "3\t00000003-a\tf\n",
    }
    said: list[str] = []
    sql: list[str] = []

    def run(arguments: Sequence[str], *, stdin: str | None = None, seconds: float = 300) -> str:
        programs.calls.append(tuple(arguments))
        if stdin is not None:
            sql.append(stdin)
            return next((answer for part, answer in answers.items() if part in stdin), "")
        return '{"result": []}' if "jobs/13/restart" in arguments else '{"result": [1]}'

    def get(url: str) -> str:
        return json.dumps({"job": {"missing_assets": ["iso/lost.iso"] if "/15?" in url else []}})

    monkeypatch.setattr(restart, "run", run)
    monkeypatch.setattr(openqa_database, "run", run)
    monkeypatch.setattr(repository, "run", run)
    monkeypatch.setattr(ready, "get", get)
    monkeypatch.setattr(ready, "check", lambda host: None)
    reconcile.reconcile(host, said.append)
    assert programs.calls[0] == ("systemctl", "restart", "openqa-configure.service")
    assert said[1:] == [
        "1 assets are lost",
        "2 jobs that ran are scheduled again",
        "1 jobs cannot run: their assets are lost",
        "1 finished jobs have lost their results",
    ]
    sent = [
        next(word for word in call if word.startswith("jobs/")) for call in programs.calls if "api" in call
    ]
    assert sent == [
        *("jobs/11/set_done", "jobs/12/set_done"),
        *("jobs/11/restart", "jobs/12/restart", "jobs/13/restart"),
        "jobs/15/set_done",
    ]
    assert any("update assets set size = null where id in (1)" in text for text in sql)
    assert any("where id in (3)" in text and "result = 'incomplete'" in text for text in sql)
    # A worker that was quicker than this.
    quicker = "state = 'done' and result in ('passed', 'softfailed', 'failed')"
    marked = f"reason = '{interrupted.REASON}'"
    assert any(quicker in text and "set result = 'incomplete'" in text and marked in text for text in sql)
    # The key is in a file, and lists of any length are no arguments.
    assert not [call for call in programs.calls if any(secret in " ".join(call) for secret in machine.HIDDEN)]


def test_a_schema_that_is_upgraded_is_waited_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Who ran it again would begin the upgrade again."""
    host = machine.host(tmp_path, "webui")
    waits: list[str] = []
    called: list[list[str]] = []
    upgrading = [True, True, False]

    def wait(what: str, works: Callable[[], object], **_: object) -> None:
        assert works() is None
        waits.append(what)
        raise HostError(f"waited for {what}")

    monkeypatch.setattr(restart, "wait", wait)
    monkeypatch.setattr(restart, "run", lambda arguments, *, seconds=300: called.append(arguments))
    monkeypatch.setattr(ready, "check", Mock(side_effect=[HostError(), OSError(), ValueError()]))
    monkeypatch.setattr(ready, "upgrades", lambda host: upgrading.pop(0))
    said: list[str] = []
    with pytest.raises(HostError, match="waited for the webui to work"):
        restart.restart(host, said.append)
    assert called == [
        ["systemctl", "restart", "openqa-configure.service"],
        ["systemctl", "start", "--no-block", "openqa-on-aws.target"],
    ]
    assert waits == ["the webui to work"] * 3
    assert said[1:] == ["openQA is still upgrading the database's schema"] * 2


def test_progress_is_kept_by_name(tmp_path: Path) -> None:
    layout = Layout(tmp_path)
    heard: list[str] = []
    assert progress.after(layout, "a", 0) == []
    with progress.kept(layout, "a", say=heard.append) as report:
        report("one")
        assert progress.after(layout, "a", 0) == ["one"]
        report("two")
    assert progress.after(layout, "a", 1) == ["two"]
    assert heard == ["one", "two"]
    with progress.kept(layout, None, say=heard.append) as report:
        report("three")
    assert progress.after(layout, "a", 0) == ["one", "two"]
    assert heard[-1] == "three"
