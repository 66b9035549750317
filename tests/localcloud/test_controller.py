"""The fleet controller on a deployment of its own, whose one fleet of spot hosts has min = 0."""

from __future__ import annotations

import json
import re
import subprocess
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import pytest
import requests

from fleet.closings import PATH
from fleet.turnstile import TURNS
from tests.localcloud.deployed import Deployment, deployed, until

pytestmark = pytest.mark.controller

FLEET = """\
[[fleets]]
name = "small"
architecture = "x86_64"
classes = ["qemu_x86_64"]
instance_types = ["t3.medium"]
virtualization = "none"
kvm = false
workers_per_host = 2
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
# Tells a host which of its workers take no jobs, as the controller does.
TELL = """
import json, sys, time
from fleet import closings
from userdata.host.layout import Layout
closings.write(Layout().closings, {sys.argv[1]: json.loads(sys.argv[2])}, at=time.time())
"""
# What the controller asks on this machine goes elsewhere; what workers ask does not.
REDIRECT = "table ip faulty { chain output { type nat hook output priority -150; \
ip daddr 127.0.0.1 tcp dport 80 redirect to :%d; }; }"

ASSET = "/srv/data/openqa/share/factory/other/turns.raw"
FETCH = "curl --silent --fail"
# As many as have a turn at a time fetch for more than a minute, which is nginx's patience, and openQA's
# downloader, which has less, waits for them.
FETCH_IN_TURN = f"""
head -c 480M /dev/urandom >{ASSET}
chmod a+r {ASSET}
for _ in {{1..{TURNS}}}; do
  {FETCH} --limit-rate 7M --output /dev/null http://127.0.0.1/assets/other/turns.raw &
done
sleep 1
podman exec --interactive openqa-webui perl -I/usr/share/openqa/lib -MOpenQA::Downloader -MMojo::Log -e '
  mkdir "/tmp/turns";
  my $downloader = OpenQA::Downloader->new(log => Mojo::Log->new, tmpdir => "/tmp/turns");
  my $url = "http://127.0.0.1:8080/assets/other/turns.raw";
  die if defined $downloader->download($url, "/tmp/turns/asset")' 2>&1
