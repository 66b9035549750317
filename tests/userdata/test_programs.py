"""What the real programs say of the scripts and of the rendered configuration."""

from __future__ import annotations

import getpass
import os
import re
import shlex
import shutil
import socket
import subprocess
import time
from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, closing
from http.client import HTTPConnection
from ipaddress import IPv4Interface
from pathlib import Path

import pytest
import requests

from fleet import catalogue
from images.root import golden_path
from tests.prerequisites import missing
from tests.userdata import machine
from tests.userdata.test_boot import user_data
from userdata.host import mesh, switch, tap

GOLDEN = Path(__file__).parent / "golden"
USERDATA = machine.REPOSITORY / "userdata"
SCRIPTS = sorted(
    path
    for path in USERDATA.rglob("*.sh")
    if not {"containers", "content"} & set(path.relative_to(USERDATA).parts)
)

# Quadlet says what is wrong only when it is asked to show what it would do.
_GENERATE = """
export QUADLET_UNIT_DIRS=/mnt/etc/containers/systemd
/usr/lib/systemd/system-generators/podman-system-generator --dryrun 2>&1 >/dev/null
mkdir -p /mnt/generated
/usr/lib/systemd/system-generators/podman-system-generator /mnt/generated /mnt/generated /mnt/generated
"""
# The bundle's programs are not in the golden root.
_VERIFY = """
mkdir -p /mnt/units
cp -r /mnt/generated/. /mnt/etc/systemd/system/. /mnt/units
sed -i 's#^ExecStart=.*/opt/.*#ExecStart=/bin/true#; /^ExecStartPost=/d' /mnt/units/*.service
export SYSTEMD_UNIT_PATH=/mnt/units:
find /mnt/units -maxdepth 1 -type f -exec systemd-analyze verify --man=no --recursive-errors=no {} + 2>&1
"""


def says(*command: str, folder: Path = machine.REPOSITORY) -> str:
    """Runs a program that must succeed; returns all it said."""
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{' '.join(command)}\n{done.stdout}{done.stderr}"
    return done.stdout + done.stderr


def golden_root() -> Path:
    """The golden root: Debian 13 with systemd, podman and cloud-init."""
    if os.geteuid() != 0:
        missing("entering the golden root needs root")
    if not (root := golden_path()).exists():
        missing("the golden root is not built: python -m images golden")
    return root


def inside(root: Path, shown: Path, script: str) -> str:
    """Runs a script in the root, which sees a folder as /mnt; nothing stays mounted."""
    return says(
        *("unshare", "--mount", "--propagation", "private", "sh", "-ec"),
        'mount --bind "$1" "$0/mnt"; mount -t proc proc "$0/proc"; exec chroot "$0" sh -ec "$2"',
        *(str(root), str(shown), script),
    )


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.relative_to(USERDATA).as_posix())
def test_scripts_parse_and_are_clean(script: Path) -> None:
    says("bash", "-n", str(script))
    says(machine.program("shellcheck"), "--external-sources", "--source-path=.", str(script))
    says(machine.program("shfmt"), "-d", "-i", "2", "-ci", str(script))


def test_os_tables_define_the_same() -> None:
    def names(script: Path) -> str:
        return says(
            *("env", "-i", "PATH=/usr/bin:/bin", "bash", "-c"),
            'before=$(compgen -v); . "$0" 2>/dev/null; comm -13 <(sort <<<"$before") <(compgen -v | sort) '
            '| grep -v -e before -e PIPESTATUS -e "^_$"; compgen -A function',
            str(script),
        )

    assert names(USERDATA / "os/debian.sh") == names(USERDATA / "os/fedora.sh")


def test_no_apparmor_profile_denies_openqa_its_configuration() -> None:
    profiles = golden_root() / "etc/apparmor.d"
    found = sorted(path.name for path in profiles.glob("usr.share.openqa*"))
    assert found == ["usr.share.openqa.script.worker"]
    for name in found:
        assert (profiles / "disable" / name).readlink() == Path("..") / name


def test_no_apparmor_profile_denies_containers_their_own_signals() -> None:
    """It comes with AppArmor, which this root lacks."""
    assert (golden_root() / "etc/apparmor.d/disable/crun").readlink() == Path("../crun")


@pytest.mark.parametrize("name", ["worker-tap", "worker-mesh"])
def test_no_upgrade_ends_the_jobs_of_a_tap_host(tmp_path: Path, name: str) -> None:
    """The packages with workers, of which one stops all of them, and with their network."""
    shutil.copytree(GOLDEN / name / "etc/apt/apt.conf.d", tmp_path / "apt")
    script = "APT_CONFIG=/mnt/apt/90openqa-on-aws apt-config dump Unattended-Upgrade::Package-Blacklist"
    said = inside(golden_root(), tmp_path, script)
    kept = re.findall(r'"(.+)"', said)
    installed = inside(golden_root(), tmp_path, "dpkg-query --show --showformat '${Package} '").split()
    stops = {package for package in installed if package.startswith(("openqa", "os-auto", "openvswitch-"))}
    # As unattended-upgrades takes them: patterns that match the beginning.
    assert stops
    assert stops == {package for package in installed if any(re.match(one, package) for one in kept)}


@pytest.mark.parametrize("name", [name for name in machine.NAMES if name.startswith(("database", "webui"))])
def test_what_others_are_bound_to_is_tried_for_ever(name: str, tmp_path: Path) -> None:
    """On hosts that nobody replaces as long as they are well."""
    root = golden_root()
    shutil.copytree(GOLDEN / name / "etc", tmp_path / "etc")
    inside(root, tmp_path, _GENERATE)
    folders = (tmp_path / "generated", tmp_path / "etc/systemd/system")
    units = {path.name: path.read_text() for folder in folders for path in folder.glob("openqa-*.service")}
    bound = {
        other
        for text in units.values()
        for line in text.splitlines()
        if line.startswith(("BindsTo=", "Requires="))
        for other in line.partition("=")[2].split()
        if other.startswith("openqa-") and other.endswith(".service")
    }
    assert "openqa-configure.service" in bound
    # Nobody requires the host's address, and without it all are out of reach. The volume's mount requires it.
    for other in bound | {"openqa-interface.service", "openqa-volume.service"}:
        text = units[other]
        assert "StartLimitIntervalSec=0" in text, other
        assert "Restart=" in text, other
        assert "RestartMode=direct" in text, other


