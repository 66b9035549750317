"""Tests that follow a repository: releases, checks, loading, what a failure leaves. Git and HTTP are real."""

from __future__ import annotations

import fcntl
import functools
import json
import os
import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import boto3
import pytest

from tests.userdata import machine
from userdata.host import roles, space
from userdata.host.backup.base import alone
from userdata.host.commands import CommandError
from userdata.host.content import cloudinit, refresh, repository, templates, trees
from userdata.host.errors import HostError
from userdata.host.host import Host

TABLES = json.dumps({"Machines": [{"name": "64bit", "backend": "qemu"}]})

POINTER = "version https://git-lfs.github.com/spec/v1\noid sha256:4d7a214614ab2935\nsize 12345\n"


class Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *_: Any) -> None:
        pass


class OpenQa:
    """What is asked of openQA, and a git repository that it may be about."""

    def __init__(self, folder: Path) -> None:
        self.asked: list[str] = []
        self.refuses = ""
        self.groups: list[dict[str, Any]] = []
        self.machines: list[str] = []
        self.inside = folder / "srv/data/openqa/content"
        self.folder = folder
        self.serve("tests")

    def serve(self, name: str) -> None:
        """Makes an empty repository, which is pushed to from then on."""
        self.tree = self.folder / f"tree-{name}"
        self.bare = self.folder / f"served/{name}.git"
        self._git("init", "--quiet", "--initial-branch=main", str(self.tree))
        self._git("init", "--quiet", "--bare", str(self.bare))

    def push(self, files: dict[str, str], *options: str) -> str:
        for name, text in files.items():
            (self.tree / name).parent.mkdir(parents=True, exist_ok=True)
            (self.tree / name).write_text(text)
        at = ("-C", str(self.tree))
        self._git(*at, "add", "--all")
        self._git(*at, "commit", "--quiet", "--message=push", *options)
        self._git(*at, "push", "--quiet", "--force", str(self.bare), "HEAD:main")
        self._git("-C", str(self.bare), "update-server-info")
        return self._git(*at, "rev-parse", "HEAD")

    def run(
        self, *words: str, user: str = repository.USER, folder: str = repository.INSIDE, seconds: int = 0
    ) -> str:
        """Plays the container: git and find are themselves, and what is for openQA is noted."""
        if words[0] == "find":
            done = subprocess.run(
                words, cwd=self.inside, capture_output=True, text=True, check=True, **_as(user)
            )
            return str(done.stdout)
        if words[0] != "git":
            line = " ".join(words)
            self.asked.append(line)
            if self.refuses and self.refuses in line:
                raise CommandError("podman exec: exit code 1", f"{self.refuses} is refused")
            if "load-templates" in words[0]:
                self.machines = ["64bit"]
            if "job_groups" in words:
                group = {"id": len(self.groups) + 1, "name": words[-1].removeprefix("name=")}
                self.groups.append(group | {"size_limit_gb": None})
            return ""
        there = (word.replace(repository.INSIDE, str(self.inside)) for word in words[1:])
        return self._git(*there, **_as(user))

    def get(self, path: str) -> Any:
        return self.groups if path == "job_groups" else {"Machines": self.machines}

    def loads(self) -> list[str]:
        """What was loaded since the last time that this was asked."""
        found = [line.split()[-1] for line in self.asked if "load-templates" in line]
        self.asked.clear()
        return found

    def _git(self, *words: str, **options: Any) -> str:
        who = ("-c", "user.name=test", "-c", "user.email=test@example.org")
        quiet = {"GIT_CONFIG_GLOBAL": "/dev/null", "GIT_CONFIG_SYSTEM": "/dev/null"}
        done = subprocess.run(
            ["git", *who, *words],
            cwd=self.inside if self.inside.exists() else None,
            env=os.environ | quiet,
            capture_output=True,
            text=True,
            **options,
        )
        if done.returncode:
            raise CommandError(f"git: exit code {done.returncode}", done.stderr.strip())
        return str(done.stdout.strip())


def _as(user: str) -> dict[str, Any]:
    """What subprocess needs to run something as a user, where it may."""
    number, _, group = user.partition(":")
    return {} if os.geteuid() else {"user": int(number), "group": int(group or 0), "extra_groups": []}


@pytest.fixture
def openqa(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> OpenQa:
    made = OpenQa(tmp_path)
    monkeypatch.setattr(repository, "inside", made.run)
    monkeypatch.setattr(templates, "inside", made.run)
    monkeypatch.setattr(templates, "_get", made.get)
    return made


@pytest.fixture
def web(tmp_path: Path) -> Iterator[str]:
    (tmp_path / "served").mkdir(exist_ok=True)
    handler = functools.partial(Quiet, directory=str(tmp_path / "served"))
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}/tests.git"
        server.shutdown()


