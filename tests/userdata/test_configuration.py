"""What is rendered for every role, compared with what was approved (``golden/``); and where secrets are."""

from __future__ import annotations

import json
import os
import re
import shutil
from configparser import ConfigParser, RawConfigParser
from pathlib import Path
from typing import Any

import boto3
import pytest

from fleet import openqa_api
from settings import openqa_ini
from tests.userdata import machine
from userdata.host import certificates, interface, kvm, names, rds, render, roles, tap, users, volume
from userdata.host.errors import HostError
from userdata.host.host import Host

GOLDEN = Path(__file__).parent / "golden"


@pytest.fixture(params=machine.NAMES)
def configured(
    request: pytest.FixtureRequest,
    tmp_path: Path,
    aws: None,
    programs: machine.Programs,
    monkeypatch: pytest.MonkeyPatch,
) -> tuple[str, Host]:
    """A host of each kind after its preparation and its first start."""
    made = machine.host(tmp_path, request.param)
    machine.store_secrets(made.document.environment)
    machine.make_bucket()
    machine.publish_certificate(made.document.environment)
    machine.keep_sample(made)
    machine.make_names()
    monkeypatch.setattr(names, "_members", lambda host: {host.instance})
    made.layout.runtime.mkdir(parents=True)
    # Pools and cache have a disk of their own: the size of no other counts.
    monkeypatch.setattr(
        os, "statvfs", lambda path: machine.disk_of(300 if path == made.layout.worker else 3000)
    )
    monkeypatch.setattr(roles, "await_running", lambda *_: None)
    monkeypatch.setattr(interface, "mac_address", lambda *_: "02:00:00:00:00:01")
    monkeypatch.setattr(interface, "attach", lambda *_, **__: None)
    monkeypatch.setattr(interface, "find_link", lambda *_: "ens6")
    # Fedora's tap host has Open vSwitch in the kernel, Debian's has not.
    monkeypatch.setattr(tap, "has_kernel_datapath", lambda: made.document.os == "fedora")
    monkeypatch.setattr(volume, "attach", lambda *_, **__: None)
    monkeypatch.setattr(volume, "find_device", lambda *_: Path("/dev/null"))
    monkeypatch.setattr(volume, "ensure_filesystem", lambda *_: False)
    monkeypatch.setattr(kvm, "group", lambda: 992)
    programs.answers |= {"podman run": "K", "sh -c timeout": "K"}
    roles.prepare(made)
    roles.configure(made)
    return request.param, made


def rendered(host: Host) -> dict[str, str]:
    """The text of every rendered file by its path."""
    layout = host.layout
    ours = (layout.administrator, layout.runtime / "messages", layout.runtime / "timetable")
    folders = (layout.root / "etc", layout.config, *ours)
    return {
        path.relative_to(layout.root).as_posix(): path.read_text()
        for folder in folders
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path != layout.document
    }


def test_rendered_files_are_the_approved_ones(
    configured: tuple[str, Host], request: pytest.FixtureRequest
) -> None:
    name, host = configured
    files = rendered(host)
    folder = GOLDEN / name
    if request.config.getoption("--update-snapshots"):
        for old in sorted(folder.rglob("*"), reverse=True):
            old.unlink() if old.is_file() else old.rmdir()
        for path, text in files.items():
            (folder / path).parent.mkdir(parents=True, exist_ok=True)
            (folder / path).write_text(text)
    approved = {
        path.relative_to(folder).as_posix(): path.read_text()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }
    assert files == approved, "if it is meant: pytest tests/userdata --update-snapshots, and look at the diff"


def test_secrets_are_in_memory_and_for_few_eyes(configured: tuple[str, Host]) -> None:
    _, host = configured
    for path in host.layout.root.rglob("*"):
        if path.is_symlink() or not path.is_file() or host.layout.bundle in path.parents:
            continue
        text = path.read_bytes()
        if any(value.encode() in text for value in machine.HIDDEN):
            assert host.layout.runtime in path.parents, f"{path} holds a secret on a disk"
            others = 0o037 if path.parent == host.layout.administrator else 0o077
            assert path.stat().st_mode & others == 0, f"{path} can be read by others"
    assert host.layout.secrets.stat().st_mode & 0o777 == 0o700


