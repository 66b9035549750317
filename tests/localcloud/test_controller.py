"""The fleet controller on a deployment of its own, whose one fleet of spot hosts has min = 0."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import pytest

from localcloud import cloud
from localcloud.cloud import RunningCloud
from ops import deployment
from ops.deployment import OpenQa
from ops.smoke import JOB
from settings import ENVIRONMENTS
from tests.prerequisites import require_machine

pytestmark = pytest.mark.controller

ROOT = Path(__file__).parents[2]
NAME = "test-controller"
ENVIRONMENT = "elastic"
GROUP = f"openqa-{ENVIRONMENT}-fleet-small"
FLEET = """\
[[fleets]]
name = "small"
architecture = "x86_64"
classes = ["qemu_x86_64"]
instance_types = ["t3.medium"]
virtualization = "none"
kvm = false
workers_per_host = 1
min = 0
max = 2
spot_share = 1.0
volume_gib = 8
cache_gib = 2
"""
CONTROLLER = "openqa-controller.service"
PYTHON = ("env", "PYTHONPATH=/opt/openqa-on-aws", "PYTHONDONTWRITEBYTECODE=1", "python3")
# Answers as its argument says, in place of openQA.
FAULTY = """
import http.server, socketserver, sys, time
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        mode = open("/run/faulty").read().strip()
        if mode == "silent":
            time.sleep(300)
        body = b'{"jobs": [{"id": "none"}]}' if mode == "nonsense" else b'<html>Bad Gateway</html>'
        self.send_response(500 if mode == "500" else 200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
    def log_message(self, *_):
        pass
class Server(socketserver.ThreadingMixIn, http.server.HTTPServer):
    daemon_threads = True
Server(("127.0.0.1", 8099), Handler).serve_forever()
"""
# What the controller asks on this machine goes elsewhere; what workers ask does not.
REDIRECT = "table ip faulty { chain output { type nat hook output priority -150; \
ip daddr 127.0.0.1 tcp dport 80 redirect to :%d; }; }"

T = TypeVar("T")


def until(what: str, found: Callable[[], T | None], *, seconds: float) -> T:
    """The first answer that is not None."""
    deadline = time.monotonic() + seconds
    while (answer := found()) is None:
        assert time.monotonic() < deadline, f"not within {seconds:.0f} s: {what}"
        time.sleep(1)
    return answer


@dataclass(frozen=True)
class Deployed:
    """The deployment, from outside and from inside."""

    running: RunningCloud
    openqa: OpenQa

    def group(self) -> dict[str, Any]:
        client = self.running.client("autoscaling")
        found: dict[str, Any] = client.describe_auto_scaling_groups(AutoScalingGroupNames=[GROUP])
        group: dict[str, Any] = found["AutoScalingGroups"][0]
        return group

    def hosts(self, *states: str) -> list[str]:
        return [
            instance["InstanceId"]
            for instance in self.group()["Instances"]
            if not states or instance["LifecycleState"] in states
        ]

    def capacity(self) -> tuple[set[str], int]:
        """The hosts that count, and how many there are to be."""
        counting = ("Pending", "Pending:Wait", "Pending:Proceed", "InService")
        return set(self.hosts(*counting)), int(self.group()["DesiredCapacity"])

    def webui(self, *words: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        """Runs a command on the web UI's host."""
        client = self.running.client("autoscaling")
        groups = client.describe_auto_scaling_groups(AutoScalingGroupNames=[f"openqa-{ENVIRONMENT}-webui"])
        leader = self.running.leader(groups["AutoScalingGroups"][0]["Instances"][0]["InstanceId"])
        assert leader is not None
        return subprocess.run(
            ["nsenter", f"--target={leader}", "--all", "--wd=/", *words],
            # Without the variables that lead this process to the cloud's AWS API: hosts have their own way.
            env={"PATH": "/usr/sbin:/usr/bin:/sbin:/bin"},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=120,
            check=check,
        )

    def journal(self) -> str:
        return self.webui("journalctl", "--unit", CONTROLLER, "--output=cat", "--no-pager").stdout

    def said(self, words: str) -> int:
        """How often the controller said something."""
        return self.journal().count(words)

    def schedule(self, build: str) -> int:
        settings = json.loads(JOB.read_text()) | {"BUILD": build}
        return int(self.openqa.request("POST", "jobs", data=settings)["id"])

    def job(self, job: int) -> dict[str, Any]:
        found: dict[str, Any] = self.openqa.request("GET", f"jobs/{job}")["job"]
        return found

    def ran_on(self, job: int) -> str:
        """The instance whose worker has a job."""
        worker = self.openqa.request("GET", f"workers/{self.job(job)['assigned_worker_id']}")["worker"]
        classes = str(worker["properties"]["WORKER_CLASS"]).split(",")
        return next(name for name in classes if name.startswith("i-"))

    def started(self, job: int, *, seconds: float = 300) -> str:
        """Waits until a job runs; its host."""
        until(f"job {job} runs", lambda: self.job(job)["state"] == "running" or None, seconds=seconds)
        return self.ran_on(job)

    def ended(self, job: int, *, seconds: float = 300) -> dict[str, Any]:
        """Waits until a job is done."""

        def done() -> dict[str, Any] | None:
            found = self.job(job)
            return found if found["state"] == "done" else None

        return until(f"job {job} ends", done, seconds=seconds)

    def empty(self, *, seconds: float = 120) -> None:
        """Waits until the fleet has no host."""
        until("the fleet is empty", lambda: not self.hosts() or None, seconds=seconds)


@pytest.fixture(scope="module")
def deployed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Deployed]:
    require_machine()
    directory = tmp_path_factory.mktemp("environments")
    common, _, _ = (ENVIRONMENTS / "local.toml").read_text().partition("[[fleets]]")
    (directory / f"{ENVIRONMENT}.toml").write_text(common + FLEET)
    program = [sys.executable, "-m", "localcloud"]
    ports = ["--api-port=0", "--web-port=0", "--no-smoke", f"--environments={directory}"]
    with pytest.MonkeyPatch.context() as patch:
        try:
            subprocess.run([*program, "deploy", ENVIRONMENT, f"--name={NAME}", *ports], cwd=ROOT, check=True)
            running = cloud.find(NAME)
            assert running is not None
            for name, value in running.environment().items():
                patch.setenv(name, value)
            openqa = deployment.connect(environment=ENVIRONMENT, region=cloud.REGION, url=running.url)
            yield Deployed(running, openqa)
        finally:
            subprocess.run([*program, "down", f"--name={NAME}"], cwd=ROOT, check=True)


