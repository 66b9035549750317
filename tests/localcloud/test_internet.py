"""A cloud's way out to the internet: there when asked for, one way, and gone with the cloud."""

from __future__ import annotations

import os
import signal
import socket
from collections.abc import Iterator
from ipaddress import IPv4Address
from pathlib import Path

import pytest

from localcloud import internet
from localcloud.network import ruleset
from tests.localcloud.lab import Lab, make_lab, passing_cloud, wait_until
from tests.localcloud.samples import firewall, rule
from tests.prerequisites import require_machine

NAME = f"test-internet-{os.getpid()}"
# Where the packages of an instance's root come from.
SITE = "$(awk '$1 == \"deb\" { print $2; exit }' /etc/apt/sources.list)/dists/trixie/InRelease"
SEALED_GROUP_RULES = ruleset(firewalls=(firewall("10.99.1.5", rule("tcp", 22)),), hop_limits={})


def processes() -> list[str]:
    """The ways out that are open for clouds, by their command lines."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            words = path.read_bytes().decode(errors="replace").split("\0")
        except OSError:
            continue  # it ended in between
        if words[0] == "slirp4netns" and internet.LINK in words:
            found.append(" ".join(words))
    return found


def test_rules_let_nothing_out_unless_asked() -> None:
    assert internet.LINK not in SEALED_GROUP_RULES
    assert "masquerade" not in SEALED_GROUP_RULES


def test_a_missing_program_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nonexistent")
    with pytest.raises(internet.InternetError, match="apt-get install slirp4netns"):
        internet.connect(1, gone=0)


@pytest.fixture(scope="module")
def lab() -> Iterator[Lab]:
    require_machine()
    with passing_cloud(NAME, internet=True) as running:
        yield make_lab(running)


@pytest.fixture(scope="module")
def instance(lab: Lab) -> str:
    launched = lab.launch("client")
    lab.wait_for_boot(launched)
    return launched


@pytest.mark.machine
def test_an_instance_reaches_the_internet(lab: Lab, instance: str) -> None:
    assert "Codename: trixie" in lab.output(instance, f"curl --silent --fail --max-time 60 {SITE}")


@pytest.mark.machine
def test_the_cloud_answers_for_its_own_names(lab: Lab, instance: str) -> None:
    answer = lab.output(instance, "getent ahostsv4 sts.amazonaws.com")
    assert IPv4Address(answer.split()[0]) == IPv4Address("198.18.0.1")


@pytest.mark.machine
def test_what_listens_on_this_machine_is_out_of_reach(lab: Lab, instance: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        # What slirp4netns would pass on to this machine's loopback.
        probe = f"import socket; socket.create_connection(('10.0.2.2', {server.getsockname()[1]}), timeout=5)"
        assert lab.run(instance, f'python3 -c "{probe}"').returncode != 0


@pytest.mark.machine
def test_it_ends_with_the_cloud() -> None:
    require_machine()
    before = processes()
    name = f"{NAME}-end"
    with passing_cloud(name, internet=True) as running:
        assert len(processes()) == len(before) + 1
        os.kill(running.pid, signal.SIGKILL)
        wait_until(lambda: processes() == before, seconds=10)