@pytest.mark.parametrize("name", [name for name in machine.NAMES if name.startswith("webui")])
def test_the_web_ui_fetches_no_repository_that_a_job_names(name: str) -> None:
    said = ConfigParser(interpolation=None)
    said.read(GOLDEN / name / "run/openqa-on-aws/config/openqa.ini")
    assert said["scm git"]["git_auto_clone"] == "no"  # openQA's default is yes


@pytest.mark.parametrize(
    ("host", "allowed"),
    [("example.org", True), ("dl.example.org", True), ("anexample.org", False), ("example-org", False)],
)
def test_openqa_downloads_from_the_domains_alone_and_those_below(host: str, allowed: bool) -> None:
    said = ConfigParser(interpolation=None)
    said.read(GOLDEN / "webui/run/openqa-on-aws/config/openqa.ini")
    # As openQA does (lib/OpenQA/Utils.pm, check_download_url).
    patterns = said["global"]["download_domains"].split(" ")
    assert any(re.search(f"{pattern}$", host) for pattern in patterns) is allowed


@pytest.mark.parametrize("name", [name for name in machine.NAMES if name.startswith("webui")])
def test_what_the_template_says_is_not_the_environments_to_say(name: str) -> None:
    """A key that is there twice would have two values to openQA."""
    said = RawConfigParser()  # it refuses what is there twice
    said.read(GOLDEN / name / "run/openqa-on-aws/config/openqa.ini")
    given = json.loads((machine.DOCUMENTS / f"{name}.json").read_text())["webui"]["openqa"]
    ours = {(section, key) for section in said.sections() for key in said[section]}
    ours -= {(section, key) for section in given for key in given[section]}
    keys = {(section, key) for section, values in openqa_ini.KEYS.items() for key in values}
    assert {place for place in ours if place[0] not in openqa_ini.SECTIONS} <= keys


@pytest.mark.parametrize("name", [name for name in machine.NAMES if name.startswith("webui")])
def test_openqa_takes_and_lists_as_many_workers_as_the_controller_reads(name: str) -> None:
    """Some of openQA's own defaults are less. Of whatever it lists, visitors can have as much."""
    said = ConfigParser(interpolation=None)
    said.read(GOLDEN / name / "run/openqa-on-aws/config/openqa.ini")
    limits = [said["misc_limits"][limit] for limit in ("generic_max_limit", "max_online_workers")]
    unit = (GOLDEN / name / "etc/containers/systemd/openqa-websockets.container").read_text()
    limits += re.findall(r"^Exec=\S+ --clients (\d+)$", unit, re.MULTILINE)
    assert [int(limit) >= openqa_api.WORKERS for limit in limits] == [True] * 3
    assert int(limits[0]) == openqa_api.WORKERS


@pytest.mark.parametrize("name", [name for name in machine.NAMES if name.startswith("worker")])
def test_workers_ask_a_cache_service_that_is_in_no_network(name: str) -> None:
    """It runs what it is asked to, and a guest reaches all that its worker reaches by the network."""
    workers = ConfigParser(interpolation=None)
    workers.read(GOLDEN / name / "run/openqa-on-aws/config/workers.ini")
    url = workers["global"]["CACHESERVICEURL"]
    assert url.startswith("http+unix://")
    etc = GOLDEN / name / "etc"
    tap, container = (
        "systemd/system/openqa-worker-cacheservice.service.d/*.conf",
        "containers/systemd/*cache*",
    )
    texts = [path.read_text() for pattern in (tap, container) for path in etc.glob(pattern)]
    # systemd takes %% for %.
    listens = [line for text in texts for line in text.splitlines() if line.startswith("Environment=MOJO_")]
    assert listens == [f"Environment=MOJO_LISTEN={url.replace('%', '%%')}"]
    assert not [text for text in texts if "\nVolume=/var/lib/openqa:" in text]