@pytest.mark.parametrize("name", machine.NAMES)
def test_systemd_and_quadlet_take_all_units(name: str, tmp_path: Path) -> None:
    root = golden_root()
    shutil.copytree(GOLDEN / name / "etc", tmp_path / "etc")
    inside(root, tmp_path, _GENERATE)
    quadlets = (tmp_path / "etc/containers/systemd").exists()
    assert quadlets == bool(list((tmp_path / "generated").glob("openqa-*.service")))
    assert inside(root, tmp_path, _VERIFY).strip() == ""


@pytest.mark.parametrize("name", machine.NAMES)
def test_nothing_fails_for_ever_because_another_service_starts_a_second_time(name: str) -> None:
    files = [path for path in (GOLDEN / name / "etc").rglob("*") if path.is_file()]
    required = {
        word
        for path in files
        for line in path.read_text().splitlines()
        if line.startswith("Requires=")
        for word in line.removeprefix("Requires=").split()
    }
    units = {
        path.with_suffix(".service").name: path.read_text()
        for path in files
        if path.suffix in (".service", ".container")
    }
    again = {unit for unit, text in units.items() if "\nRestart=" in text}
    direct = {unit for unit, text in units.items() if "\nRestartMode=direct\n" in text}
    assert "openqa-configure.service" in required
    assert required & again <= direct


@pytest.mark.parametrize("name", machine.NAMES)
def test_what_runs_others_code_requires_that_metadata_is_closed(name: str) -> None:
    etc = GOLDEN / name / "etc"
    requires: dict[str, set[str]] = defaultdict(set)
    for path in (path for path in etc.rglob("*") if path.suffix in (".service", ".container", ".conf")):
        unit = path.parent.name.removesuffix(".service.d") if path.suffix == ".conf" else path.stem
        for line in path.read_text().splitlines():
            if line.startswith("Requires="):
                requires[unit] |= {
                    word.removesuffix(".service") for word in line.removeprefix("Requires=").split()
                }
    runs = {path.stem for path in etc.rglob("*.container")} | set(requires) & {"openqa-worker-plain@"}
    for unit in runs or {"disk-image-build"}:
        needed, known = {unit}, set[str]()
        while needed - known:
            other = (needed - known).pop()
            known.add(other)
            needed |= requires[other]
        assert "openqa-metadata" in known, unit


@pytest.mark.parametrize("name", machine.NAMES)
def test_volumes_that_containers_share_are_made_before_them(name: str) -> None:
    folder = GOLDEN / name / "etc/containers/systemd"
    for container in folder.glob("*.container"):
        for line in container.read_text().splitlines():
            source = line.removeprefix("Volume=").partition(":")[0]
            if line.startswith("Volume=") and not source.startswith("/"):
                assert (folder / source).is_file(), f"{container.name}: {line}"


def test_quadlet_and_systemd_find_faults(tmp_path: Path) -> None:
    root = golden_root()
    quadlets = tmp_path / "etc/containers/systemd"
    quadlets.mkdir(parents=True)
    (tmp_path / "etc/systemd/system").mkdir(parents=True)
    (quadlets / "a.container").write_text("[Container]\nImage=localhost/a\nVolumes=/a:/a\n")
    with pytest.raises(AssertionError, match="unsupported key 'Volumes'"):
        inside(root, tmp_path, _GENERATE)
    (quadlets / "a.container").unlink()
    (tmp_path / "etc/systemd/system/b.service").write_text("[Service]\nExecStart=/bin/true\nRestarted=no\n")
    inside(root, tmp_path, _GENERATE)
    with pytest.raises(AssertionError, match="Unknown key 'Restarted'"):
        inside(root, tmp_path, _VERIFY)


def test_nginx_takes_its_configuration(tmp_path: Path) -> None:
    text = (GOLDEN / "webui/run/openqa-on-aws/config/nginx.conf").read_text()
    for folder in ("/tmp/", "/var/lib/openqa/nginx/"):
        text = text.replace(folder, f"{tmp_path}/")
    (tmp_path / "nginx.conf").write_text(text)
    nginx = machine.program("nginx", arguments=("-v",))
    said = says(nginx, "-t", "-q", "-c", str(tmp_path / "nginx.conf"), "-p", str(tmp_path))
    assert "warn" not in said


@pytest.fixture
def openqa() -> int:
    """The port where nginx looks for the web UI's processes; nobody listens yet."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        port: int = server.getsockname()[1]
    return port


@pytest.fixture
def web(tmp_path: Path, openqa: int) -> Iterator[str]:
    """The web UI's nginx, with nothing of openQA behind it."""
    text = (GOLDEN / "webui/run/openqa-on-aws/config/nginx.conf").read_text()
    with socket.create_server(("127.0.0.1", 0)) as public, socket.create_server(("127.0.0.1", 0)) as assets:
        ports = [str(server.getsockname()[1]) for server in (public, assets)]
    for old, new in (
        *(("/tmp/", f"{tmp_path}/"), ("/var/lib/openqa/nginx/", f"{tmp_path}/")),
        *(("/var/lib/openqa/", f"{tmp_path}/"), ("8080", ports[0]), ("8081", ports[1])),
        ("9526", str(openqa)),
    ):
        text = text.replace(old, new)
    (tmp_path / "nginx.conf").write_text(text)
    nginx = machine.program("nginx", arguments=("-v",))
    words = [nginx, "-c", str(tmp_path / "nginx.conf"), "-p", str(tmp_path)]
    # Where it starts as root: no other user gets into the tests' folders.
    words += ["-g", f"user {getpass.getuser()};"]
    with subprocess.Popen(words, stderr=subprocess.PIPE, text=True) as process:
        try:
            while not (tmp_path / "nginx.pid").exists():
                assert process.poll() is None, process.communicate()
                time.sleep(0.02)
            yield f"http://127.0.0.1:{ports[0]}"
        finally:
            process.terminate()