@pytest.fixture
def host(tmp_path: Path, openqa: OpenQa, web: str, aws: None) -> Host:
    data = machine.read("webui")
    data["webui"]["content"] |= {
        "distri": "pushed",
        "tests": {"address": web, "ref": "main"},
        "loader": "openqa",
        "templates": ["*.json"],
    }
    made = machine.host(tmp_path, data)
    made.layout.runtime.mkdir(parents=True)
    machine.keep_sample(made)
    roles._lay_out(made)
    return made


def follow(host: Host, *, rewritten: bool = False, again: bool = False) -> list[str]:
    said: list[str] = []
    refresh.refresh(host, rewritten=rewritten, again=again, report=said.append)
    return said


def current(host: Host) -> Path:
    return (refresh.folder(host) / "current").resolve()


def figures(host: Host) -> list[str]:
    found = host.client("cloudwatch").list_metrics(Namespace="openQA/test")["Metrics"]
    return sorted({metric["MetricName"] for metric in found})


def test_a_push_is_released_once(host: Host, openqa: OpenQa) -> None:
    commit = openqa.push({"main.pm": "one", "tables.json": TABLES})
    assert follow(host)[0].startswith(f"tests: {commit} of http://")
    assert openqa.loads() == ["tables.json"]
    tests = host.layout.data / "openqa/share/tests"
    assert (tests / "pushed/main.pm").read_text() == "one"
    assert (current(host) / "pushed/main.pm").read_text() == "one"
    assert (current(host) / "sample/main.pm").is_file()
    release = current(host)
    assert follow(host) == ["nothing is new"]
    assert current(host) == release
    assert openqa.loads() == []
    assert figures(host) == ["ContentFailed"]