@pytest.mark.parametrize("name", [name for name in machine.NAMES if name.startswith("webui")])
@pytest.mark.parametrize("container", ["openqa-proxy", "openqa-rsyncd"])
def test_who_only_serves_files_sees_no_secret(name: str, container: str) -> None:
    runtime = "/run/openqa-on-aws"
    # By their key nginx knows workers; it signs nothing without its other half.
    hidden = [text for text in machine.HIDDEN if text != machine.WORKER_KEY[:16]]
    secrets = {
        f"/{path.relative_to(GOLDEN / name)}"
        for path in (GOLDEN / name / runtime[1:]).rglob("*")
        if path.is_file() and any(secret in path.read_text() for secret in hidden)
    }
    known = ("config/database.ini", "config/openqa.ini", "administrator/client.conf")
    assert secrets >= {f"{runtime}/{file}" for file in known}
    text = (GOLDEN / name / f"etc/containers/systemd/{container}.container").read_text()
    volumes = [line.removeprefix("Volume=").split(":") for line in text.splitlines() if "Volume=" in line]
    assert volumes
    for source, *_ in volumes:
        assert not [secret for secret in secrets if Path(secret).is_relative_to(source)], source
    assert [source for source, _, *ro in volumes if not ro] in ([], ["/srv/data/openqa/nginx"])


@pytest.mark.parametrize("name", [name for name in machine.NAMES if name.startswith("webui")])
def test_openqa_cannot_read_its_administrators_key(name: str) -> None:
    """A job's DISTRI or a module's script leads to any file, and a build's YAML to one that is quoted."""
    key = machine.API_KEY[:16]
    config = GOLDEN / name / "run/openqa-on-aws/config"
    assert [path for path in config.iterdir() if key in path.read_text()] == []
    quadlets = GOLDEN / name / "etc/containers/systemd"
    for service in ("webui", "scheduler", "websockets", "livehandler", "gru", "proxy"):
        assert "GroupAdd" not in (quadlets / f"openqa-{service}.container").read_text()


@pytest.mark.parametrize("name", [name for name in machine.NAMES if name.startswith("webui")])
def test_nobody_signs_in_as_a_machine(name: str) -> None:
    """openQA looks for the user of a session by name alone, and a provider gives people names like these."""
    text = (GOLDEN / name / "run/openqa-on-aws/administrator/administrator.sql").read_text()
    machines = re.findall(r"values \('([^']*)', '',", text)
    assert len(machines) == 2
    assert not [user for user in machines if re.fullmatch(r"[A-Za-z0-9_.@+-]+", user)]


def test_secrets_are_no_arguments(configured: tuple[str, Host], programs: machine.Programs) -> None:
    arguments = " ".join(argument for call in programs.calls for argument in call)
    for value in machine.HIDDEN:
        assert value not in arguments


def test_systemd_reads_everything_once_when_all_units_are_enabled(
    configured: tuple[str, Host], programs: machine.Programs
) -> None:
    calls = [call for call in programs.started("systemctl") if call[1] in ("daemon-reload", "enable")]
    assert [call[1] for call in calls] == ["enable", "daemon-reload"]
    assert "--no-reload" in calls[0]


def test_quadlets_start_with_the_target_and_never_pull(configured: tuple[str, Host]) -> None:
    _, host = configured
    containers = list(host.layout.quadlets.glob("*.container"))
    worker = host.document.worker
    without = host.document.role == "builder" or (worker is not None and worker.network == "tap")
    assert bool(containers) is not without
    for path in containers:
        text = path.read_text()
        assert "Pull=never" in text, path
        assert "PartOf=openqa-on-aws.target" in text, path
        assert "WantedBy=openqa-on-aws.target" in text, path
        # Quadlet of podman 5.4 loses a last quote, and the container never becomes healthy.
        assert '"' not in "".join(line for line in text.splitlines() if line.startswith("Health")), path


def test_systemd_starts_programs_of_the_system(configured: tuple[str, Host]) -> None:
    """What lies in /opt has no program's label: SELinux would confine it as it does systemd itself."""
    _, host = configured
    started = [
        line.partition("=")[2].lstrip("-+@:!")
        for name, text in rendered(host).items()
        if name.startswith(("etc/systemd/system/", "etc/containers/systemd/"))
        for line in text.splitlines()
        if line.startswith(("ExecStart", "ExecStop", "ExecCondition", "ExecReload"))
    ]
    assert started
    assert [command for command in started if not command.startswith(("/usr/", "/bin/"))] == []