podman exec openqa-webui cat /tmp/turns/asset | cmp - {ASSET}
podman exec openqa-webui rm -r /tmp/turns
wait
"""


@dataclass(frozen=True)
class Elastic:
    """The deployment, its fleet and its controller."""

    made: Deployment

    def hosts(self) -> list[str]:
        """The fleet's."""
        return self.made.instances("fleet-small")

    def capacity(self) -> tuple[set[str], int]:
        """The hosts that count, and how many there are to be."""
        counting = ("Pending", "Pending:Wait", "Pending:Proceed", "InService")
        hosts = set(self.made.instances("fleet-small", *counting))
        return hosts, int(self.made.group("fleet-small")["DesiredCapacity"])

    def webui(self, *words: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        """Runs a command on the web UI's host."""
        return self.made.run(self.made.instances("webui")[0], *words, check=check)

    def workers(self, host: str) -> dict[int, str]:
        """The status of each worker of a host, by its number; one that has gone is closed."""
        # openQA may still know a worker that has just gone as one that was about to.
        gone = {"dead": "closed", "broken": "closed"}
        return {
            row["instance"]: gone.get(row["status"], row["status"])
            for row in self.made.openqa.request("GET", "workers")["workers"]
            if host in row["properties"].get("WORKER_CLASS", "")
        }

    def close(self, host: str, *numbers: int) -> dict[int, str]:
        """Tells a host which workers take no jobs; the status of all."""
        self.webui(*PYTHON, "-c", TELL, host, json.dumps(numbers))
        return self.workers(host)

    def journal(self) -> str:
        """What the controller said."""
        return self.webui("journalctl", "--unit", CONTROLLER, "--output=cat", "--no-pager").stdout

    def said(self, words: str) -> int:
        """How often it said something."""
        return self.journal().count(words)

    def started(self, job: int) -> str:
        """Waits until a job runs on a host in service, which its group lets go in order; the host."""

        def running() -> str | None:
            found = self.made.job(job)
            if found["state"] != "running":
                return None
            worker = self.made.openqa.request("GET", f"workers/{found['assigned_worker_id']}")["worker"]
            classes = str(worker["properties"]["WORKER_CLASS"]).split(",")
            host = next(name for name in classes if name.startswith("i-"))
            return host if host in self.made.instances("fleet-small", "InService") else None

        try:
            return until(f"job {job} runs", running, seconds=300)
        except AssertionError as error:
            told = {key: self.made.job(job)[key] for key in ("state", "result", "reason", "clone_id")}
            said = self.journal()[-4000:]
            raise AssertionError(f"{error}, but {told}; the controller said: {said}") from None

    def empty(self) -> None:
        """Waits until the fleet has no host."""
        until("the fleet is empty", lambda: not self.hosts() or None, seconds=120)


@pytest.fixture(scope="module")
def elastic() -> Iterator[Elastic]:
    with deployed("elastic", fleets=FLEET) as made:
        yield Elastic(made)


def test_a_job_brings_up_a_host_and_one_that_must_go_finishes_its_job(elastic: Elastic) -> None:
    assert elastic.capacity() == (set(), 0)
    (job,) = elastic.made.schedule("from-none")
    host = elastic.started(job)
    # By order of somebody else than the controller; nothing but the host's agent waits for the job.
    elastic.webui("systemctl", "stop", CONTROLLER)
    elastic.made.cloud.client("autoscaling").terminate_instance_in_auto_scaling_group(
        InstanceId=host, ShouldDecrementDesiredCapacity=True
    )
    (ended,) = elastic.made.finished([job])
    assert (ended["result"], ended["clone_id"]) == ("passed", None)
    until("the host is gone", lambda: host not in elastic.hosts() or None, seconds=120)
    elastic.webui("systemctl", "start", CONTROLLER)
    # What was launched to spare goes, too.
    elastic.empty()


def test_a_spot_host_that_is_taken_back_hands_its_job_to_another(elastic: Elastic) -> None:
    (job,) = elastic.made.schedule("interrupted")
    host = elastic.started(job)
    time.sleep(5)
    elastic.made.cloud.interrupt(host)
    began = time.monotonic()
    (first,) = elastic.made.finished([job], seconds=110)
    assert time.monotonic() - began < 110
    assert first["result"] == "incomplete"
    again = int(first["clone_id"])
    assert elastic.started(again) != host
    assert host not in elastic.hosts()


@pytest.fixture(scope="module")
def again(elastic: Elastic) -> int:
    """The job that runs on the fleet's only host when the test before has passed."""
    jobs = elastic.made.openqa.request("GET", "jobs", params={"build": "interrupted"})["jobs"]
    return int(max(job["id"] for job in jobs))


@pytest.fixture
def faulty(elastic: Elastic) -> Iterator[Callable[[str], None]]:
    """Gives the controller another openQA: one that is stopped, or answers as told."""

    def become(mode: str) -> None:
        elastic.webui("sh", "-c", f"echo {mode} >/run/faulty")
        port = 8098 if mode == "stopped" else 8099
        elastic.webui("sh", "-c", "nft delete table ip faulty", check=False)
        elastic.webui("nft", REDIRECT % port)

    elastic.webui("sh", "-c", "echo 500 >/run/faulty")
    elastic.webui("systemd-run", "--unit=faulty", "python3", "-c", FAULTY)
    yield become
    elastic.webui("nft", "delete table ip faulty", check=False)
    elastic.webui("systemctl", "stop", "faulty.service", check=False)


def test_whatever_openqa_says_or_does_not_say_nothing_moves(
    elastic: Elastic, again: int, faulty: Callable[[str], None]
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
        before = elastic.said(words)
        faulty(mode)
        until(f"{mode} is noticed", lambda: elastic.said(words) > before or None, seconds=60)  # noqa: B023
        if mode == "stopped":
            hosts, desired = elastic.capacity()
            assert len(hosts) == desired > 0
            assert elastic.made.passed([again])
        # Longer than an idle host is kept, were openQA to be read: a quarter of its boot time.
        time.sleep(20)
        assert elastic.capacity() == (hosts, desired), mode
        assert elastic.said(words) == before + 1, mode


def test_a_killed_controller_comes_back_and_lets_the_idle_host_go(elastic: Elastic) -> None:
    before = elastic.said("the lock is held")
    elastic.webui("systemctl", "kill", "--signal=KILL", CONTROLLER)
    until("it holds the lock", lambda: elastic.said("the lock is held") > before or None, seconds=60)
    elastic.empty()
    assert elastic.capacity() == (set(), 0)


def test_two_controllers_and_one_acts(elastic: Elastic) -> None:
    second = elastic.webui(*PYTHON, "-m", "fleet.controller", "--once", check=False)
    assert second.returncode == 1
    assert "another controller holds the lock" in second.stderr
    look = elastic.webui(*PYTHON, "-m", "fleet.controller", "--once", "--dry-run", "--json")
    seen = json.loads(look.stdout)
    assert seen["unusable"] is None
    assert [fleet["name"] for fleet in seen["fleets"]] == ["small"]
    elastic.webui("systemctl", "stop", CONTROLLER)
    alone = elastic.webui(*PYTHON, "-m", "fleet.controller", "--once")
    assert "small: 0 booting, 0 ready, 0 draining" in alone.stdout
    elastic.webui("systemctl", "start", CONTROLLER)


def test_the_controller_may_size_fleets_and_nothing_else(elastic: Elastic) -> None:
    code = (
        "import boto3; c = boto3.client('autoscaling', region_name='us-east-1'); "
        "c.set_desired_capacity(AutoScalingGroupName='openqa-%s', DesiredCapacity=0)"
    )
    own = elastic.webui("python3", "-c", code % "elastic-fleet-small", check=False)
    assert own.returncode == 0, own.stderr
    other = elastic.webui("python3", "-c", code % "elastic-database", check=False)
    assert "AccessDenied" in other.stderr


def test_metrics_tell_what_it_saw(elastic: Elastic) -> None:
    client = elastic.made.cloud.client("cloudwatch")
    found = client.list_metrics(Namespace="openQA/elastic")["Metrics"]
    names = {metric["MetricName"] for metric in found}
    assert {"Rounds", "RoundsBlind", "JobsWaiting", "OldestWait", "SlotsBusy", "CostPerHour"} <= names
    assert "AccessDenied" not in elastic.journal()


def test_a_worker_that_is_closed_finishes_its_job_and_takes_no_other_until_it_is_opened(
    elastic: Elastic,
) -> None:
    (job,) = elastic.made.schedule("closed")
    host = elastic.started(job)
    elastic.webui("systemctl", "stop", CONTROLLER)
    busy = next(number for number, status in elastic.workers(host).items() if status == "running")
    idle = 3 - busy
    until(
        "the idle worker is closed",
        lambda: elastic.close(host, idle) == {idle: "closed", busy: "running"} or None,
        seconds=60,
    )
    until(
        "the other one has finished its job and is closed",
        lambda: elastic.close(host, idle, busy) == {idle: "closed", busy: "closed"} or None,
    )
    assert elastic.made.passed([job])
    until(
        "one is open again",
        lambda: elastic.close(host, idle) == {idle: "closed", busy: "idle"} or None,
        seconds=60,
    )
    # Nobody says anything any more.
    until("both are open", lambda: set(elastic.workers(host).values()) == {"idle"} or None, seconds=120)
    elastic.webui("systemctl", "start", CONTROLLER)
    elastic.empty()


def test_what_hosts_are_told_is_for_them_alone(elastic: Elastic) -> None:
    inside = elastic.webui("curl", "--silent", "--fail", "http://127.0.0.1" + PATH)
    assert set(json.loads(inside.stdout)) == {"at", "closed"}
    url = elastic.made.openqa.url
    assert requests.get(url + "/health", timeout=10).status_code == 200
    assert requests.get(url + PATH, timeout=10).status_code == 404


def test_assets_are_fetched_in_turn_and_all_at_once_where_nobody_gives_turns(elastic: Elastic) -> None:
    try:
        said = elastic.webui("bash", "-ec", FETCH_IN_TURN).stdout
        assert said.count("Downloading") == 1
        assert "rror" not in said
        told = elastic.webui("journalctl", "--unit=openqa-turnstile", "--output=cat").stdout
        (waited,) = re.findall(r"0\.5 GB waited (\d+) s", told)
        assert int(waited) > 60
        elastic.webui("systemctl", "stop", "openqa-turnstile.socket", "openqa-turnstile.service")
        elastic.webui("bash", "-ec", f"{FETCH} http://127.0.0.1/assets/other/turns.raw | cmp - {ASSET}")
    finally:
        elastic.webui("systemctl", "start", "openqa-turnstile.socket")
        elastic.webui("rm", "--force", ASSET)