def test_a_host_that_loses_its_power_leaves_no_release_of_empty_files(
    host: Host, openqa: OpenQa, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The kernel writes names within seconds, what files hold only later."""
    openqa.push({"main.pm": "one", "tables.json": TABLES})
    follow(host)
    old, new = current(host), refresh.folder(host) / "tests/main.pm"
    written: list[tuple[Path, str]] = []
    monkeypatch.setattr(os, "sync", lambda: written.append((current(host), new.read_text())))
    openqa.push({"main.pm": "two"})
    follow(host)
    assert written == [(old, "two")]
    assert current(host) != old


def test_git_writes_what_it_fetches_to_the_disk_at_once(host: Host, openqa: OpenQa, web: str) -> None:
    """Else it finds empty objects after a loss of power, and fetches nothing any more."""
    openqa.push({"main.pm": "one"})
    tests = repository.Repository("tests", web, "main")
    tests.fetch()
    assert tests._git("config", "core.fsync") == "all"


def test_only_changed_templates_are_loaded(host: Host, openqa: OpenQa) -> None:
    openqa.push({"a.json": TABLES, "b.json": TABLES})
    follow(host)
    assert openqa.loads() == ["a.json", "b.json"]
    openqa.push({"b.json": TABLES + " "})
    follow(host)
    assert openqa.loads() == ["b.json"]
    follow(host, again=True)
    assert openqa.loads() == ["a.json", "b.json"]
    openqa.machines = []  # a new database
    follow(host)
    assert openqa.loads() == ["a.json", "b.json"]


def test_templates_may_have_a_repository_of_their_own(tmp_path: Path, host: Host, openqa: OpenQa) -> None:
    openqa.push({"main.pm": "one", "tables.json": TABLES})
    follow(host)
    assert openqa.loads() == ["tables.json"]
    # From now on.
    openqa.serve("templates")
    data = json.loads(host.layout.document.read_text())
    address = data["webui"]["content"]["tests"]["address"].replace("tests.git", "templates.git")
    data["webui"]["content"] |= {
        "templates_repository": {"address": address, "ref": "main"},
        "templates": ["*.json", "groups/*.yaml"],
    }
    other = machine.host(tmp_path, data)
    roles._lay_out(other)
    first = openqa.push({"more.json": TABLES, "groups/one.yaml": "{}"})
    assert first in follow(other)[-1]
    said = [line for line in openqa.asked if "load-templates" in line or "template=" in line]
    assert [line.split()[-1] for line in said] == [
        "more.json",
        f"template={repository.INSIDE}/templates/groups/one.yaml",
    ]
    openqa.asked.clear()
    assert not (current(other) / "pushed/more.json").exists()
    assert follow(other) == ["nothing is new"]
    # What openQA refuses is taken back, there as elsewhere.
    openqa.push({"more.json": TABLES.replace("64bit", "128bit")})
    openqa.refuses = "more.json"
    with pytest.raises(HostError, match=r"more\.json is refused"):
        follow(other)
    assert (refresh.folder(other) / "templates/more.json").read_text() == TABLES


def test_a_repository_of_templates_that_is_refused_leaves_those_of_the_tests(
    tmp_path: Path, host: Host, openqa: OpenQa
) -> None:
    openqa.push({"main.pm": "one", "tables.json": TABLES})
    follow(host)
    openqa.serve("templates")
    data = json.loads(host.layout.document.read_text())
    address = data["webui"]["content"]["tests"]["address"].replace("tests.git", "templates.git")
    data["webui"]["content"] |= {"templates_repository": {"address": address, "ref": "main"}}
    other = machine.host(tmp_path, data)
    roles._lay_out(other)
    openqa.push({"more.json": TABLES, "worse.json": TABLES})
    openqa.loads()
    openqa.refuses = "worse.json"
    with pytest.raises(HostError, match=r"worse\.json is refused"):
        follow(other)
    assert openqa.loads() == ["more.json", "worse.json", "tables.json"]


def test_one_tree_of_tests_may_be_of_several_distributions(
    tmp_path: Path, host: Host, openqa: OpenQa
) -> None:
    """openQA looks for MicroOS's in a folder of that name, and they are openSUSE's."""
    data = json.loads(host.layout.document.read_text())
    data["webui"]["content"]["more_distris"] = ["other"]
    both = machine.host(tmp_path, data)
    shared = host.layout.data / "openqa/share/tests"
    (shared / "other").mkdir()  # of an environment that had tests of that name
    roles._lay_out(both)
    for text in ("one", "two"):
        openqa.push({"main.pm": text, "tables.json": TABLES})
        follow(both)
        assert (shared / "other/main.pm").read_text() == text
        # The second is what rsync gives to workers.
        for place in (shared, current(both)):
            assert (place / "other").readlink() == Path("pushed")
        refresh.lay_out(both)
        assert (current(both) / "other/main.pm").read_text() == text


def test_a_name_that_had_anothers_tests_gets_its_own(tmp_path: Path) -> None:
    content, shared = tmp_path / "content", tmp_path / "tests"
    for folder in (content, shared, tmp_path / "own"):
        folder.mkdir()
    (tmp_path / "own/main.pm").write_text("own")
    trees.publish(content, shared, {"opensuse": tmp_path / "own"}, {"microos": "opensuse"})
    for _ in range(2):
        trees.publish(content, shared, {"opensuse": tmp_path / "own", "microos": tmp_path / "own"}, {})
    assert not (shared / "microos").is_symlink()
    assert (shared / "microos/main.pm").read_text() == "own"


def test_a_restart_keeps_what_was_loaded(host: Host, openqa: OpenQa) -> None:
    openqa.push({"main.pm": "one", "tables.json": TABLES})
    follow(host)
    stamp = (current(host) / "pushed/main.pm").stat().st_mtime_ns
    refresh.lay_out(host)
    assert (current(host) / "pushed/main.pm").stat().st_mtime_ns == stamp
    openqa.loads()
    assert follow(host) == ["nothing is new"]
    assert openqa.loads() == []


def test_files_that_a_push_does_not_change_keep_their_dates(host: Host, openqa: OpenQa) -> None:
    openqa.push({"main.pm": "one", "same.pm": "same", "tables.json": TABLES})
    follow(host)
    before = (current(host) / "pushed/same.pm").stat()
    time.sleep(1.1)  # git compares whole seconds
    refresh.lay_out(host)  # one more release: one more link to each file
    openqa.push({"main.pm": "two"})
    follow(host)
    after = (current(host) / "pushed/same.pm").stat()
    assert (after.st_ino, after.st_mtime_ns) == (before.st_ino, before.st_mtime_ns)


@pytest.mark.parametrize(
    ("files", "refused", "reason", "loads"),
    [
        ({"tables.json": "{"}, "", "templates: tables.json is not JSON", []),
        ({"tables.json": "[]"}, "", "tables.json must be an object of Machines", []),
        ({"tables.json": '{"JobGroups": []}'}, "", "tables.json has JobGroups, but must be an object of", []),
        # openQA refuses the new ones; then it gets the old ones again.
        ({"tables.json": TABLES + " ", "x.json": TABLES}, "x.json", "x.json is refused", 3),
    ],
)
def test_a_failure_leaves_what_was_there(
    host: Host, openqa: OpenQa, files: dict[str, str], refused: str, reason: str, loads: Any
) -> None:
    openqa.push({"main.pm": "one", "tables.json": TABLES})
    follow(host)
    openqa.loads()
    release, state = current(host), (refresh.folder(host) / "state.json").read_text()
    openqa.push(files | {"main.pm": "two"})
    openqa.refuses = refused
    with pytest.raises(HostError, match=reason):
        follow(host)
    assert openqa.loads() == (["tables.json", "x.json", "tables.json"] if refused else loads)
    assert current(host) == release
    assert (refresh.folder(host) / "state.json").read_text() == state
    assert (refresh.folder(host) / "tests/main.pm").read_text() == "one"
    assert (refresh.folder(host) / "tests/tables.json").read_text() == TABLES


@pytest.mark.parametrize("target", ["/etc/openqa/database.ini", "../../../x", "here/../../../x"])
def test_no_link_of_a_repository_leads_out_of_it(host: Host, openqa: OpenQa, target: str) -> None:
    (openqa.tree / "needles").mkdir()
    (openqa.tree / "here").symlink_to("needles")
    (openqa.tree / "needles/same.png").symlink_to("../here/one.png")
    openqa.push({"needles/one.png": "one", "tables.json": TABLES})
    follow(host)
    release = current(host)
    assert (release / "pushed/needles/same.png").read_text() == "one"
    (openqa.tree / "needles/x.png").symlink_to(target)
    openqa.push({"needles/one.png": "two"})
    with pytest.raises(HostError, match=r"^tests: needles/x\.png is a symbolic link that leads out"):
        follow(host)
    assert current(host) == release
    assert not (refresh.folder(host) / "tests/needles/x.png").is_symlink()


def test_no_needle_is_in_git_lfs(host: Host, openqa: OpenQa) -> None:
    openqa.push(
        {"needles/one.png": "one", "needles/one.json": "{}", "manual/a.png": POINTER, "tables.json": TABLES}
    )
    follow(host)
    release = current(host)
    openqa.push({"needles/two.png": POINTER, "needles/two.json": "{}"})
    with pytest.raises(HostError, match=r"^tests: needles/two\.png is in Git LFS, which is not followed"):
        follow(host)
    assert current(host) == release


def test_empty_folders_of_submodules_are_told(host: Host, openqa: OpenQa) -> None:
    openqa.push({"main.pm": "one", "tables.json": TABLES})
    assert len(follow(host)) == 1
    openqa.push({".gitmodules": '[submodule "more"]\npath = more\nurl = https://example.org/more.git\n'})
    assert follow(host)[1] == "tests: its submodules are not followed: their folders are empty"


def test_links_of_a_release_from_before_they_were_refused_go_at_a_start(host: Host, openqa: OpenQa) -> None:
    openqa.push({"main.pm": "one", "needles/one.png": "one", "tables.json": TABLES})
    follow(host)
    shared = host.layout.data / "openqa/share/tests"
    for tree in (current(host), shared):
        (tree / "pushed/needles/same.png").symlink_to("one.png")
        (tree / "pushed/needles/x.png").symlink_to("/etc/openqa/database.ini")
        (tree / "pushed/elsewhere").symlink_to("/etc/openqa")
    refresh.lay_out(host)
    for tree in (current(host), shared):
        assert {path.name for path in (tree / "pushed/needles").iterdir()} == {"one.png", "same.png"}
        assert not (tree / "pushed/elsewhere").is_symlink()


@pytest.mark.parametrize("name", ["share/tests", "content/releases"])
def test_a_round_follows_no_link(host: Host, openqa: OpenQa, elsewhere: Path, name: str) -> None:
    openqa.push({"main.pm": "one", "tables.json": TABLES})
    follow(host)
    machine.put_link(host.layout.data / "openqa" / name, elsewhere)
    (elsewhere / "pushed").mkdir()
    (elsewhere / "tables.json").write_text(TABLES)
    before = machine.everything(elsewhere)
    openqa.push({"main.pm": "two"})
    with pytest.raises(HostError, match="Permission denied"):
        follow(host)
    assert machine.everything(elsewhere) == before


def test_no_templates_are_read_through_a_link(
    host: Host, openqa: OpenQa, elsewhere: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (elsewhere / "secret.json").write_text(TABLES)
    find = templates.find

    def change(tree: Path, patterns: Any) -> list[str]:
        """Whoever has the tree puts a link where a file was found."""
        found = find(tree, patterns)
        machine.put_link(tree / "tables.json", elsewhere / "secret.json")
        return found

    monkeypatch.setattr(templates, "find", change)
    openqa.push({"tables.json": TABLES})
    with pytest.raises(HostError, match="Permission denied"):
        follow(host)
    assert openqa.loads() == []


def test_root_leaves_nothing_where_others_write(host: Host, openqa: OpenQa, elsewhere: Path) -> None:
    openqa.push({"main.pm": "one", "tables.json": TABLES})
    follow(host)
    folders = [path for path in host.layout.data.rglob("*") if path.is_dir() and path.stat().st_uid]
    assert len(folders) > 10
    assert [path for folder in folders for path in folder.iterdir() if path.lstat().st_uid == 0] == []


def test_what_an_earlier_version_laid_there_is_taken_over(
    host: Host, openqa: OpenQa, elsewhere: Path
) -> None:
    """There, root made the releases, of files of git's user."""
    openqa.push({"main.pm": "one", "tables.json": TABLES})
    follow(host)
    openqa_folder = host.layout.data / "openqa"
    (openqa_folder / "share/tests/.pushed.new/left").mkdir(parents=True)
    for path in (openqa_folder / "content", openqa_folder / "share/tests"):
        for entry in (path, *path.rglob("*")):
            os.lchown(entry, *((0, 0) if entry.is_dir() else (604, 604)))
    for name in ("", "content", "share", "share/tests"):
        os.lchown(openqa_folder / name, 601, 601)
    roles._lay_out(host)
    openqa.push({"main.pm": "two"})
    follow(host)
    assert (current(host) / "pushed/main.pm").read_text() == "two"
    assert (openqa_folder / "share/tests/pushed/main.pm").read_text() == "two"


def test_nobody_schedules_by_templates_that_are_being_loaded(host: Host, openqa: OpenQa) -> None:
    locked = []

    def run(*words: str, **options: Any) -> str:
        with host.layout.templates_lock.open("rb") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
            except BlockingIOError:
                locked.append(words[0])
        return openqa.run(*words, **options)

    openqa.push({"main.pm": "one", "tables.json": TABLES})
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(templates, "inside", run)
        follow(host)
    assert any("load-templates" in word for word in locked)
    with host.layout.templates_lock.open("rb") as lock:
        fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)


