"""Who reaches whom while a job runs, who signs in, and developer mode: two worker hosts of two workers.

The job stands still before its last module (os-autoinst's PAUSE_AT), so that its VNC and its command server
are there for as long as the tests look at them; the last test lets it go on to its end.
"""

from __future__ import annotations

import base64
import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from configparser import ConfigParser
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
import requests

from localcloud.addresses import DEVELOPER, OUTSIDE
from localcloud.authority import Authority
from localcloud.cloud import RunningCloud
from ops.deployment import DeploymentError, OpenQa
from tests.localcloud import websocket
from tests.localcloud.deployed import JOB_SECONDS, SAMPLE, Deployment, deployed, until
from tests.localcloud.lab import outside
from tests.localcloud.probe import OPEN, PROBE_SECONDS, SILENCE, probe
from userdata.host.roles import CACHE_SOCKET

# Who signs in comes from a provider outside the VPC.
SIGN_IN = f"""\
method = "OAuth2"
provider = "custom"
authorize_url = "https://{OUTSIDE}/authorize?response_type=code"
token_url = "https://{OUTSIDE}/token"
user_url = "https://{OUTSIDE}/user"
token_scope = "openid profile"
token_label = "Bearer"
id_from = "id"
nickname_from = "nickname"
unique_name = "example"
administrators = ["alice", "bob@example.org"]
"""
CLIENT = {"key": "openQA access", "secret": r"""a;b #c="d"'e'%f\g$h"""}
CALLBACK = "https://localhost/login"  # as the environment's domain has it
PROVIDER = Path(__file__).with_name("provider.py")
TRUST = "cat >/usr/local/share/ca-certificates/provider.crt && update-ca-certificates"
CHANGES = {
    'method = "Fake"\n': SIGN_IN,
    'trusted = ["127.0.0.0/8"]\n': f'trusted = ["127.0.0.0/8"]\ndevelopers = ["{DEVELOPER}/32"]\n',
    "workers_per_host = 1\n": "workers_per_host = 2\n",
    "min = 1\n": "min = 2\n",
}
JOB = json.loads((SAMPLE / "job.json").read_text())
LAST_MODULE = "screen"

# Ports that nothing of openQA uses, where the tests listen.
ANY_PORT = 8000
FROM_ADDRESS = f"""
import socket, sys
source, host, port = sys.argv[1:]
try:
    connection = socket.create_connection((host, int(port)), {PROBE_SECONDS}, source_address=(source, 0))
    connection.settimeout(20)
    print(connection.recv(12).decode(errors="replace"))
except TimeoutError:
    sys.exit(124)
except OSError:
    sys.exit(1)
"""