@pytest.mark.parametrize(
    ("path", "status"),
    [("/assets/other/report.html", 200), ("/tests/1/file/log.html", 502), ("/tests/1/images/log.html", 502)],
)
def test_what_jobs_wrote_runs_no_script_as_openqa(web: str, tmp_path: Path, path: str, status: int) -> None:
    (tmp_path / "share/factory/other").mkdir(parents=True)
    (tmp_path / "share/factory/other/report.html").write_text("<script></script>")
    answer = requests.get(web + path, headers={"X-Forwarded-For": "192.0.2.1"}, timeout=10)
    assert (answer.status_code, answer.headers["Content-Security-Policy"]) == (status, "sandbox")


def test_what_workers_upload_may_be_large(web: str) -> None:
    key = {"X-API-Key": machine.WORKER_KEY[:16]}
    answer = requests.post(f"{web}/api/v1/jobs/1/artefact", data=bytes(65 << 20), headers=key, timeout=30)
    assert answer.status_code == 502  # nginx took it all, and openQA is away


@pytest.mark.parametrize(
    ("path", "key", "forwarded", "status"),
    [
        ("/api/v1/jobs/1/artefact", machine.WORKER_KEY[:16], "192.0.2.1", 413),
        ("/api/v1/jobs/1/artefact", "", "", 403),  # a guest
        ("/", "", "192.0.2.1", 413),
        ("/api/v1/jobs/1/status", machine.WORKER_KEY[:16], "", 413),
    ],
)
def test_nothing_else_large_is_kept_before_openqa_asks_who_sends_it(
    web: str, path: str, key: str, forwarded: str, status: int
) -> None:
    with closing(HTTPConnection(web.removeprefix("http://"), timeout=10)) as connection:
        connection.putrequest("POST", path)
        connection.putheader("X-Forwarded-For", forwarded)
        connection.putheader("X-API-Key", key)
        connection.putheader("Content-Length", str(65 << 20))
        connection.endheaders()
        assert connection.getresponse().status == status


@pytest.mark.parametrize(
    ("forwarded", "header", "status"),
    [
        ("192.0.2.1", ("Content-Length", "999999"), None),
        ("192.0.2.1", ("Content-Length", "1000000"), 413),
        # What a visitor says itself stands before what the load balancer adds.
        (", 192.0.2.1", ("Content-Length", "1000000"), 413),
        ("2001:db8::1", ("Content-Length", "1000000"), 413),
        ("192.0.2.1", ("Transfer-Encoding", "chunked"), 411),
        ("", ("Content-Length", "1000000"), None),
        ("", ("Transfer-Encoding", "chunked"), None),
    ],
)
def test_visitors_send_little(web: str, forwarded: str, header: tuple[str, str], status: int | None) -> None:
    """An API key or a session does not make it more: nginx knows neither from one that is made up."""
    with closing(HTTPConnection(web.removeprefix("http://"), timeout=1)) as connection:
        connection.putrequest("POST", "/api/v1/isos")
        connection.putheader("X-Forwarded-For", forwarded)
        connection.putheader("X-API-Key", machine.API_KEY[:16])
        connection.putheader(*header)
        connection.endheaders()
        if status is None:
            with pytest.raises(TimeoutError):  # it waits for the rest
                connection.getresponse()
        else:
            assert connection.getresponse().status == status


def ask(web: str, opened: ExitStack, path: str, visitor: str, *, sends: int = 0) -> socket.socket:
    """Asks for something, for as long as the connection is open; with less than a visitor says to send."""
    host, port = web.removeprefix("http://").split(":")
    connection = opened.enter_context(socket.create_connection((host, int(port)), timeout=10))
    lines = [f"POST {path} HTTP/1.1" if sends else f"GET {path} HTTP/1.1", "Host: x", "Connection: close"]
    lines += [f"Content-Length: {sends}"] if sends else []
    lines += [f"X-Forwarded-For: 203.0.113.{id(connection) % 200}, {visitor}"] if visitor else []
    connection.sendall("\r\n".join([*lines, "", ""]).encode())
    return connection


def status(connection: socket.socket) -> int | None:
    """The status of an answer; None: there is none yet."""
    connection.settimeout(1)
    try:
        return int(connection.recv(4096).split()[1])
    except TimeoutError:
        return None


@pytest.mark.parametrize(
    ("path", "sends", "most"),
    [("/tests/1", 0, 500), ("/login", 1000, 20), ("/%61pi/v1/jobs?limit=10000", 0, 15)],
)
def test_no_address_takes_all_connections_or_processes_nor_much_of_the_volume(
    web: str, openqa: int, path: str, sends: int, most: int
) -> None:
    with socket.create_server(("127.0.0.1", openqa), backlog=1024), ExitStack() as opened:
        first, *_, last = (ask(web, opened, path, "192.0.2.1", sends=sends) for _ in range(most))
        time.sleep(0.5)
        assert status(ask(web, opened, path, "192.0.2.1", sends=sends)) == 429
        for other in ("192.0.2.2", ""):  # another visitor, a worker
            assert status(ask(web, opened, path, other, sends=sends)) is None
        assert (status(first), status(last)) == (None, None)


