"""A push reaches the web UI and the workers; one that is broken changes nothing and is told."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from localcloud.addresses import DEVELOPER
from tests.localcloud.deployed import SAMPLE, Deployment, until
from tests.localcloud.lab import outside
from tests.localcloud.probe import OPEN, probe

pytestmark = pytest.mark.content

SERVICE = "content.service"
SHARED = "/srv/data/openqa/share"
CURRENT = "/srv/data/openqa/content/current"
DOCUMENT = "/etc/openqa-on-aws/host.json"
FIFLOADER = Path(__file__).with_name("fifloader.py")
JOB = json.loads((SAMPLE / "job.json").read_text())
TABLES: dict[str, list[dict[str, Any]]] = {
    "Machines": [
        {
            "name": "64bit",
            "backend": "qemu",
            "settings": [
                {"key": key, "value": JOB[key]}
                for key in ("WORKER_CLASS", "QEMUCPUS", "QEMURAM", "QEMUVGA", "BOOTFROM")
            ],
        }
    ],
    "Products": [
        {"name": "", "arch": "x86_64", "distri": "pushed", "flavor": "cd", "version": "1", "settings": []}
    ],
    "TestSuites": [{"name": "smoke", "settings": [{"key": "MODULES", "value": "fresh"}]}],
}
GROUP = """\
defaults:
  x86_64:
    machine: 64bit
    priority: 50
products:
  cd:
    distri: pushed
    flavor: cd
    version: "1"
scenarios:
  x86_64:
    cd:
      - smoke
"""
NEEDLE = json.dumps(
    {"area": [{"xpos": 0, "ypos": 0, "width": 1, "height": 1, "type": "match"}], "tags": ["tag"]}
)
FRESH = """\
use Mojo::Base 'basetest', -signatures;
use Text::CSV;  # of a package that no worker has but by content.worker_packages
use testapi;

sub run ($self) { record_info 'fresh', 'NUMBER' }