def run(words: list[str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(words, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=120)


@dataclass(frozen=True)
class Instance:
    """A machine of the deployment."""

    cloud: RunningCloud
    id: str
    address: str

    def run(self, *words: str) -> subprocess.CompletedProcess[str]:
        """Runs a command in it, as root."""
        leader = self.cloud.leader(self.id)
        assert leader is not None
        return run(["nsenter", f"--target={leader}", "--all", "--wd=/", *words])

    def output(self, *words: str) -> str:
        """What a command prints; it must succeed."""
        done = self.run(*words)
        assert done.returncode == 0, done
        return done.stdout.strip()

    def reach(self, host: str, port: int) -> int:
        """What becomes of a TCP connection to somewhere."""
        return self.run(*probe(host, port)).returncode


@dataclass(frozen=True)
class Container:
    """A container on a worker host."""

    host: Instance
    name: str

    def run(self, *words: str, user: str = "root") -> subprocess.CompletedProcess[str]:
        return self.host.run("podman", "exec", f"--user={user}", self.name, *words)

    def reach(self, host: str, port: int) -> int:
        return self.run(*probe(host, port)).returncode

    @property
    def address(self) -> str:
        """Its own address, on its own network."""
        shown = "{{range .NetworkSettings.Networks}}{{.IPAddress}}{{end}}"
        return self.host.output("podman", "inspect", "--format", shown, self.name)


@dataclass(frozen=True)
class Hosts:
    """The deployment's hosts."""

    cloud: RunningCloud
    openqa: OpenQa
    database: Instance
    webui: Instance
    workers: tuple[Instance, Instance]

    def from_outside(self, source: object, host: str, port: int) -> subprocess.CompletedProcess[str]:
        """Connects from an address outside the VPC; prints the first bytes that come."""
        words = (sys.executable, "-c", FROM_ADDRESS, str(source), host, str(port))
        return run(outside(self.cloud, *words))


def instances(made: Deployment, group: str, *, count: int = 1) -> list[Instance]:
    ids = made.serving(group, count=count)
    found = made.cloud.client("ec2").describe_instances(InstanceIds=ids)["Reservations"]
    return [
        Instance(made.cloud, instance["InstanceId"], instance["PrivateIpAddress"])
        for reservation in found
        for instance in reservation["Instances"]
    ]


def idle_workers(openqa: OpenQa) -> list[Any] | None:
    idle = [worker for worker in openqa.request("GET", "workers")["workers"] if worker["status"] == "idle"]
    return idle if len(idle) == 4 else None


@contextmanager
def provider(made: Deployment, webui: str, folder: Path) -> Iterator[None]:
    """A provider outside, whose authority the web UI's container trusts as it does public ones."""
    authority = Authority()
    trust = ("podman", "exec", "--interactive", "--user=root", "openqa-webui", "sh", "-c", TRUST)
    made.run(webui, *trust, stdin=authority.certificate.decode())
    (folder / "provider.pem").write_bytes(authority.issue([str(OUTSIDE)]))
    (folder / "client.json").write_text(json.dumps(CLIENT | {"callback": CALLBACK}))
    arguments = [str(OUTSIDE), str(folder / "provider.pem"), str(folder / "client.json")]
    server = subprocess.Popen(outside(made.cloud, sys.executable, str(PROVIDER), *arguments))
    try:
        connects = probe(str(OUTSIDE), 443)
        until(
            "the provider listens",
            lambda: made.run(webui, *connects, check=False).returncode == OPEN or None,
            seconds=60,
        )
        yield
    finally:
        server.terminate()
        server.wait()


@pytest.fixture(scope="module")
def hosts(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Hosts]:
    with deployed("access", CHANGES) as made:
        (database,), (webui,) = instances(made, "database"), instances(made, "webui")
        # Who administers is said again, as at every start.
        made.enter_secret("sign-in", CLIENT)
        until("four idle workers", lambda: idle_workers(made.openqa), seconds=300)
        first, second = instances(made, "fleet-small", count=2)
        with provider(made, webui.id, tmp_path_factory.mktemp("provider")):
            yield Hosts(made.cloud, made.openqa, database, webui, (first, second))


@dataclass(frozen=True)
class PausedJob:
    """A job that stands still, and where.

    Attributes:
        id: its number.
        number: the worker instance that runs it.
        host: that worker's host.
        worker: that worker's container.
        neighbour: the other container of the host.
        other_host: the host that does not run it.
    """

    id: int
    number: int
    host: Instance
    worker: Container
    neighbour: Container
    other_host: Instance

    @property
    def vnc(self) -> int:
        return 5990 + self.number

    @property
    def developer_mode(self) -> int:
        return 20003 + 10 * self.number


@pytest.fixture(scope="module")
def job(hosts: Hosts) -> PausedJob:
    """The sample job, paused before its last module."""
    openqa = hosts.openqa
    settings = JOB | {"BUILD": "access", "PAUSE_AT": LAST_MODULE}
    number = int(openqa.request("POST", "jobs", data=settings)["id"])

    def is_there() -> dict[str, Any] | None:
        found: dict[str, Any] = openqa.request("GET", f"jobs/{number}/details")["job"]
        assert found["state"] != "done", found
        passed = [module["name"] for module in found["testresults"] if module["result"] == "passed"]
        return found if "isolation" in passed else None

    found = until("the job stands before its last module", is_there, seconds=JOB_SECONDS)
    worker = openqa.request("GET", f"workers/{found['assigned_worker_id']}")["worker"]
    at = int(worker["instance"])
    others = {host.address: host for host in hosts.workers}
    host = others.pop(worker["properties"]["WORKER_HOSTNAME"])
    return PausedJob(
        id=number,
        number=at,
        host=host,
        worker=Container(host, f"openqa-worker-{at}"),
        neighbour=Container(host, f"openqa-worker-{3 - at}"),
        other_host=next(iter(others.values())),
    )


def listen(container: Container, port: int) -> None:
    """Something answers on a port of a container from now on."""
    server = f"IO::Socket::INET->new(LocalPort => {port}, Listen => 5, ReuseAddr => 1) or die"
    serve = f"my $server = {server}; while (my $client = $server->accept) {{ print $client 'here' }}"
    words = ("perl", "-MIO::Socket::INET", "-e", serve)
    container.host.output("podman", "exec", "--detach", container.name, *words)
    until(
        f"{container.name} listens",
        lambda: container.host.reach(container.address, port) == OPEN or None,
        seconds=20,
    )


@pytest.mark.access
class TestWorkerHosts:
    def test_the_way_to_the_web_ui(self, hosts: Hosts) -> None:
        for worker in hosts.workers:
            assert worker.reach("webui.access.openqa.internal", 80) == OPEN
            assert worker.reach("webui.access.openqa.internal", 873) == OPEN

    def test_their_key_is_for_what_workers_do(self, hosts: Hosts) -> None:
        """With which their workers are idle now: it is one."""
        said = ConfigParser()
        said.read_string(hosts.workers[0].output("cat", "/run/openqa-on-aws/config/client.conf"))
        key, secret = (said["webui.access.openqa.internal"][half] for half in ("key", "secret"))
        openqa = OpenQa(url=hosts.cloud.url, key=key, secret=secret)
        for path, data in (
            ("machines", {"name": "other", "backend": "qemu"}),
            ("jobs", {"TEST": "stolen", "DISTRI": "sample", "VERSION": "1", "FLAVOR": "x", "ARCH": "x86_64"}),
        ):
            with pytest.raises(DeploymentError, match="403"):
                openqa.request("POST", path, data=data)
            # As a personal access token, by which nginx would not know it.
            refused = requests.post(
                f"{hosts.cloud.url}/api/v1/{path}",
                data=data,
                auth=("openQA on AWS: workers", f"{key}:{secret}"),
                verify=str(hosts.cloud.certificate),
                timeout=30,
            )
            assert (refused.status_code, "token" in refused.text) == (403, True)
        assert hosts.openqa.request("GET", "machines", params={"name": "other"})["Machines"] == []
        assert hosts.openqa.request("GET", "jobs", params={"test": "stolen"})["jobs"] == []

    def test_no_way_to_postgresql(self, hosts: Hosts) -> None:
        database = "database.access.openqa.internal"
        assert hosts.webui.reach(database, 5432) == OPEN
        for worker in hosts.workers:
            assert worker.reach(database, 5432) == SILENCE

    @pytest.mark.parametrize("port", [22, 8080, 9526])
    def test_no_way_to_other_ports_of_the_web_ui(self, hosts: Hosts, port: int) -> None:
        assert hosts.workers[0].reach("webui.access.openqa.internal", port) == SILENCE

    def test_no_way_to_another_worker_host(self, hosts: Hosts, job: PausedJob) -> None:
        for port in (job.vnc, job.developer_mode, 22, ANY_PORT):
            assert job.other_host.reach(job.host.address, port) == SILENCE

    def test_none_of_its_containers_may_either(self, hosts: Hosts, job: PausedJob) -> None:
        stranger = Container(job.other_host, "openqa-worker-1")
        for port in (job.vnc, job.developer_mode):
            assert stranger.reach(job.host.address, port) == SILENCE
        assert stranger.reach(hosts.database.address, 5432) == SILENCE


@pytest.mark.access
class TestOutside:
    def test_a_developer_sees_the_screen_of_a_running_job(self, hosts: Hosts, job: PausedJob) -> None:
        seen = hosts.from_outside(DEVELOPER, job.host.address, job.vnc)
        assert seen.stdout.startswith("RFB 003."), seen

    def test_nobody_else_does(self, hosts: Hosts, job: PausedJob) -> None:
        assert hosts.from_outside(OUTSIDE, job.host.address, job.vnc).returncode == SILENCE
        assert hosts.webui.reach(job.host.address, job.vnc) == SILENCE

    def test_nobody_speaks_for_a_worker(self, hosts: Hosts) -> None:
        for worker in hosts.openqa.request("GET", "workers")["workers"]:
            url = f"{hosts.cloud.url}/api/v1/ws/{worker['id']}"
            with (
                pytest.raises(websocket.RefusedError, match="403"),
                websocket.connect(url, authority=hosts.cloud.certificate),
            ):
                pass

    @pytest.mark.parametrize("source", [OUTSIDE, DEVELOPER])
    def test_nothing_else_answers(self, hosts: Hosts, job: PausedJob, source: object) -> None:
        closed = [
            (hosts.database.address, 5432),
            ("10.99.128.10", 5432),
            ("10.99.128.20", 80),
            ("10.99.128.20", 873),
            (hosts.webui.address, 80),
            (job.host.address, job.developer_mode),
            (job.host.address, 22),
        ]
        for host, port in closed:
            assert hosts.from_outside(source, host, port).returncode == SILENCE, (host, port)


@pytest.mark.access
class TestContainers:
    def test_the_ways_that_jobs_need(self, job: PausedJob) -> None:
        assert job.neighbour.reach("webui.access.openqa.internal", 80) == OPEN
        assert job.neighbour.reach("webui.access.openqa.internal", 873) == OPEN
        asked = ("curl", "--silent", "--fail", "--unix-socket", str(CACHE_SOCKET), "http://localhost/info")
        assert "workers" in job.neighbour.run(*asked, user="_openqa-worker").stdout

    def test_no_way_to_the_neighbour(self, hosts: Hosts, job: PausedJob) -> None:
        listen(job.worker, ANY_PORT)
        for port in (job.vnc, job.developer_mode, ANY_PORT):
            assert job.host.reach(job.worker.address, port) == OPEN
            assert job.neighbour.reach(job.worker.address, port) == SILENCE
        # Nor by the ports that the host publishes.
        assert hosts.webui.reach(job.host.address, job.developer_mode) == OPEN
        for port in (job.vnc, job.developer_mode):
            assert job.neighbour.reach(job.host.address, port) == SILENCE

    def test_no_way_to_the_host(self, job: PausedJob) -> None:
        gateway = str(job.neighbour.address).rpartition(".")
        addresses = (job.host.address, "192.168.122.1", f"{gateway[0]}.{int(gateway[2]) - 1}")
        serve = ("python3", "-m", "http.server", str(ANY_PORT), "--directory=/run/openqa-on-aws/config")
        job.host.output("systemd-run", "--unit=access-test", *serve)
        until("a server there", lambda: job.host.reach("127.0.0.1", ANY_PORT) == OPEN or None, seconds=30)
        try:
            for address in addresses:
                assert job.host.reach(address, ANY_PORT) == OPEN
                assert job.neighbour.reach(address, ANY_PORT) == SILENCE
        finally:
            job.host.run("systemctl", "stop", "access-test.service")

    def test_no_way_to_the_cache_that_a_guest_could_take(self, job: PausedJob) -> None:
        cache = Container(job.host, "openqa-cacheservice")
        listen(cache, ANY_PORT)
        for port in (ANY_PORT, 9530):
            assert job.neighbour.reach(cache.address, port) == SILENCE
        assert cache.reach(job.worker.address, job.vnc) == SILENCE

    def test_no_privileges(self, job: PausedJob) -> None:
        for user in ("root", "_openqa-worker"):
            sets = job.worker.run("grep", "^Cap", "/proc/self/status", user=user).stdout
            assert sets.count("\t0000000000000000") == 5, sets
        assert job.worker.run("test", "-e", "/dev/kvm").returncode == 1
        privileged = "{{.HostConfig.Privileged}}"
        assert job.host.output("podman", "inspect", "--format", privileged, job.worker.name) == "false"

    def test_just_two_ports_are_published(self, job: PausedJob) -> None:
        published = job.host.output("podman", "port", job.worker.name).splitlines()
        ports = [f"{port}/tcp -> 0.0.0.0:{port}" for port in (job.vnc, job.developer_mode)]
        assert sorted(published) == sorted(ports)

    def test_a_job_is_out_of_the_neighbours_sight(self, job: PausedJob) -> None:
        pool = f"/var/lib/openqa/pool/{job.number}"
        assert "vars.json" in job.worker.run("ls", pool).stdout
        for user in ("root", "_openqa-worker"):
            assert job.neighbour.run("ls", "-A", pool, user=user).stdout == ""
            assert job.neighbour.run("touch", f"{pool}/file", user=user).returncode != 0

    def test_the_cache_sees_no_pool(self, job: PausedJob) -> None:
        for name in ("openqa-cacheservice", "openqa-cacheservice-minion"):
            folders = ("/var/lib/openqa/cache", f"/var/lib/openqa/pool/{job.number}")
            seen = Container(job.host, name).run("ls", "-A", *folders)
            assert "cache.sqlite" in seen.stdout
            assert "vars.json" not in seen.stdout

    def test_assets_are_linked_not_copied(self, job: PausedJob) -> None:
        links = job.host.output("stat", "--format=%h", f"/var/lib/openqa/pool/{job.number}/sample.iso")
        assert int(links) == 2

    def test_no_worker_was_ever_broken(self, hosts: Hosts) -> None:
        for host in hosts.workers:
            journal = host.output("journalctl", "--output=cat", "--unit=openqa-worker@*.service")
            assert "Registering with openQA" in journal
            assert "cache not available" not in journal


def signed_in(hosts: Hosts, person: str) -> requests.Session:
    """A browser in which somebody signed in: from openQA to the provider, and back with what that said."""
    browser = requests.Session()
    browser.verify = str(hosts.cloud.certificate)
    sent = browser.get(f"{hosts.cloud.url}/login", allow_redirects=False, timeout=30)
    assert sent.status_code == 302, sent.text
    # This machine reaches the provider from outside the VPC alone.
    ask = ("curl", "--silent", "--insecure", "--cookie", f"person={person}", "--write-out", "%{redirect_url}")
    back = run(outside(hosts.cloud, *ask, sent.headers["Location"])).stdout
    assert back.startswith(f"{CALLBACK}?"), back
    answer = browser.get(f"{hosts.cloud.url}/login?{urlsplit(back).query}", timeout=30, allow_redirects=False)
    assert answer.status_code == 302, answer.text
    return browser


def developer_mode(hosts: Hosts, job: PausedJob, path: str = "") -> str:
    return f"{hosts.cloud.url}/liveviewhandler/tests/{job.id}/developer/ws-proxy{path}"


def status_in(connection: websocket.WebSocket, condition: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
    """The first message of the worker's command server that fulfils a condition."""
    seen = []
    for message in connection.messages():
        seen.append(message)
        data: dict[str, Any] = message.get("data") or {}
        if message["what"] == "cmdsrvmsg" and condition(data):
            return data
    raise AssertionError(seen)


@pytest.mark.access
class TestSignIn:
    def test_who_administers_does_from_the_first_time(self, hosts: Hosts) -> None:
        browser = signed_in(hosts, "alice")
        assert "Logged in as alice" in browser.get(hosts.cloud.url, timeout=30).text
        users = browser.get(f"{hosts.cloud.url}/admin/users", timeout=30)
        assert (users.status_code, "bob@example.org" in users.text) == (200, True)

    def test_others_may_look(self, hosts: Hosts) -> None:
        browser = signed_in(hosts, "mallory")
        assert "Logged in as mallory" in browser.get(hosts.cloud.url, timeout=30).text
        assert browser.get(f"{hosts.cloud.url}/admin/users", timeout=30).status_code == 403

    def test_a_guessed_code_lets_nobody_in(self, hosts: Hosts) -> None:
        browser = requests.Session()
        browser.verify = str(hosts.cloud.certificate)
        refused = browser.get(f"{hosts.cloud.url}/login", params={"code": "guessed"}, timeout=30)
        assert refused.status_code == 403
        assert "Logged in as" not in browser.get(hosts.cloud.url, timeout=30).text


@contextmanager
def event_stream(hosts: Hosts, path: str, *, seconds: float) -> Iterator[Iterator[str]]:
    """The lines of an endless answer; ConnectionError where the next one takes longer."""
    authority = str(hosts.cloud.certificate)
    with requests.get(hosts.cloud.url + path, stream=True, timeout=seconds, verify=authority) as answer:
        yield (line.decode() for line in answer.iter_lines(chunk_size=1))


@pytest.mark.devmode
class TestDeveloperMode:
    def test_nobody_who_is_not_signed_in(self, hosts: Hosts, job: PausedJob) -> None:
        with (
            pytest.raises(websocket.RefusedError, match="302"),
            websocket.connect(developer_mode(hosts, job), authority=hosts.cloud.certificate),
        ):
            pass

    def test_everybody_sees_the_status(self, hosts: Hosts, job: PausedJob) -> None:
        url = developer_mode(hosts, job, "/status")
        with websocket.connect(url, authority=hosts.cloud.certificate) as connection:
            status = status_in(connection, lambda data: "running" in data)
        assert status["running"] == LAST_MODULE
        assert status["test_execution_paused"]

    def test_the_live_view(self, hosts: Hosts, job: PausedJob) -> None:
        with event_stream(hosts, f"/liveviewhandler/tests/{job.id}/streaming", seconds=60) as pictures:
            picture = next(line for line in pictures if "base64," in line)
            assert base64.b64decode(picture.partition("base64,")[2]).startswith(b"\x89PNG")

            # The worker sends its log, too, for as long as somebody looks at the pictures.
            def log() -> str | None:
                said = f"pausing test execution of {LAST_MODULE}"
                try:
                    with event_stream(hosts, f"/tests/{job.id}/livelog", seconds=5) as lines:
                        return next(line for line in lines if said in line)
                except requests.ConnectionError:  # nothing new for so long
                    return None

            until("the live log", log, seconds=60)

    # The last test: the job ends.
    def test_an_operator_lets_the_paused_job_go_on(self, hosts: Hosts, job: PausedJob) -> None:
        cookie = "; ".join(f"{cookie.name}={cookie.value}" for cookie in signed_in(hosts, "alice").cookies)
        url = developer_mode(hosts, job)
        with websocket.connect(url, authority=hosts.cloud.certificate, cookie=cookie) as connection:
            status = status_in(connection, lambda data: "running" in data)
            assert status["running"] == LAST_MODULE
            assert status["developer_name"] == "alice"
            connection.send({"cmd": "resume_test_execution"})
            status_in(connection, lambda data: "resume_test_execution" in data)

        def ended() -> dict[str, Any] | None:
            found: dict[str, Any] = hosts.openqa.request("GET", f"jobs/{job.id}")["job"]
            return found if found["state"] == "done" else None

        assert until("the job ends", ended, seconds=JOB_SECONDS)["result"] == "passed"