def test_database_publishes_its_certificate_authority(tmp_path: Path, aws: None) -> None:
    host = machine.host(tmp_path, "database")
    machine.store_secrets("test")
    machine.make_bucket()
    roles.configure(host)
    parameter = boto3.client("ssm", region_name=machine.REGION).get_parameter(Name="/openqa/test/database-ca")
    assert parameter["Parameter"]["Value"] == (host.layout.data / "certificates/ca.crt").read_text()


def test_postgresql_reads_its_certificate_also_where_an_earlier_time_came_no_further(
    tmp_path: Path, aws: None, programs: machine.Programs
) -> None:
    host = machine.host(tmp_path, "database")
    roles._ensure_certificate(host, new_authority=True)
    roles.renew_certificate(host)
    roles.renew_certificate(host)
    reload = ("podman", "kill", "--signal=HUP", "openqa-database")
    assert programs.started("podman") == [reload, reload]


@pytest.mark.parametrize("moved", [True, False])
def test_webui_of_rds_waits_for_a_database_that_was_in_a_container(tmp_path: Path, moved: bool) -> None:
    database = {"name": "name.rds.amazonaws.com", "moved": moved}
    host = machine.host(tmp_path, {**machine.read("webui"), "rds": database})
    files = render.render(roles._roles(host) / "webui/quadlets", roles.context(host, {}))
    (unit,) = (file.text for file in files if file.path == Path("openqa-setup.container"))
    assert ("Environment=DATABASE_MOVED=1\n" in unit) == moved