1;
"""
FIF: dict[str, Any] = {
    "Machines": {"fif": {"backend": "qemu", "settings": {"WORKER_CLASS": "qemu_x86_64"}}},
    "Products": {
        "cd": {"arch": "x86_64", "distri": "pushed", "flavor": "fif", "version": "1", "settings": {}}
    },
    "Profiles": {"only": {"machine": "fif", "product": "cd"}},
    "TestSuites": {"converted": {"profiles": {"only": 30}, "settings": {"MODULES": "fresh"}}},
}


def git(*words: str) -> str:
    quiet = {"GIT_CONFIG_GLOBAL": "/dev/null", "GIT_CONFIG_SYSTEM": "/dev/null"}
    who = ("-c", "user.name=test", "-c", "user.email=test@example.org", "-c", "init.defaultBranch=main")
    done = subprocess.run(["git", *who, *words], env=os.environ | quiet, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


class Pushed:
    """A repository outside the VPC, and the web UI's host that follows it."""

    def __init__(self, made: Deployment, folder: Path) -> None:
        self.made = made
        self.webui = made.serving("webui")[0]
        self.tree = folder / "tree"
        self.served = folder / "served"
        self._bare = self.served / "tests.git"
        shutil.copytree(SAMPLE, self.tree, ignore=shutil.ignore_patterns("image", "*.json"))
        git("init", "--quiet", str(self.tree))
        git("init", "--quiet", "--bare", str(self._bare))
        self._server: subprocess.Popen[bytes] | None = None

    def serve(self) -> None:
        """Answers at port 80 of an address outside the VPC."""
        words = [sys.executable, "-m", "http.server", f"--bind={DEVELOPER}", f"--directory={self.served}"]
        with (self.served.parent / "server.log").open("wb") as log:
            self._server = subprocess.Popen(outside(self.made.cloud, *words, "80"), stdout=log, stderr=log)
        connects = outside(self.made.cloud, *probe(str(DEVELOPER), 80))

        def listening() -> bool | None:
            return subprocess.run(connects, capture_output=True).returncode == OPEN or None

        until("the repository is served", listening, seconds=60)

    def stop(self) -> None:
        if self._server:
            self._server.terminate()
            self._server.wait()
            self._server = None

    def write(self, files: dict[str, str]) -> None:
        for name, text in files.items():
            (self.tree / name).parent.mkdir(parents=True, exist_ok=True)
            (self.tree / name).write_text(text)

    def push(self, files: dict[str, str], *options: str) -> str:
        """Commits files, pushes, and returns the commit."""
        self.write(files)
        git("-C", str(self.tree), "add", "--all")
        git("-C", str(self.tree), "commit", "--quiet", "--message=push", *options)
        git("-C", str(self.tree), "push", "--quiet", "--force", str(self._bare), "HEAD:main")
        # For a server that only has files.
        git("-C", str(self._bare), "update-server-info")
        return git("-C", str(self.tree), "rev-parse", "HEAD")

    def back(self) -> None:
        """Takes the last push back, as who broke it would: history goes on."""
        git("-C", str(self.tree), "revert", "--no-edit", "HEAD")
        git("-C", str(self.tree), "push", "--quiet", str(self._bare), "HEAD:main")
        git("-C", str(self._bare), "update-server-info")

    def run(self, *words: str, check: bool = True) -> str:
        return self.made.run(self.webui, *words, check=check, seconds=300).stdout

    def refresh(self) -> bool:
        """Lets the timer's service run; whether it succeeded."""
        done = self.made.run(self.webui, "systemctl", "start", SERVICE, check=False, seconds=300)
        return done.returncode == 0

    def said(self) -> str:
        return self.run("journalctl", "--unit", SERVICE, "--lines=5", "--output=cat")

    def told(self) -> tuple[int, int]:
        """How often CloudWatch was told of a run, and of one that failed."""
        told = partial(self.made.told, "ContentFailed")
        return int(sum(told("SampleCount"))), int(sum(told("Sum")))

    def empty_group(self, name: str) -> None:
        """Takes away a job group's templates."""
        groups = {group["name"]: group["id"] for group in self.made.openqa.request("GET", "job_groups")}
        self.made.openqa.request(
            "POST",
            f"job_templates_scheduling/{groups[name]}",
            data={"schema": "JobTemplates-01.yaml", "template": "products: {}\nscenarios: {}\n"},
        )

    def shown(self) -> dict[str, Any]:
        """What openQA and the workers have."""
        groups = self.made.openqa.request("GET", "job_groups")
        return {
            "release": self.run("readlink", CURRENT).strip(),
            "files": self.run(
                "sh", "-c", f"cd {SHARED}/tests/pushed && find . -type f | xargs sha256sum | sort"
            ),
            "groups": {group["name"]: (group["template"], group["size_limit_gb"]) for group in groups},
            "suites": self.made.openqa.request("GET", "test_suites"),
            "machines": self.made.openqa.request("GET", "machines"),
        }


@pytest.fixture(scope="module")
def pushed(content: Deployment, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pushed]:
    made = Pushed(content, tmp_path_factory.mktemp("repository"))
    yield made
    made.stop()


def test_a_host_comes_up_without_its_repository(pushed: Pushed) -> None:
    def tried() -> tuple[int, int] | None:
        return pushed.told() if pushed.told()[0] else None

    runs, failed = until("the first run is told", tried, seconds=60)
    assert runs == failed
    assert "Couldn't connect" in pushed.said() or "Failed to connect" in pushed.said()
    assert pushed.run("ls", f"{CURRENT}/").split() == ["sample"]
    assert pushed.run("systemctl", "is-active", "content.timer").strip() == "active"


def test_a_push_reaches_openqa(pushed: Pushed) -> None:
    pushed.serve()
    pushed.push({"templates/tables.json": json.dumps(TABLES), "templates/groups/pushed.yaml": GROUP})
    runs, failed = pushed.told()
    assert pushed.refresh(), pushed.said()
    assert pushed.told() == (runs + 1, failed)
    shown = pushed.shown()
    assert "./main.pm" in shown["files"]
    assert shown["groups"] == {"first": (None, 3), "pushed": (GROUP, 7)}
    # No group is made before the limits': some schedulers know theirs by its number.
    groups = pushed.made.openqa.request("GET", "job_groups")
    assert sorted((group["id"], group["name"]) for group in groups)[0][1] == "first"
    assert pushed.run("ls", f"{CURRENT}/").split() == ["pushed", "sample"]
    label = pushed.run(
        "blkid", "-p", "-o", "value", "-s", "LABEL", f"{SHARED}/factory/iso/fixed/cloudinit.iso"
    )
    assert label.strip() == "cidata"