@pytest.mark.parametrize(
    ("request_line", "allowed"),
    [
        ("GET /api/v1/workers?limit=1", True),
        ("GET /api/v1/ws/1", True),
        ("GET /tests/1/asset/hdd/disk.qcow2", True),
        ("GET /api/v1/mm/parents", True),
        ("POST /api/v1/workers", True),
        ("POST /api/v1/jobs/1/status", True),
        ("POST /api/v1/jobs/1/set_done?result=passed", True),
        ("POST /api/v1/jobs/1/duplicate?dup_type_auto=1", True),
        ("POST /liveviewhandler/api/v1/jobs/1/upload_progress", True),
        ("DELETE /api/v1/mutex/installed", True),
        ("POST /api/v1/barrier/ready", True),
        ("POST /api/v1/jobs", False),
        ("POST /api/v1/isos", False),
        ("POST /api/v1/jobs/1/status/../../../isos", False),
        ("POST /api/v1/jobs/1%2Fstatus", False),
        ("DELETE /api/v1/jobs/1", False),
        ("DELETE /api/v1/workers/1", False),
        ("POST /api/v1/jobs/1/cancel", False),
        ("GET /liveviewhandler/tests/1/developer/ws-proxy", False),
        ("GET /%6Civeviewhandler/tests/1/developer/ws-proxy", False),
    ],
)
def test_the_key_of_worker_hosts_is_for_what_workers_do(web: str, request_line: str, allowed: bool) -> None:
    method, path = request_line.split(" ")
    for key, refused in ((machine.WORKER_KEY[:16], not allowed), (machine.API_KEY[:16], False)):
        with closing(HTTPConnection(web.removeprefix("http://"), timeout=10)) as connection:
            connection.request(method, path, headers={"X-API-Key": key})
            assert (connection.getresponse().status == 403) == refused, key