def test_a_job_brings_up_a_host_and_one_that_must_go_finishes_its_job(deployed: Deployed) -> None:
    assert deployed.capacity() == (set(), 0)
    job = deployed.schedule("from-none")
    host = deployed.started(job)
    # By order of somebody else than the controller; nothing but the host's agent waits for the job.
    deployed.webui("systemctl", "stop", CONTROLLER)
    deployed.running.client("autoscaling").terminate_instance_in_auto_scaling_group(
        InstanceId=host, ShouldDecrementDesiredCapacity=True
    )
    ended = deployed.ended(job)
    assert (ended["result"], ended["clone_id"]) == ("passed", None)
    until("the host is gone", lambda: host not in deployed.hosts() or None, seconds=120)
    deployed.webui("systemctl", "start", CONTROLLER)
    # What was launched to spare goes, too.
    deployed.empty()


def test_a_spot_host_that_is_taken_back_hands_its_job_to_another(deployed: Deployed) -> None:
    job = deployed.schedule("interrupted")
    host = deployed.started(job)
    time.sleep(5)
    deployed.running.interrupt(host)
    began = time.monotonic()
    first = deployed.ended(job, seconds=110)
    assert time.monotonic() - began < 110
    assert first["result"] == "incomplete"
    again = int(first["clone_id"])
    assert deployed.started(again) != host
    assert host not in deployed.hosts()


@pytest.fixture(scope="module")
def again(deployed: Deployed) -> int:
    """The job that runs on the fleet's only host when the test before has passed."""
    jobs = deployed.openqa.request("GET", "jobs", params={"build": "interrupted"})["jobs"]
    return int(max(job["id"] for job in jobs))