def test_history_must_go_on(host: Host, openqa: OpenQa) -> None:
    openqa.push({"main.pm": "one", "tables.json": TABLES})
    follow(host)
    commit = openqa.push({"main.pm": "two"}, "--amend")
    with pytest.raises(HostError, match=f"{commit} of http.* does not follow from"):
        follow(host)
    assert (current(host) / "pushed/main.pm").read_text() == "one"
    assert commit in follow(host, rewritten=True)[0]


def test_git_keeps_what_is_loaded_whatever_is_pushed(host: Host, openqa: OpenQa, web: str) -> None:
    loaded = openqa.push({"tables.json": TABLES})
    follow(host)
    openqa.push({"new": "x"}, "--amend")
    # A round that is killed leaves the tree at the new commit.
    tests = repository.Repository("tests", web, "main")
    tests.check_out(tests.fetch())
    # Months later, when no log of git's own names the old one.
    openqa.run("git", "--git-dir=tests.git", "reflog", "expire", "--expire=now", "--all")
    openqa.run("git", "--git-dir=tests.git", "gc", "--quiet", "--prune=now")
    assert openqa.run("git", "--git-dir=tests.git", "cat-file", "-t", loaded) == "commit"


def test_what_another_repository_says_need_not_follow(host: Host, openqa: OpenQa) -> None:
    openqa.push({"main.pm": "one", "tables.json": TABLES})
    follow(host)
    path = refresh.folder(host) / "state.json"
    path.write_text(path.read_text().replace("127.0.0.1", "elsewhere"))
    commit = openqa.push({"main.pm": "two"}, "--amend")
    assert commit in follow(host)[0]


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"commits": []}'])
def test_a_state_of_no_use_is_none(tmp_path: Path, text: str) -> None:
    (tmp_path / "state.json").write_text(text)
    assert refresh.load_state(tmp_path / "state.json") == refresh.State()