def test_nothing_new_changes_nothing(pushed: Pushed) -> None:
    before = pushed.shown()
    assert pushed.refresh(), pushed.said()
    assert pushed.shown() == before


def test_openqa_cannot_write_there_and_who_follows_the_repository_has_no_key(pushed: Pushed) -> None:
    inside = ("podman", "exec", "openqa-webui")
    assert pushed.made.run(
        pushed.webui, *inside, "touch", "/var/lib/openqa/share/tests/pushed/x", check=False
    ).returncode
    for name in ("content", "share", "share/tests"):
        assert pushed.made.run(
            pushed.webui, *inside, "mv", f"/var/lib/openqa/{name}", "/var/lib/openqa/x", check=False
        ).returncode
    # Whoever posts jobs can have openQA itself show what it may read.
    key = "/etc/openqa-administrator/client.conf"
    for user in ("605", "geekotest"):
        other = ("podman", "exec", f"--user={user}", "openqa-gru", "cat", key)
        assert pushed.made.run(pushed.webui, *other, check=False).returncode


def test_the_next_job_runs_what_was_pushed(pushed: Pushed) -> None:
    pushed.push({"tests/fresh.pm": FRESH})
    assert pushed.refresh(), pushed.said()
    answer = pushed.made.openqa.request(
        "POST",
        "isos",
        data={"DISTRI": "pushed", "VERSION": "1", "FLAVOR": "cd", "ARCH": "x86_64", "ISO": "sample.iso"}
        | {"BUILD": "pushed"},
    )
    job = pushed.made.passed(answer["ids"], seconds=300)[0]
    details = pushed.made.openqa.request("GET", f"jobs/{job['id']}/details")["job"]
    assert [module["name"] for module in details["testresults"]] == ["fresh"]
    assert job["group"] == "pushed"


@pytest.mark.parametrize(
    ("files", "reason"),
    [
        ({"templates/tables.json": "unlink 'x'"}, "templates/tables.json is not JSON"),
        ({"templates/tables.json": '{"Machines": [{"name": "x"}]}'}, "Machines 1 lacks backend"),
        ({"templates/groups/pushed.yaml": "scenarios: 1\n"}, "pushed.yaml: /"),
        (
            {
                "templates/tables.json": json.dumps(
                    TABLES | {"TestSuites": [{"name": "smoke", "settings": [{"key": "X", "value": "1"}]}]}
                ),
                "templates/groups/pushed.yaml": GROUP.replace("machine: 64bit", "machine: nowhere"),
            },
            "Machine 'nowhere' is invalid",
        ),
    ],
    ids=["no JSON", "table", "schema", "refused by openQA"],
)
def test_a_broken_push_changes_nothing_and_is_told(
    pushed: Pushed, files: dict[str, str], reason: str
) -> None:
    before, (runs, failed) = pushed.shown(), pushed.told()
    pushed.push(files | {"tests/fresh.pm": "broken"})
    assert not pushed.refresh()
    assert reason in pushed.said()
    assert pushed.told() == (runs + 1, failed + 1)
    assert pushed.shown() == before
    pushed.back()