def test_live_logs_leave_openqa_processes_for_all_else(web: str, openqa: int) -> None:
    """openQA has 30 (openqa-webui-daemon), and a live log has one of them for as long as somebody watches."""
    host, port = web.removeprefix("http://").split(":")
    with socket.create_server(("127.0.0.1", openqa)), ExitStack() as opened:
        for number in range(15):
            connection = opened.enter_context(socket.create_connection((host, int(port)), timeout=10))
            kind = "log" if number % 2 else "terminal"
            connection.sendall(f"GET /tests/{number}/live{kind} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
        time.sleep(0.5)
        assert requests.get(f"{web}/tests/1/livelog", timeout=2).status_code == 503
        with pytest.raises(requests.ReadTimeout):  # openQA has it
            requests.get(f"{web}/tests/1", timeout=1)


def test_golden_hosts_ask_no_neighbours_for_names(tmp_path: Path) -> None:
    said = inside(golden_root(), tmp_path, "systemd-analyze cat-config systemd/resolved.conf")
    assert "LLMNR=no" in said.splitlines()


def test_cloud_init_takes_the_user_data_for_a_script(tmp_path: Path) -> None:
    text = user_data("{}", BUNDLE_BUCKET="b", BUNDLE_KEY="k", BUNDLE_SHA256="0")
    (tmp_path / "user-data").write_text(text)
    said = inside(golden_root(), tmp_path, "cloud-init schema --config-file /mnt/user-data 2>&1")
    assert "text/x-shellscript" in said


def test_cloud_init_takes_what_cloud_images_are_told(tmp_path: Path) -> None:
    shutil.copy(USERDATA / "content/cloudinit/user-data", tmp_path)
    said = inside(golden_root(), tmp_path, "cloud-init schema --config-file /mnt/user-data 2>&1")
    assert "Valid schema" in said
    assert "Warning" not in said
    assert "deprecat" not in said.lower()


@pytest.mark.parametrize(
    "rules", ["common/metadata.nft", "worker/workers.nft", "tap/workers.nft", "webui/visitors.nft"]
)
def test_nft_takes_the_rules(tmp_path: Path, rules: str) -> None:
    shutil.copy(USERDATA / "roles" / rules, tmp_path / "rules.nft")
    inside(golden_root(), tmp_path, "unshare --net nft --check --file /mnt/rules.nft")


# openQA's cache service, with a worker's configuration and an asset that fills the disk.
_FILL = """
mount -t tmpfs -o size=64m tmpfs /var/lib/openqa
mkdir /var/lib/openqa/cache
perl -I /usr/share/openqa/lib -e '
use OpenQA::CacheService;
my $cache = OpenQA::CacheService->new->cache;
my $asset = "/var/lib/openqa/cache/webui/disk.raw";
mkdir "/var/lib/openqa/cache/webui";
system("head -c 62M /dev/zero >$asset");
die "no asset" unless -s $asset;
$cache->track_asset($asset);
$cache->_update_asset($asset, "etag", -s $asset);
$cache->refresh;
print -e $asset ? "kept" : "purged";
' 2>/dev/null
"""


def test_the_cache_makes_room_on_a_full_disk(tmp_path: Path) -> None:
    """Some kinds of assets openQA does not count against the cache's limit."""
    shutil.copy(GOLDEN / "worker/run/openqa-on-aws/config/workers.ini", tmp_path)
    assert inside(golden_root(), tmp_path, f"export OPENQA_CONFIG=/mnt; {_FILL}") == "purged"


# The same with a database that a crash damaged, and what it has after its first and its second start.
_DAMAGE = """
mount -t tmpfs tmpfs /var/lib/openqa
mkdir /var/lib/openqa/cache
database=/var/lib/openqa/cache/cache.sqlite
start() {
  perl -I /usr/share/openqa/lib -e '
use OpenQA::CacheService;
my $app = OpenQA::CacheService->new;
$app->cache->track_asset("/var/lib/openqa/cache/$_") for @ARGV;
$app->minion->enqueue("cache_tests");
print $app->cache->sqlite->db->query("select count(*) from assets")->array->[0], " ";
' -- "$@" 2>/dev/null
}
start $(seq 2000)
$damage $database
start one
start one two
"""


@pytest.mark.parametrize(
    "damage",
    [
        "dd if=/dev/urandom bs=4096 seek=4 count=8 conv=notrunc status=none of=",
        "dd if=/dev/zero bs=4096 count=2 conv=notrunc status=none of=",
        "truncate --size=20000 ",
    ],
)
def test_the_cache_begins_anew_with_a_damaged_database(tmp_path: Path, damage: str) -> None:
    """openQA does so by itself at every start, which its units repeat for ever."""
    shutil.copy(GOLDEN / "worker/run/openqa-on-aws/config/workers.ini", tmp_path)
    script = _DAMAGE.replace("$damage $database", f"{damage}$database")
    assert inside(golden_root(), tmp_path, f"export OPENQA_CONFIG=/mnt; {script}").split() == [
        "2000",
        "1",
        "2",
    ]


@pytest.mark.parametrize("name", ["worker", "worker-tap"])
def test_each_boot_empties_the_cache(tmp_path: Path, name: str) -> None:
    """After a reset its database may name an asset that had not been written yet."""
    shutil.copytree(GOLDEN / name / "etc/tmpfiles.d", tmp_path / "etc/tmpfiles.d")
    worker = tmp_path / "var/lib/openqa"
    (worker / "cache/webui").mkdir(parents=True)
    (worker / "cache/cache.sqlite").touch()
    (worker / "pool/1").mkdir(parents=True)
    # Packages' scripts run it while workers work.
    inside(golden_root(), tmp_path, "systemd-tmpfiles --root=/mnt --create --remove --clean")
    assert (worker / "cache/cache.sqlite").exists()
    inside(golden_root(), tmp_path, "systemd-tmpfiles --root=/mnt --create --remove --boot")
    assert [path.name for path in worker.iterdir()] == ["pool"]
    assert (worker / "pool/1").is_dir()


# The web UI's setup with a database of which another keeps a table.
_UPGRADE = """
mount -t tmpfs tmpfs /usr/share/openqa/script
printf '#!/bin/sh
echo "ERROR: canceling statement due to lock timeout: $PGOPTIONS" >&2
echo "A guard went out of scope. Rolling back." >&2
exit 255
' >/usr/share/openqa/script/initdb
chmod +x /usr/share/openqa/script/initdb
psql() { :; }
. /mnt/setup.sh
"""


def test_why_an_upgrade_failed_is_the_last_that_is_said(tmp_path: Path) -> None:
    """It is told of a host that is gone."""
    shutil.copy(USERDATA / "roles/webui/bin/setup.sh", tmp_path)
    (tmp_path / "upgrade.sh").write_text(_UPGRADE)
    said = inside(golden_root(), tmp_path, "! bash /mnt/upgrade.sh 2>&1 >/dev/null")
    assert said == (
        "the database's schema could not be deployed: exit code 255: "
        "ERROR: canceling statement due to lock timeout: -c lock_timeout=90s\n"
    )


# A worker's job with a TPM whose QEMU is killed, and the next one: openQA empties the pool between them.
_TPM = """
mount -t tmpfs tmpfs /tmp; mount -t tmpfs tmpfs /var/lib/openqa; mount -t tmpfs tmpfs /dev
mkdir -p /var/lib/openqa/pool/2
mknod /dev/null c 1 3; mknod /dev/random c 1 8; mknod /dev/urandom c 1 9
perl -I /usr/share/openqa/lib -I /usr/lib/os-autoinst -e '
use OpenQA::Worker;
use OpenQA::Worker::Settings;
use backend::qemu;
my $settings = OpenQA::Worker::Settings->new(2)->global_settings;
%bmwqemu::vars = (%$settings, QEMUTPM => 1, WORKER_INSTANCE => 2);
my $socket;
*backend::qemu::sp = sub { $socket = $1 if $_[1] =~ /path=(.*)/ };  # what QEMU is told
my $worker = bless {pool_directory => "/var/lib/openqa/pool/2"}, "OpenQA::Worker";
for my $job (1, 2) {
  backend::qemu->setup_tpm;
  my $state = $socket =~ s/swtpm-sock$/tpm2-00.permall/r;
  print -s $state ? "used" : "new", " ";
  my $pid = fork // die;
  exec qw(qemu-system-x86_64 -S -display none -m 64 -chardev), "socket,id=tpm,path=$socket",
    qw(-tpmdev emulator,id=tpm0,chardev=tpm -device tpm-tis,tpmdev=tpm0) unless $pid;
  for (1 .. 300) { last if -s $state; select undef, undef, undef, 0.1 }
  die "no TPM" unless -s $state;
  kill KILL => $pid;
  waitpid $pid, 0;
  $worker->_clean_pool_directory;
}
'
"""


def test_no_job_gets_the_tpm_of_one_that_was_killed(tmp_path: Path) -> None:
    shutil.copy(GOLDEN / "worker/run/openqa-on-aws/config/workers.ini", tmp_path)
    alone = "unshare --pid --fork --kill-child --mount-proc --propagation unchanged"
    (tmp_path / "tpm.sh").write_text(_TPM)
    script = f"export OPENQA_CONFIG=/mnt; {alone} sh -e /mnt/tpm.sh"
    assert inside(golden_root(), tmp_path, f"{script} 2>/dev/null").split() == ["new", "new"]


# A tap host and a guest: the guest knocks at the host's ports.
_KNOCK = """
unshare --net sleep infinity & guest=$!
while [ "$(readlink /proc/$guest/ns/net)" = "$(readlink /proc/self/ns/net)" ]; do sleep 0.02; done
ip link add br0 type veth peer name eth0 netns $guest
ip address add 172.16.2.2/15 dev br0
ip link set br0 up
guest="nsenter --target=$guest --net"
$guest ip address add 172.16.2.101/15 dev eth0
$guest ip link set eth0 up
nft --define uplink=ens5 --define guest=255.255.255.0 --file /mnt/tap.nft
for port; do
  python3 -m http.server --directory=/mnt $port >/dev/null 2>&1 &
  until curl --silent --output /dev/null http://172.16.2.2:$port/; do sleep 0.05; done
  if $guest curl --silent --output /dev/null --max-time 2 http://172.16.2.2:$port/; then echo $port; fi
done
if $guest ping -c 1 -W 2 172.16.2.2 >/dev/null; then echo ping; fi
"""


def test_guests_on_taps_reach_of_their_host_the_command_servers_alone(tmp_path: Path) -> None:
    shutil.copy(USERDATA / "roles/tap/tap.nft", tmp_path)
    (tmp_path / "knock.sh").write_text(_KNOCK)
    servers = [20003 + 10 * number for number in (1, catalogue.MAX_WORKERS)]
    # SSH, the cache, and the screens of all guests, which ask for no password.
    others = [22, 5991, 5990 + catalogue.MAX_WORKERS, 9530]
    alone = "unshare --net --pid --fork --kill-child --mount-proc --propagation unchanged"
    ports = " ".join(map(str, [*servers, *others]))
    said = inside(golden_root(), tmp_path, f"{alone} sh -ec 'ip link set lo up; . /mnt/knock.sh' sh {ports}")
    assert said.split() == [*map(str, servers), "ping"]


# Open vSwitch, in userspace.
_SWITCH = """
mount -t tmpfs tmpfs /run; mount -t tmpfs tmpfs /dev
mkdir /run/openvswitch /dev/net
mknod /dev/net/tun c 10 200; mknod /dev/null c 1 3; mknod /dev/random c 1 8; mknod /dev/urandom c 1 9
ovsdb-tool create /run/conf.db /usr/share/openvswitch/vswitch.ovsschema
ovsdb-server /run/conf.db --remote=punix:/run/openvswitch/db.sock --pidfile --detach --no-chdir
ovs-vsctl --no-wait init
ovs-vswitchd --pidfile --detach --no-chdir --log-file=/run/log 2>/dev/null
"""
# A tap host's bridge, and two guests in VLANs of their own, with the same addresses. The second one, which
# says what the first one said, is heard before the host answers both.
_CLAIM = """
. /mnt/switch.sh
ovs-vsctl add-br br0 -- set bridge br0 datapath_type=netdev 'other_config:hwaddr="02:00:0a:00:02:02"'
ip address add 10.0.2.2/15 dev br0
ip link set br0 up
nft --define uplink=ens5 --define guest=255.255.255.0 --file /mnt/tap.nft
for number in 0 1; do
  unshare --net sleep infinity & guest=$!
  while [ "$(readlink /proc/$guest/ns/net)" = "$(readlink /proc/self/ns/net)" ]; do sleep 0.02; done
  ip link add tap$number type veth peer name eth0 netns $guest
  ip link set tap$number up
  ovs-vsctl add-port br0 tap$number tag=$((number + 1)) vlan_mode=dot1q-tunnel
  nsenter --target=$guest --net sh -ec '
    ip link set eth0 address 52:54:00:12:00:07 up; ip address add 10.0.2.101/15 dev eth0'
  guests="$guests $guest"
done
ovs-ofctl --bundle add-flows br0 /mnt/flows
python3 /mnt/claim.py $guests
"""
# What a guest says, and what the host says. Nothing counts sums on the way (11: SO_NO_CHECK).
_ASK = """
import socket
guest = socket.socket(type=socket.SOCK_DGRAM)
guest.setsockopt(socket.SOL_SOCKET, 11, 1)
guest.settimeout(5)
guest.bind(("", 4711))
guest.sendto(b"?", ("10.0.2.2", 20013))
try:
    print(guest.recv(99).decode())
except TimeoutError:
    print("nothing")
"""
_ANSWER = """
import socket, subprocess, sys
host = socket.socket(type=socket.SOCK_DGRAM)
host.setsockopt(socket.SOL_SOCKET, 11, 1)
host.settimeout(20)
host.bind(("10.0.2.2", 20013))
asking, known = [], []
for guest in sys.argv[1:]:
    words = ["nsenter", f"--target={guest}", "--net", "python3", "/mnt/ask.py"]
    asking.append(subprocess.Popen(words, stdout=subprocess.PIPE, text=True))
    known.append(host.recvfrom(99)[1])
for number, address in enumerate(known):
    host.sendto(f"to {number}".encode(), address)
print(*(address[0] for address in known), *(one.communicate()[0].strip() for one in asking), sep=", ")
"""


def test_no_guest_gets_anothers_replies_by_its_hardware_address(tmp_path: Path) -> None:
    network = tap.TapNetwork(IPv4Interface("10.0.2.2/15"))
    rules = switch.flows(
        taps=["tap0", "tap1"], address=network.address.ip, rewrite=network.rewrite, mac=network.mac
    )
    (tmp_path / "flows").write_text("\n".join(rules) + "\n")
    # These speak UDP, the workers' command servers TCP.
    text = (USERDATA / "roles/tap/tap.nft").read_text()
    (tmp_path / "tap.nft").write_text(text.replace("tcp dport", "udp dport"))
    for name, text in (
        *(("switch.sh", _SWITCH), ("claim.sh", _CLAIM)),
        *(("ask.py", _ASK), ("claim.py", _ANSWER)),
    ):
        (tmp_path / name).write_text(text)
    alone = "unshare --net --mount --pid --fork --kill-child --mount-proc --propagation unchanged"
    said = inside(golden_root(), tmp_path, f"{alone} sh -e /mnt/claim.sh 2>&1").splitlines()
    assert said[-1] == "10.1.0.7, 10.1.1.7, to 0, to 1"


# Four guests: of one cluster are the first two; the third one never got a VLAN, the fourth one has none any
# more. Those two hear each other.
_ASIDE = """
. /mnt/switch.sh
for number in 0 1 2 3; do
  unshare --net sleep infinity & guest=$!
  while [ "$(readlink /proc/$guest/ns/net)" = "$(readlink /proc/self/ns/net)" ]; do sleep 0.02; done
  ip link add tap$number type veth peer name eth0 netns $guest
  ip link set tap$number up
  nsenter --target=$guest --net ip link set eth0 up
  guests="$guests $guest"
done
. /mnt/commands
ovs-ofctl --bundle add-flows br0 /mnt/flows
python3 /mnt/hear.py $guests
"""
# Each guest speaks to all, as it is and in the cluster's VLAN; who hears whom.
_HEAR = """
import os, socket, sys, time
guests = []
for pid in sys.argv[1:]:
    os.setns(os.open(f"/proc/{pid}/ns/net", os.O_RDONLY))
    guests.append(socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.ntohs(0x88b5)))
    guests[-1].bind(("eth0", 0x88b5))
for number, guest in enumerate(guests):
    for vlan in (b"", bytes.fromhex("81000007")):
        addresses = b"\\xff" * 6 + bytes([2, 0, 0, 0, 0, number])
        guest.send(addresses + vlan + b"\\x88\\xb5%d" % number + bytes(60))
time.sleep(1)
for number, guest in enumerate(guests):
    guest.setblocking(False)
    try:
        while True:
            said, about = guest.recvfrom(99)
            if about[2] != socket.PACKET_OUTGOING:
                print(number, "hears", said[14:15].decode())
    except BlockingIOError:
        pass
"""


def test_a_guest_without_a_vlan_hears_nobody_who_has_one(tmp_path: Path) -> None:
    network = tap.TapNetwork(IPv4Interface("10.0.2.2/15"))
    done: list[Sequence[str]] = [
        command
        for command in tap.commands(network, workers=4, kernel_datapath=False, existing=())
        if command[0] == "ovs-vsctl"
    ]

    def run(command: Sequence[str]) -> str:
        if "list-ports" in command:
            return "tap0 tap1 tap3"
        done.append(command)
        return ""

    served = switch.Switch("br0", run)
    assert [served.set_vlan(name, 7)[0] for name in ("tap0", "tap1", "tap3")] == [0, 0, 0]
    assert served.unset_vlan("tap3", 7)[0] == 0
    rules = switch.flows(
        taps=[f"tap{number}" for number in range(4)],
        address=network.address.ip,
        rewrite=network.rewrite,
        mac=network.mac,
    )
    (tmp_path / "flows").write_text("\n".join(rules) + "\n")
    (tmp_path / "commands").write_text("\n".join(map(shlex.join, done)))
    for name, text in (("switch.sh", _SWITCH), ("aside.sh", _ASIDE), ("hear.py", _HEAR)):
        (tmp_path / name).write_text(text)
    alone = "unshare --net --mount --pid --fork --kill-child --mount-proc --propagation unchanged"
    said = inside(golden_root(), tmp_path, f"{alone} sh -e /mnt/aside.sh 2>&1")
    hear = {line for line in said.splitlines() if " hears " in line}
    assert hear == {"0 hears 1", "1 hears 0", "2 hears 3", "3 hears 2"}


# A host with guests before it and a server outside behind it. One guest has two of three addresses, and asks
# from more and more ports; then the other one does.
_FLOOD = """
for name in guests outside; do
  unshare --net sleep infinity & eval $name=$!
  while [ "$(readlink /proc/$!/ns/net)" = "$(readlink /proc/self/ns/net)" ]; do sleep 0.02; done
done
ip link add $1 type veth peer name eth0 netns $guests
ip link add ens5 type veth peer name eth0 netns $outside
ip address add 10.1.0.1/16 dev $1; ip address add 10.99.1.1/24 dev ens5
ip link set $1 up; ip link set ens5 up
nsenter --target=$outside --net sh -c '
  ip address add 10.99.1.2/24 dev eth0; ip link set eth0 up; ip route add default via 10.99.1.1'
nsenter --target=$guests --net sh -c '
  for guest in 1.7 1.8 2.7; do ip address add 10.1.$guest/16 dev eth0; done
  ip link set eth0 up; ip route add default via 10.1.0.1'
echo 1 >/proc/sys/net/ipv4/ip_forward
nft --define uplink=ens5 --define guest=255.255.255.0 --file /mnt/rules.nft
nsenter --target=$outside --net python3 /mnt/serve.py &
echo 600 >/proc/sys/net/netfilter/nf_conntrack_udp_timeout
until nsenter --target=$guests --net python3 /mnt/flood.py 1; do sleep 0.1; done
nsenter --target=$guests --net python3 /mnt/flood.py 5000
"""
_SERVE_ALL = """
import socket
server = socket.socket(type=socket.SOCK_DGRAM)
server.bind(("", 53))
while True:
    server.sendto(b"", server.recvfrom(99)[1])
"""
_FLOOD_PY = """
import socket, sys
def answers(address, ports):
    for at, port in enumerate(ports):
        with socket.socket(type=socket.SOCK_DGRAM) as guest:
            guest.settimeout(2)
            guest.bind((address, port))
            guest.sendto(b"?", ("10.99.1.2", 53))
            try:
                guest.recv(99)
            except TimeoutError:
                return at
    return len(ports)
ports = range(10000, 10000 + int(sys.argv[1]))
said = [answers(address, ports) for address in ("10.1.1.7", "10.1.1.8", "10.1.2.7")]
print(*said)
sys.exit(said[0] == 0)
"""


@pytest.mark.parametrize(
    ("rules", "bridge", "answers"),
    [("tap/tap.nft", "br0", [4095, 1, 4096]), ("worker/workers.nft", "openqa-1", [4096, 4096, 4096])],
)
def test_no_guest_takes_all_connections_of_its_host(
    tmp_path: Path, rules: str, bridge: str, answers: list[int]
) -> None:
    shutil.copy(USERDATA / "roles" / rules, tmp_path / "rules.nft")
    for name, text in (("flood.sh", _FLOOD), ("serve.py", _SERVE_ALL), ("flood.py", _FLOOD_PY)):
        (tmp_path / name).write_text(text)
    alone = "unshare --net --pid --fork --kill-child --mount-proc --propagation unchanged"
    said = inside(golden_root(), tmp_path, f"{alone} sh -e /mnt/flood.sh {bridge}")
    assert [int(word) for word in said.splitlines()[-1].split()] == answers


# A tap host with workers in their units' cgroups, out of which guests on QEMU's user network connect, too.
# The second worker starts anew.
_WALLS = """
ip link set lo up
ip address add 10.99.1.40/32 dev lo
mount -t cgroup2 cgroup2 /sys/fs/cgroup
slice=openqa.slice/openqa-worker.slice
nft --file /mnt/workers.nft
started() {
  unit=openqa-worker-plain@$1.service
  mkdir -p /sys/fs/cgroup/$slice/$unit/below
  nft "$(sed "s#%n#$unit#g; s#%i#$1#g" /mnt/pre)"
}
in_cgroup() { (sh -c 'echo $PPID' >/sys/fs/cgroup/$1/cgroup.procs; shift; exec "$@"); }
started 1; started 2; nft --file /mnt/workers.nft
rmdir /sys/fs/cgroup/$slice/$unit/below /sys/fs/cgroup/$slice/$unit
started 2
port=5990
for who in / $slice/openqa-worker-plain@1.service/below $slice/openqa-worker-plain@2.service; do
  in_cgroup $who python3 -m http.server --directory=/mnt --bind :: $port >/dev/null 2>&1 &
  until curl --silent --output /dev/null http://127.0.0.1:$port/; do sleep 0.05; done
  port=$((port + 1))
done
for who in / $slice/openqa-worker-plain@1.service $slice/openqa-worker-plain@2.service/below; do
  for address in 127.0.0.1 '[::1]' 10.99.1.40; do
    for port in 5990 5991 5992; do
      if in_cgroup $who curl --globoff --silent --output /dev/null --max-time 5 http://$address:$port/; then
        echo $(basename $(dirname $who/x)) $address $port
      elif [ $? != 7 ]; then echo no answer; fi
    done
  done
done
"""
# Of cgroups, only the machine's own can be made.
_IN_A_CGROUP = """
mount -t sysfs sysfs /sys
mount -t cgroup2 cgroup2 /sys/fs/cgroup
group=/sys/fs/cgroup/openqa-test-$$
mkdir $group
trap 'find $group -depth -type d -exec rmdir {} +' EXIT
alone="unshare --net --mount --cgroup --pid --fork --kill-child --mount-proc --propagation unchanged"
sh -c 'echo $$ >$0/cgroup.procs; exec "$@"' $group $alone sh -e /mnt/walls.sh
"""


def test_workers_of_a_tap_host_reach_of_it_what_is_their_own(tmp_path: Path) -> None:
    shutil.copy(USERDATA / "roles/tap/workers.nft", tmp_path)
    unit = USERDATA / "roles/tap/units/openqa-worker-plain@.service.d/openqa-on-aws.conf.j2"
    (added,) = re.findall(r"^ExecStartPre=\+/usr/sbin/nft '([^']+)'$", unit.read_text(), re.MULTILINE)
    (tmp_path / "pre").write_text(added.replace("\\\n", ""))
    (tmp_path / "walls.sh").write_text(_WALLS)
    said = inside(golden_root(), tmp_path, _IN_A_CGROUP).splitlines()
    addresses = ("127.0.0.1", "[::1]", "10.99.1.40")
    assert said == [
        *(f"/ {address} {port}" for address in addresses for port in (5990, 5991, 5992)),
        *(f"openqa-worker-plain@1.service {address} 5991" for address in addresses),
        *(f"below {address} 5992" for address in addresses),
    ]


# A web UI's host with its pod behind it, and two hosts before it: one keeps what connections it gets.
_VISITORS = """
for name in pod visitors; do
  unshare --net sleep infinity & eval $name=$!
  while [ "$(readlink /proc/$!/ns/net)" = "$(readlink /proc/self/ns/net)" ]; do sleep 0.02; done
done
ip link add pod type veth peer name eth0 netns $pod
ip link add ens5 type veth peer name eth0 netns $visitors
ip address add 10.88.0.1/24 dev pod; ip address add 10.99.1.1/24 dev ens5
ip link set pod up; ip link set ens5 up
nsenter --target=$pod --net sh -c '
  ip address add 10.88.0.2/24 dev eth0; ip link set eth0 up; ip route add default via 10.88.0.1'
nsenter --target=$visitors --net sh -c 'for at in 2 3; do ip address add 10.99.1.$at/24 dev eth0; done
  ip link set eth0 up; ip route add default via 10.99.1.1'
echo 1 >/proc/sys/net/ipv4/ip_forward
nft --file /mnt/visitors.nft
nsenter --target=$pod --net python3 /mnt/serve.py &
nsenter --target=$visitors --net python3 /mnt/visit.py
"""
_SERVE = """
import resource, signal, socket
resource.setrlimit(resource.RLIMIT_NOFILE, (8192, 8192))
servers = [socket.create_server(("", port), backlog=4096) for port in (8730, 8080)]
signal.pause()
"""
_VISIT = """
import resource, socket, struct, time
resource.setrlimit(resource.RLIMIT_NOFILE, (8192, 8192))
def visit(source, port):
    return socket.create_connection(("10.88.0.2", port), 5, source_address=(source, 0))
def await_visit(source, port):
    for _ in range(100):
        try:
            return visit(source, port)
        except OSError:
            time.sleep(0.1)
await_visit("10.99.1.3", 8080)
for port in (8730, 8080):
    kept = []
    try:
        while len(kept) < 4000:
            kept.append(visit("10.99.1.2", port))
    except ConnectionRefusedError:
        pass
    visit("10.99.1.3", port)
    print(port, len(kept))
    gone = kept.pop()
    gone.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    gone.close()
    print(bool(await_visit("10.99.1.2", port)))
"""


def test_no_host_takes_all_connections_of_the_web_ui(tmp_path: Path) -> None:
    shutil.copy(USERDATA / "roles/webui/visitors.nft", tmp_path)
    for name, text in (("visitors.sh", _VISITORS), ("serve.py", _SERVE), ("visit.py", _VISIT)):
        (tmp_path / name).write_text(text)
    alone = "unshare --net --pid --fork --kill-child --mount-proc --propagation unchanged"
    said = inside(golden_root(), tmp_path, f"{alone} sh -e /mnt/visitors.sh")
    assert said.split() == ["8730", "20", "True", "8080", "2000", "True"]


def test_nft_takes_the_rules_of_the_mesh(tmp_path: Path) -> None:
    shutil.copy(USERDATA / "roles/mesh/mesh.nft", tmp_path)
    check = "unshare --net nft --check --define uplink=ens5 --file /mnt/mesh.nft"
    inside(golden_root(), tmp_path, check)
    text = (tmp_path / "mesh.nft").read_text()
    assert str(mesh.OUR_END) in text
    assert mesh.OUTWARD in text