def test_webui_of_rds_verifies_its_name_with_amazons_certificates(
    tmp_path: Path, aws: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    database = {"name": "name.rds.amazonaws.com", "moved": False}
    host = machine.host(tmp_path, {**machine.read("webui"), "rds": database})
    machine.store_secrets("test")
    machine.keep_sample(host)
    issued = certificates.Certificates(tmp_path / "amazon")
    certificates.ensure(issued, name="name.rds.amazonaws.com", address="10.0.0.1", user=0)
    assert rds.url("us-east-1").startswith("https://truststore.pki.rds.amazonaws.com/us-east-1/")
    monkeypatch.setattr(rds, "url", lambda region: issued.ca.as_uri())
    roles.configure(host)
    config = host.layout.config
    assert (config / "database-ca.crt").read_text() == issued.ca.read_text()
    for name in ("database.ini", "pg_service.conf"):
        text = (config / name).read_text()
        assert "host=name.rds.amazonaws.com" in text
        assert "sslmode=verify-full" in text
    assert host.document.database_host == "name.rds.amazonaws.com"
    # On a day on which they cannot be fetched, those of before serve; at first there must be some.
    monkeypatch.setattr(rds, "url", lambda region: (tmp_path / "nothing").as_uri())
    roles.configure(host)
    assert (config / "database-ca.crt").read_text() == issued.ca.read_text()
    with pytest.raises(HostError, match="nothing"):
        rds.certificates("us-east-1", kept=tmp_path / "other")
    monkeypatch.setattr(rds, "url", lambda region: issued.server_key.as_uri())
    with pytest.raises(HostError, match="holds no certificates"):
        rds.certificates("us-east-1", kept=tmp_path / "other")


def test_webui_waits_for_the_certificate(tmp_path: Path, aws: None, monkeypatch: pytest.MonkeyPatch) -> None:
    host = machine.host(tmp_path, "webui")
    machine.store_secrets("test")
    machine.keep_sample(host)
    monkeypatch.setattr(roles, "CERTIFICATE_SECONDS", 0)
    with pytest.raises(HostError, match="with the CA certificate in /openqa/test/database-ca"):
        roles.configure(host)


@pytest.mark.parametrize(
    ("name", "value", "reason"),
    [
        ("database", "short", "secret database: not 16 or more letters and digits"),
        ("database", "quote'quote'quote'", "secret database: not 16 or more letters and digits"),
        ("api-key", "1234567890ABCDEF1234567890ABCDEF", "secret api_key: not 32 hexadecimal digits"),
        ("sign-in", "placeholder", 'secret sign_in: not a JSON object with "key" and "secret"'),
        ("sign-in", '{"key": "a\\nb", "secret": "c"}', "one line of text"),
    ],
)
def test_unusable_secrets_are_named_not_shown(
    tmp_path: Path, aws: None, name: str, value: str, reason: str
) -> None:
    host = machine.host(tmp_path, "webui")
    machine.store_secrets("test")
    machine.publish_certificate("test")
    machine.keep_sample(host)
    boto3.client("secretsmanager", region_name=machine.REGION).put_secret_value(
        SecretId=f"openqa/test/{name}", SecretString=value
    )
    with pytest.raises(HostError, match=reason) as failure:
        roles.configure(host)
    assert value not in str(failure.value)


def test_the_volume_keeps_what_is_there(tmp_path: Path, aws: None) -> None:
    host = machine.host(tmp_path, "webui")
    machine.store_secrets("test")
    machine.publish_certificate("test")
    machine.keep_sample(host)
    kept = host.layout.data / "openqa/share/factory/iso/other.iso"
    kept.parent.mkdir(parents=True)
    kept.write_text("an asset")
    roles.configure(host)
    roles.configure(host)
    assert kept.read_text() == "an asset"
    openqa = host.layout.data / "openqa"
    assert (openqa / "share/factory/iso/fixed/sample.iso").read_bytes() == b"image"
    assert (openqa / "share/tests/sample/main.pm").is_file()
    assert not (openqa / "share/tests/sample/image").exists()
    assert (openqa / "tests").readlink() == Path("share/tests")


def test_links_that_openqa_left_on_the_volume_lead_nobody_elsewhere(tmp_path: Path, aws: None) -> None:
    host = machine.host(tmp_path, "webui")
    machine.store_secrets("test")
    machine.publish_certificate("test")
    machine.keep_sample(host)
    roles.configure(host)
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir(mode=0o700)
    (elsewhere / "passwd").write_text("root")
    openqa = host.layout.data / "openqa"
    for name in ("images", "webui", "content/tests", "content/bundled"):
        shutil.rmtree(openqa / name)
        (openqa / name).symlink_to(elsewhere)
    (openqa / "share/factory/iso/fixed/sample.iso").unlink()
    (openqa / "share/factory/iso/fixed/sample.iso").symlink_to(elsewhere / "passwd")
    roles.configure(host)
    assert (elsewhere / "passwd").read_text() == "root"
    assert [path.name for path in elsewhere.iterdir()] == ["passwd"]
    about = elsewhere.stat()
    assert (about.st_uid, about.st_mode & 0o777) == (os.geteuid(), 0o700)
    assert (openqa / "content/bundled/main.pm").is_file()
    assert (openqa / "share/factory/iso/fixed/sample.iso").read_bytes() == b"image"


@pytest.fixture
def laid_out(tmp_path: Path, aws: None) -> Host:
    """A web UI's host with what is on its volume."""
    host = machine.host(tmp_path, "webui")
    machine.keep_sample(host)
    roles._lay_out(host)
    return host


@pytest.mark.parametrize(
    "name", ["content", "nginx", "share", "share/factory", "share/tests", "webui", "factory", "tests"]
)
@pytest.mark.parametrize("user", [users.OPENQA, users.TESTS])
def test_nobody_moves_a_folder_that_root_works_in_or_podman_mounts(
    laid_out: Host, elsewhere: Path, name: str, user: int
) -> None:
    with users.acting_as(user), pytest.raises(PermissionError):
        machine.put_link(laid_out.layout.data / "openqa" / name, elsewhere)


def test_a_link_that_is_put_there_meanwhile_leads_nowhere(
    laid_out: Host, elsewhere: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, before = laid_out.layout.data / "openqa/webui/cache", machine.everything(elsewhere)
    mkdir = os.mkdir

    def change(path: str, *arguments: Any, **options: Any) -> None:
        try:
            mkdir(path, *arguments, **options)
        finally:
            if Path(path).name == folder.name:
                folder.rmdir()
                folder.symlink_to(elsewhere)

    monkeypatch.setattr(os, "mkdir", change)
    with pytest.raises(HostError, match="webui/cache: Not a directory"):
        roles._lay_out(laid_out)
    assert machine.everything(elsewhere) == before


def test_the_sample_goes_through_no_link(laid_out: Host, elsewhere: Path) -> None:
    (elsewhere / "sample.iso").write_text("theirs")
    before = machine.everything(elsewhere)
    machine.put_link(laid_out.layout.data / "openqa/share/factory/iso/fixed", elsewhere)
    with pytest.raises(HostError, match=r"Permission denied: .*iso/fixed/sample\.iso"):
        roles._install_sample(laid_out)
    assert machine.everything(elsewhere) == before


@pytest.mark.parametrize(
    "configured", [name for name in machine.NAMES if name.startswith("worker")], indirect=True
)
def test_a_worker_moves_no_pool(configured: tuple[str, Host], elsewhere: Path) -> None:
    _, host = configured
    assert (host.layout.worker / "pool/1").stat().st_uid == users.WORKER
    with users.acting_as(users.WORKER), pytest.raises(PermissionError):
        machine.put_link(host.layout.worker / "pool/1", elsewhere)


def test_a_worker_has_the_name_that_it_leased(
    configured: tuple[str, Host], programs: machine.Programs
) -> None:
    _, host = configured
    worker = host.document.worker
    assert host.name == (f"{worker.fleet}-1" if worker else f"openqa-test-{host.document.role}")
    assert programs.started("hostnamectl") == [("hostnamectl", "hostname", host.name)]


def test_a_host_without_kvm_takes_no_name(
    tmp_path: Path, aws: None, programs: machine.Programs, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(kvm, "group", lambda: 992)
    machine.make_names()
    host = machine.host(tmp_path, "worker")
    host.layout.name.unlink()
    with pytest.raises(HostError, match="KVM does not work here"):
        roles.prepare(host)
    assert host.client("dynamodb").scan(TableName="openqa-test-names")["Items"] == []
    assert not host.layout.name.exists()


def test_nothing_is_attached_before_ec2_takes_the_host_for_running(
    tmp_path: Path, aws: None, programs: machine.Programs, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("userdata.host.aws.RUNNING_SECONDS", 0)
    monkeypatch.setattr(interface, "mac_address", lambda *_: "02:00:00:00:00:01")
    with pytest.raises(HostError, match=r"for EC2 to list i-\w+ as running"):
        roles.prepare(machine.host(tmp_path, "database"))


def test_templates_may_name_only_what_they_get(tmp_path: Path) -> None:
    (tmp_path / "file.j2").write_text("{{ unknown }}")
    with pytest.raises(HostError, match=r"template file\.j2: 'unknown' is undefined"):
        render.render(tmp_path, {})


@pytest.mark.parametrize(
    ("count", "load", "fetches"), [(1, 40, 5), (20, 40, 20), (21, 42, 21), (60, 120, 60)]
)
def test_all_of_a_hosts_workers_may_be_busy_at_once(
    tmp_path: Path, count: int, load: int, fetches: int
) -> None:
    data = machine.read("worker")
    data["worker"]["workers"] = {"m8i.xlarge": count}
    facts = {"api_key": "k", "api_secret": "s", "cache_gib": 1, "network_settings": {}}
    context = roles.context(machine.host(tmp_path, data), facts)
    files = render.render(machine.REPOSITORY / "userdata/roles/fleet/config", context)
    (text,) = (file.text for file in files if file.path.name == "workers.ini")
    assert f"\nCRITICAL_LOAD_AVG_THRESHOLD = {load}\n" in text
    assert f"\nCACHEWORKERS = {fetches}\n" in text


@pytest.mark.parametrize(
    ("count", "expected"), [(1, ["x@1.container"]), (2, ["x@1.container", "x@2.container"])]
)
def test_one_quadlet_for_every_worker(tmp_path: Path, count: int, expected: list[str]) -> None:
    (tmp_path / "x@.container.j2").write_text("{{ number }}")
    files: list[Any] = render.render(tmp_path, {"workers": count})
    assert [file.path.name for file in files] == expected
    assert [file.text for file in files] == [str(number) for number in range(1, count + 1)]