def test_a_rewritten_history_is_taken_only_by_an_operators_word(
    pushed: Pushed, capsys: pytest.CaptureFixture[str]
) -> None:
    assert pushed.refresh(), pushed.said()
    before, (runs, failed) = pushed.shown(), pushed.told()
    commit = pushed.push({"tests/fresh.pm": FRESH.replace("NUMBER", "rewritten")}, "--amend")
    assert not pushed.refresh()
    assert f"{commit} of http://{DEVELOPER}/tests.git does not follow from" in pushed.said()
    assert pushed.told() == (runs + 1, failed + 1)
    assert pushed.shown() == before
    assert pushed.made.ops("content") == 1
    assert "follow from" in capsys.readouterr().err
    assert pushed.made.ops("content", "--rewritten") == 0
    assert f"tests: {commit} of http://{DEVELOPER}/tests.git" in capsys.readouterr().out
    assert "rewritten" in pushed.run("cat", f"{CURRENT}/pushed/tests/fresh.pm")


def test_templates_may_come_from_a_repository_of_their_own(pushed: Pushed, tmp_path: Path) -> None:
    document = json.loads(pushed.run("cat", DOCUMENT))
    changed = json.loads(json.dumps(document))
    changed["webui"]["content"] |= {
        "templates_repository": {"address": f"http://{DEVELOPER}/templates.git", "ref": "main"},
        "templates": ["groups/*.yaml"],
    }
    # A scenario of a name of its own, as the other has the suite's.
    own = GROUP.replace("- smoke\n", "- own:\n          testsuite: smoke\n")
    (tmp_path / "groups").mkdir()
    (tmp_path / "groups/own.yaml").write_text(own)
    git("init", "--quiet", str(tmp_path))
    git("-C", str(tmp_path), "add", "--all")
    git("-C", str(tmp_path), "commit", "--quiet", "--message=groups")
    bare = str(pushed.served / "templates.git")
    git("clone", "--quiet", "--bare", str(tmp_path), bare)
    git("-C", bare, "update-server-info")
    try:
        pushed.made.run(pushed.webui, "tee", DOCUMENT, stdin=json.dumps(changed))
        assert pushed.refresh(), pushed.said()
        shown = pushed.shown()
        assert shown["groups"]["own"][0] == own
        assert "groups/own.yaml" not in shown["files"]
        assert f"of http://{DEVELOPER}/templates.git" in pushed.said()
    finally:
        pushed.made.run(pushed.webui, "tee", DOCUMENT, stdin=json.dumps(document))
        pushed.empty_group("own")


def test_a_loader_of_the_repository_is_asked_first_and_then_run(pushed: Pushed) -> None:
    document = json.loads(pushed.run("cat", DOCUMENT))
    changed = json.loads(json.dumps(document))
    changed["webui"]["content"] |= {"loader": "fifloader", "templates": ["templates.fif.json"]}
    tables = json.loads(json.dumps(FIF))
    # openqa-load-templates --clean takes nothing away that a group's YAML names.
    pushed.empty_group("pushed")
    try:
        pushed.made.run(pushed.webui, "tee", DOCUMENT, stdin=json.dumps(changed))
        pushed.push({"fifloader.py": FIFLOADER.read_text(), "templates.fif.json": json.dumps(tables)})
        assert pushed.refresh(), pushed.said()
        shown = pushed.shown()
        assert "converted" in shown["groups"]
        assert [machine["name"] for machine in shown["machines"]["Machines"]] == ["fif"]
        assert [suite["name"] for suite in shown["suites"]["TestSuites"]] == ["converted"]
        tables["TestSuites"]["converted"]["profiles"] = {"none": 1}
        pushed.push({"templates.fif.json": json.dumps(tables)})
        assert not pushed.refresh()
        assert "fifloader: KeyError: 'none'" in pushed.said()
        assert pushed.shown() == shown
        pushed.back()
    finally:
        pushed.made.run(pushed.webui, "tee", DOCUMENT, stdin=json.dumps(document))


def test_what_is_free_is_told_and_cleanups_are_asked_for(pushed: Pushed) -> None:
    metrics = pushed.made.cloud.client("cloudwatch").list_metrics(Namespace=f"openQA/{pushed.made.name}")
    told = {metric["MetricName"] for metric in metrics["Metrics"]}
    assert {"RootFreePercent", "VolumeFreePercent"} <= told
    assert {"DatabaseRootFreePercent", "DatabaseVolumeFreePercent"} <= told
    # One that Debian's openQA has, and one that it is too old for.
    for task in ("audit-event-cleanup", "scheduled-product-cleanup"):
        pushed.run("systemctl", "start", f"openqa-enqueue@{task}.service")
    result = pushed.run(
        "systemctl", "show", "--property=Result", "openqa-enqueue@audit-event-cleanup.service"
    )
    assert result.strip() == "Result=success"