def test_what_others_left_in_the_tree_is_not_released(host: Host, openqa: OpenQa) -> None:
    openqa.push({"main.pm": "one", "tables.json": TABLES})
    follow(host)
    tree = refresh.folder(host) / "tests"
    (tree / "left.pm").write_text("left")
    (tree / "main.pm").unlink()
    (tree / "main.pm").write_text("changed")
    openqa.push({"main.pm": "two"})
    follow(host)
    assert (current(host) / "pushed/main.pm").read_text() == "two"
    assert not (current(host) / "pushed/left.pm").exists()


def test_a_repository_that_others_left_in_the_tree_is_not_released(host: Host, openqa: OpenQa) -> None:
    openqa.push({"tables.json": TABLES})
    follow(host)
    openqa.run("git", "init", "--quiet", "tests/left")
    openqa.push({"new": "x"})
    follow(host)
    assert not (current(host) / "pushed/left").exists()


def test_whether_it_failed_is_told(host: Host, openqa: OpenQa, monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[dict[str, float]] = []
    monkeypatch.setattr("userdata.host.figures.put", lambda _, architecture, **values: told.append(values))
    openqa.push({"tables.json": TABLES})
    follow(host)
    openqa.push({"tables.json": "{"})
    with pytest.raises(HostError):
        follow(host)
    assert told == [{"ContentFailed": 0.0}, {"ContentFailed": 1.0}]


def test_what_went_wrong_is_said_where_cloudwatch_is_away(
    host: Host, openqa: OpenQa, monkeypatch: pytest.MonkeyPatch
) -> None:
    def put(_: Host, **values: float) -> None:
        raise HostError("figures: away")

    monkeypatch.setattr("userdata.host.figures.put", put)
    openqa.push({"tables.json": "{"})
    with pytest.raises(HostError, match=r"tables\.json"):
        follow(host)
    openqa.push({"tables.json": TABLES})
    with pytest.raises(HostError, match="figures: away"):
        follow(host)


def test_locks_of_a_git_that_was_killed_keep_nobody_out(host: Host, openqa: OpenQa) -> None:
    openqa.push({"main.pm": "one", "tables.json": TABLES})
    follow(host)
    for lock in ("index.lock", "refs/openqa/candidate.lock"):
        (openqa.inside / "tests.git" / lock).touch()
    openqa.push({"main.pm": "two"})
    follow(host)
    assert (current(host) / "pushed/main.pm").read_text() == "two"


def test_a_server_may_pack_for_minutes(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []

    def note(*words: str, **_: Any) -> str:
        asked.extend(words)
        return ""

    monkeypatch.setattr(repository, "inside", note)
    repository.Repository("tests", "https://git.example.org/tests.git", "HEAD").fetch()
    (silence,) = (int(word.partition("=")[2]) for word in asked if word.startswith("http.lowSpeedTime="))
    assert 300 <= silence < repository._SECONDS


@pytest.mark.parametrize(("ref", "reason"), [("none", "couldn't find remote ref none"), ("main", "main: ")])
def test_an_unreachable_ref_or_repository_is_named(host: Host, openqa: OpenQa, ref: str, reason: str) -> None:
    address = "http://127.0.0.1:9/tests.git"
    if ref == "none":
        openqa.push({"tables.json": TABLES})
        assert host.document.webui is not None
        assert host.document.webui.content.tests is not None
        address = host.document.webui.content.tests.address
    with pytest.raises(HostError, match=f"tests from {address} at {ref}: .*") as failure:
        repository.Repository("tests", address, ref).fetch()
    assert reason in str(failure.value)


@pytest.mark.parametrize("name", ["link.json", "folder.json", "elsewhere/secret.json"])
def test_templates_are_files_of_their_repository(tmp_path: Path, name: str) -> None:
    (tmp_path / "tree/folder.json").mkdir(parents=True)
    (tmp_path / "secrets").mkdir()
    (tmp_path / "secrets/secret.json").write_text("{}")
    (tmp_path / "tree/link.json").symlink_to(tmp_path / "secrets/secret.json")
    (tmp_path / "tree/elsewhere").symlink_to(tmp_path / "secrets")
    with pytest.raises(HostError, match=f"{name} is not a file of the repository"):
        templates.find(tmp_path / "tree", [name])
    with pytest.raises(HostError, match=r"no file matches none\.json"):
        templates.find(tmp_path / "tree", ["none.json"])


def some_templates(
    files: list[str],
    *,
    loader: str = "openqa",
    tree: Path = Path("/"),
    group_names: Mapping[str, str] | None = None,
) -> templates.Templates:
    return templates.Templates(tree=tree, files=files, loader=loader, group_names=group_names or {})


def test_a_loader_of_the_repository_checks_without_keys_and_loads_with_them(openqa: OpenQa) -> None:
    files = ["a.json", "b.json"]
    made = some_templates(files, loader="fifloader")
    made.check()
    assert openqa.asked == ["python3 fifloader.py --clean a.json b.json"]
    made.load(["b.json"])
    assert openqa.asked[1:] == [
        "python3 fifloader.py --load --clean --loader=/opt/bin/load-templates.sh "
        "--host=http://localhost:9526 a.json b.json"
    ]
    made.load([])
    assert len(openqa.asked) == 2


def test_only_who_loads_has_the_key(monkeypatch: pytest.MonkeyPatch) -> None:
    found: list[str] = []

    def run(*words: str, user: str = repository.USER, **_: Any) -> str:
        found.append(user)
        return ""

    monkeypatch.setattr(templates, "inside", run)
    made = some_templates(["a.json"], loader="fifloader")
    made.check()
    assert found == ["605:605"]
    made.load(["a.json"])
    assert found == ["605:605", "606:606"]


def test_nobody_else_in_the_container_configures_who_acts_there(monkeypatch: pytest.MonkeyPatch) -> None:
    """git runs programs that its user's configuration names, Python modules of its user's."""
    called: list[list[str]] = []
    monkeypatch.setattr(repository, "run", lambda words, **_: called.append(words))
    repository.inside("git", "status")
    assert [word for word in called[0] if word.startswith("--env=HOME=")] == ["--env=HOME=/"]


def test_a_changed_program_loads_anew(tmp_path: Path) -> None:
    for name in ("a.json", templates.FIFLOADER):
        (tmp_path / name).write_text(name)
    made = some_templates(["a.json"], loader="fifloader", tree=tmp_path)
    before = made.digests()
    (tmp_path / templates.FIFLOADER).write_text("another")
    assert made.digests() != before


def test_tables_are_loaded_before_the_job_groups_that_name_them(openqa: OpenQa) -> None:
    files = ["group.yaml", "tables.json"]
    some_templates(files).load(files)
    loaded = [line for line in openqa.asked if "template" in line]
    assert ["tables.json" in line for line in loaded] == [True, False]


def test_job_groups_are_called_as_their_files_or_otherwise(openqa: OpenQa) -> None:
    files, names = ["groups/one.yaml", "groups/two.yaml"], {"groups/two.yaml": "Two (2.0)"}
    some_templates(files, group_names=names).load(files)
    assert [group["name"] for group in openqa.groups] == ["one", "Two (2.0)"]
    loads = [line for line in openqa.asked if "job_templates_scheduling" in line]
    assert [" name=one " in loads[0], " name=Two (2.0) " in loads[1]] == [True, True]


def test_a_group_that_is_called_otherwise_is_loaded_under_its_new_name(tmp_path: Path) -> None:
    (tmp_path / "one.yaml").write_text("{}")

    def digest(names: dict[str, str]) -> str:
        return some_templates(["one.yaml"], tree=tmp_path, group_names=names).digests()["one.yaml"]

    assert digest({}) == digest({"two.yaml": "Two"}) != digest({"one.yaml": "One"})


def test_no_job_group_is_of_two_files(openqa: OpenQa) -> None:
    """openQA would drop the job templates of the first."""
    files = ["x86_64/one.yaml", "aarch64/one.yaml"]
    with pytest.raises(HostError, match=r"x86_64/one\.yaml and aarch64/one\.yaml are both job group one:"):
        some_templates(files).check()
    assert openqa.asked == []
    some_templates(files, group_names={files[1]: "one (aarch64)"}).check()
    assert len(openqa.asked) == 1


def test_limits_are_told_where_they_differ(openqa: OpenQa) -> None:
    openqa.groups = [
        {"id": 1, "name": "same", "size_limit_gb": 5},
        {"id": 2, "name": "other", "size_limit_gb": None},
        {"id": 3, "name": "left alone", "size_limit_gb": 1},
    ]
    templates.limit_assets({"same": 5, "other": 7, "missing": 9})
    assert [line.partition("--host=http://localhost:9526 ")[2] for line in openqa.asked] == [
        "--method=POST job_groups name=missing",
        "--method=PUT job_groups/2 name=other size_limit_gb=7",
        "--method=PUT job_groups/4 name=missing size_limit_gb=9",
    ]


def test_two_releases_stay_and_a_reader_keeps_the_one_that_it_entered(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    content, tests, tree = (tmp_path / name for name in ("content", "tests", "tree"))
    for folder in (content, tests, tree):
        folder.mkdir()
    (content / "current.new").symlink_to("killed")
    (content / "releases/1.new").mkdir(parents=True)
    (tests / ".x.new").mkdir()
    (tree / "products/x").mkdir(parents=True)
    (tmp_path / "needles").mkdir()
    (tmp_path / "needles/a.json").write_text("needle")
    parts = {"x": tree, "x/products/x/needles": tmp_path / "needles"}
    (tree / "main.pm").write_text("1")
    trees.publish(content, tests, parts, {})
    assert (tests / "x/products/x/needles/a.json").read_text() == "needle"
    monkeypatch.chdir(content / "current")
    for number in (2, 3):
        (tree / "main.pm").unlink()  # as git does
        (tree / "main.pm").write_text(str(number))
        if number == 2:
            trees.publish(content, tests, parts, {})
            assert Path("x/main.pm").read_text() == "1"
    trees.publish(content, tests, parts, {})
    assert (tests / "x/main.pm").read_text() == "3"
    assert sorted(path.name for path in (content / "releases").iterdir()) == ["2", "3"]
    assert [path.name for path in tests.iterdir()] == ["x"]


@pytest.fixture
def linked(tmp_path: Path) -> Path:
    """A tree of tests with links to a folder elsewhere."""
    for folder in ("content", "tests", "tree/products", "needles", "elsewhere/needles"):
        (tmp_path / folder).mkdir(parents=True)
    (tmp_path / "needles/a.json").write_text("needle")
    (tmp_path / "elsewhere/needles/theirs").write_text("kept")
    (tmp_path / "tree/products/x").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "tree/needles").symlink_to(tmp_path / "elsewhere/needles")
    (tmp_path / "tree/dangling").symlink_to("nothing")
    return tmp_path


def test_nothing_is_written_where_a_link_of_the_tests_leads(linked: Path) -> None:
    parts = {"x": linked / "tree", "x/products/x/needles": linked / "needles"}
    trees.publish(linked / "content", linked / "tests", parts, {})
    assert (linked / "tests/x/products/x/needles/a.json").read_text() == "needle"
    assert [path.name for path in (linked / "elsewhere/needles").iterdir()] == ["theirs"]


@pytest.mark.parametrize("name", ["needles", "dangling"])
def test_needles_take_the_place_of_a_link(linked: Path, name: str) -> None:
    parts = {"x": linked / "tree", f"x/{name}": linked / "needles"}
    trees.publish(linked / "content", linked / "tests", parts, {})
    assert (linked / "tests/x" / name / "a.json").read_text() == "needle"
    assert (linked / "elsewhere/needles/theirs").read_text() == "kept"


@pytest.mark.parametrize("put", [lambda path: path.symlink_to("/"), Path.touch])
def test_what_is_in_the_way_is_named(tmp_path: Path, put: Callable[[Path], None]) -> None:
    (tmp_path / "tests").mkdir()
    put(tmp_path / "tests/x")
    with pytest.raises(HostError, match="tests/x is not a folder: move it away"):
        trees.publish(tmp_path, tmp_path / "tests", {"x": tmp_path}, {})


@pytest.fixture
def xorriso(programs: machine.Programs, monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """Where it wrote to."""
    written = []

    def run(arguments: list[str]) -> str:
        written.append(Path(arguments[arguments.index("-output") + 1]))
        written[-1].write_text("image")
        return programs.run(arguments)

    monkeypatch.setattr(cloudinit, "run", run)
    return written


def test_links_lead_cloudinit_nowhere(host: Host, xorriso: list[Path], elsewhere: Path) -> None:
    machine.put_link(host.layout.data / "openqa/share/factory/iso/fixed", elsewhere)
    before = machine.everything(elsewhere)
    with pytest.raises(HostError, match=r"Permission denied: .*iso/fixed/cloudinit\.iso"):
        cloudinit.make(host)
    assert machine.everything(elsewhere) == before
    # Nobody but root may put a link there.
    assert [path.parent for path in xorriso] == [host.layout.data]


def test_cloudinit_is_made_once(host: Host, programs: machine.Programs, xorriso: list[Path]) -> None:
    iso = host.layout.data / "openqa/share/factory/iso/fixed/cloudinit.iso"
    cloudinit.make(host)
    cloudinit.make(host)
    assert iso.read_text() == "image"
    (made,) = programs.started("xorriso", "-as", "mkisofs")
    assert made[6:10] == ("-volid", "cidata", "-joliet", "-rational-rock")
    assert [Path(word).name for word in made[10:]] == ["user-data", "meta-data"]


def test_what_is_free_is_told(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    space.tell(host)
    assert figures(host) == ["RootFreePercent", "VolumeFreePercent"]
    (host.layout.data / "openqa").rename(host.layout.data / "gone")
    with pytest.raises(HostError, match="the data volume: No such file"):
        space.tell(host)


def test_what_is_free_of_the_databases_volume_is_told(tmp_path: Path, aws: None) -> None:
    host = machine.host(tmp_path, "database")
    with pytest.raises(HostError, match="the data volume: No such file"):
        space.tell(host)
    (host.layout.data / "postgres").mkdir(parents=True)
    space.tell(host)
    assert figures(host) == ["DatabaseRootFreePercent", "DatabaseVolumeFreePercent"]


@pytest.mark.parametrize(
    ("role", "folder", "whose"), [("webui", "openqa", ""), ("database", "postgres", "Database")]
)
def test_each_disk_is_told_under_its_own_name(
    tmp_path: Path, aws: None, monkeypatch: pytest.MonkeyPatch, role: str, folder: str, whose: str
) -> None:
    host = machine.host(tmp_path, role)
    free = {host.layout.data / folder: 30, host.layout.root: 60}
    monkeypatch.setattr(os, "statvfs", lambda path: SimpleNamespace(f_bavail=free[path], f_blocks=120))
    space.tell(host)
    assert machine.told(host) == {f"{whose}VolumeFreePercent": 25.0, f"{whose}RootFreePercent": 50.0}


def test_a_second_one_does_not_start(host: Host, openqa: OpenQa) -> None:
    with (
        alone(host, "refresh"),
        pytest.raises(HostError, match="another refresh runs on this host"),
    ):
        follow(host)
    assert boto3.client("cloudwatch", region_name=machine.REGION).list_metrics()["Metrics"]