@pytest.fixture
def faulty(deployed: Deployed) -> Iterator[Callable[[str], None]]:
    """Gives the controller another openQA: one that is stopped, or answers as told."""

    def become(mode: str) -> None:
        deployed.webui("sh", "-c", f"echo {mode} >/run/faulty")
        port = 8098 if mode == "stopped" else 8099
        deployed.webui("sh", "-c", "nft delete table ip faulty", check=False)
        deployed.webui("nft", REDIRECT % port)

    deployed.webui("sh", "-c", "echo 500 >/run/faulty")
    deployed.webui("systemd-run", "--unit=faulty", "python3", "-c", FAULTY)
    yield become
    deployed.webui("nft", "delete table ip faulty", check=False)
    deployed.webui("systemctl", "stop", "faulty.service", check=False)


def test_whatever_openqa_says_or_does_not_say_nothing_moves(
    deployed: Deployed, again: int, faulty: Callable[[str], None]
) -> None:
    modes = {
        "stopped": "Connection refused",
        "500": "HTTP Error 500",
        "html": "is not JSON",
        "nonsense": "makes no sense",
        "silent": "timed out",
    }
    hosts: set[str] = set()
    for mode, words in modes.items():
        before = deployed.said(words)
        faulty(mode)
        until(f"{mode} is noticed", lambda: deployed.said(words) > before or None, seconds=60)  # noqa: B023
        if mode == "stopped":
            hosts, desired = deployed.capacity()
            assert len(hosts) == desired > 0
            assert deployed.ended(again)["result"] == "passed"
        # Longer than an idle host is kept, were openQA to be read: a quarter of its boot time.
        time.sleep(20)
        assert deployed.capacity() == (hosts, desired), mode
        assert deployed.said(words) == before + 1, mode


def test_a_killed_controller_comes_back_and_lets_the_idle_host_go(deployed: Deployed) -> None:
    before = deployed.said("the lock is held")
    deployed.webui("systemctl", "kill", "--signal=KILL", CONTROLLER)
    until("it holds the lock", lambda: deployed.said("the lock is held") > before or None, seconds=60)
    deployed.empty()
    assert deployed.capacity() == (set(), 0)


def test_two_controllers_and_one_acts(deployed: Deployed) -> None:
    second = deployed.webui(*PYTHON, "-m", "fleet.controller", "--once", check=False)
    assert second.returncode == 1
    assert "Another controller holds the lock" in second.stderr
    look = deployed.webui(*PYTHON, "-m", "fleet.controller", "--once", "--dry-run", "--json")
    seen = json.loads(look.stdout)
    assert seen["unusable"] is None
    assert [fleet["name"] for fleet in seen["fleets"]] == ["small"]
    deployed.webui("systemctl", "stop", CONTROLLER)
    alone = deployed.webui(*PYTHON, "-m", "fleet.controller", "--once")
    assert "small: 0 booting, 0 ready, 0 draining" in alone.stdout
    deployed.webui("systemctl", "start", CONTROLLER)


def test_the_controller_may_size_fleets_and_nothing_else(deployed: Deployed) -> None:
    code = (
        "import boto3; c = boto3.client('autoscaling', region_name='us-east-1'); "
        "c.set_desired_capacity(AutoScalingGroupName='openqa-%s', DesiredCapacity=0)"
    )
    own = deployed.webui("python3", "-c", code % f"{ENVIRONMENT}-fleet-small", check=False)
    assert own.returncode == 0, own.stderr
    other = deployed.webui("python3", "-c", code % f"{ENVIRONMENT}-database", check=False)
    assert "AccessDenied" in other.stderr


def test_metrics_tell_what_it_saw(deployed: Deployed) -> None:
    client = deployed.running.client("cloudwatch")
    found = client.list_metrics(Namespace=f"openQA/{ENVIRONMENT}")["Metrics"]
    names = {metric["MetricName"] for metric in found}
    assert {"Rounds", "RoundsBlind", "JobsWaiting", "OldestWait", "SlotsBusy", "CostPerHour"} <= names
    assert "AccessDenied" not in deployed.journal()