class Minion:
    """openQA's background jobs, and what is told of them."""

    def __init__(self, pushed: Pushed) -> None:
        self._pushed = pushed

    def job(self, *words: str) -> str:
        """Runs openQA's own command in the web UI's container, where no job runs."""
        command = ("/usr/share/openqa/script/openqa", "minion", "job", *words)
        inside = ("podman", "exec", "--env=MOJO_MODE=production", "openqa-webui", *command)
        return self._pushed.run(*inside).strip()

    def enqueue(self, task: str, *arguments: object, options: tuple[str, ...] = ()) -> str:
        """Adds a job; its id."""
        return self.job(f"--enqueue={task}", f"--args={json.dumps(arguments)}", *options)

    def ended(self, job: str) -> None:
        """Waits until a job has failed."""

        def failed() -> bool | None:
            return job in self.job("--state=failed").split() or None

        until(f"background job {job} failed", failed, seconds=60)

    def told(self) -> tuple[float, float]:
        """Lets the timer's service run; how many failed, and for how many seconds one waits."""
        before = self._sums()
        self._pushed.run("systemctl", "start", "minion-figures.service")
        failed, waits = (after - sum for after, sum in zip(self._sums(), before, strict=True))
        return failed, waits

    def _sums(self) -> list[float]:
        return [sum(self._pushed.made.told(name, "Sum")) for name in ("MinionFailed", "MinionWaitSeconds")]


@pytest.fixture
def minion(pushed: Pushed) -> Iterator[Minion]:
    pushed.run("systemctl", "stop", "minion-figures.timer")
    yield Minion(pushed)
    pushed.run("systemctl", "start", "openqa-gru.service", "minion-figures.timer")


def test_background_jobs_that_failed_are_told_until_they_are_removed(minion: Minion) -> None:
    assert minion.told()[0] == 0
    fetched = minion.enqueue("download_asset", "http://example.invalid/x.iso", "/nowhere/x.iso", False)
    minion.ended(fetched)
    # Who edits a needle is told at once.
    edited = minion.enqueue("save_needle", {"needle_json": NEEDLE, "imagedir": "/nowhere", "imagename": "x"})
    minion.ended(edited)
    assert minion.told()[0] == 1
    minion.job("--remove", fetched)
    minion.job("--remove", edited)
    assert minion.told()[0] == 0


def test_background_jobs_that_pile_up_are_told(pushed: Pushed, minion: Minion) -> None:
    def nothing_waits() -> bool | None:
        return minion.told()[1] == 0 or None

    until("nothing waits", nothing_waits, seconds=60)
    pushed.run("systemctl", "stop", "openqa-gru.service")
    later = minion.enqueue("limit_bugs", options=("--delay=600",))
    follows = minion.enqueue("limit_bugs", options=(f"--parent={later}",))
    minion.enqueue("limit_bugs", options=("--expire=1",))
    time.sleep(3)
    assert minion.told()[1] == 0
    minion.enqueue("limit_bugs")
    time.sleep(3)
    assert 3 <= minion.told()[1] < 60
    pushed.run("systemctl", "start", "openqa-gru.service")
    until("nothing waits", nothing_waits, seconds=60)
    for job in (follows, later):
        minion.job("--remove", job)


def test_background_jobs_hear_that_their_service_stops(pushed: Pushed, minion: Minion) -> None:
    # The one that can be made to last; others would go back to the queue.
    hook = minion.enqueue("hook_script", "sleep", 600, {"timeout": "900", "kill_timeout": "9"})

    def runs() -> bool | None:
        return hook in minion.job("--state=active").split() or None

    until("the hook runs", runs, seconds=60)
    pushed.run("systemctl", "stop", "openqa-gru.service")
    assert "Received signal TERM" in minion.job(hook)
    minion.job("--remove", hook)
