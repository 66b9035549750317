from __future__ import annotations

import os
import shutil
import subprocess
import time
from ipaddress import IPv4Address
from pathlib import Path
from typing import Any

import pytest

from localcloud import network
from localcloud.authority import Authority
from localcloud.aws.ports import FixedResponse, LoadBalancer, Redirect, Target
from localcloud.health import Health, accepts
from localcloud.load_balancer import Balancer, configuration, routable
from localcloud.splice import entrance
from tests.localcloud.samples import GROUP, balancer, health_check, listener, target
from tests.prerequisites import missing

TO_HTTPS = Redirect(
    status=301, protocol="HTTPS", host="#{host}", port="443", path="/#{path}", query="#{query}"
)


def configured(made: LoadBalancer, *targets: Target, certificates: dict[str, Path] | None = None) -> str:
    return configuration(
        made,
        targets={GROUP: targets},
        certificates=certificates or {},
        bad_gateway=Path("/tmp/502.http"),
    )


def test_passes_requests_on_with_the_balancers_own_address() -> None:
    lines = configured(balancer(listener()), target()).splitlines()
    assert "  bind 10.99.0.9:80" in lines
    assert "  bind 10.99.2.9:80" in lines
    assert "  default_backend webui-0123456789abcdef" in lines
    assert "  server i-5 10.99.1.5:80 source 10.99.0.9" in lines
    assert "  timeout tunnel 3600s" in lines


def test_without_targets_503() -> None:
    text = configured(balancer(listener()))
    assert "http-request return status 503" in text
    assert "default_backend" not in text


def test_a_redirect_keeps_path_and_query() -> None:
    text = configured(balancer(listener(action=TO_HTTPS)))
    assert 'redirect location "https://%[req.hdr(host),host_only]:443%[pathq]" code 301' in text


def test_other_redirects() -> None:
    action = Redirect(
        status=302, protocol="#{protocol}", host="example.org", port="#{port}", path="/old/#{path}", query=""
    )
    text = configured(balancer(listener(action=action)))
    assert 'redirect location "http://example.org:80/old/%[path,regsub(^/,)]" code 302' in text


def test_haproxy_takes_the_configuration(tmp_path: Path) -> None:
    if not shutil.which("haproxy"):
        missing("haproxy is not installed")
    certificate = tmp_path / "certificate.pem"
    certificate.write_bytes(Authority().issue(["localhost", "*.example.org"]))
    page = FixedResponse(status=403, content_type="text/plain", body='no "quotes", $HOME or \\ here\n')
    made = balancer(
        listener(action=TO_HTTPS),
        listener(arn="listener-2", port=443, protocol="HTTPS"),
        listener(arn="listener-3", port=8080, action=page),
    )
    for targets in ((), (target(), target("10.99.1.6"))):
        text = configured(made, *targets, certificates={"listener-2": certificate})
        path = tmp_path / "haproxy.cfg"
        (tmp_path / "502.http").write_text("HTTP/1.1 502 Bad Gateway\r\n\r\n")
        path.write_text(text.replace("/tmp/502.http", str(tmp_path / "502.http")))
        done = subprocess.run(["haproxy", "-c", "-f", path], capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        assert "WARNING" not in done.stderr


@pytest.mark.parametrize(
    ("states", "chosen"),
    [
        (["healthy", "unhealthy", "initial", "draining"], ["healthy"]),
        # Fail open: when none is healthy, all are tried.
        (["unhealthy", "initial", "draining", "unused"], ["unhealthy"]),
        (["initial", "draining"], []),
    ],
)
def test_who_gets_requests(states: list[Any], chosen: list[str]) -> None:
    targets = [target(f"10.99.1.{number}", state=state) for number, state in enumerate(states, start=5)]
    assert [chosen.state for chosen in routable(targets)] == chosen


def states(results: str) -> list[str]:
    """The states after each check: ``+`` passed, ``-`` failed."""
    health = Health()
    seen: list[str] = []
    for result in results:
        health = health.after(None if result == "+" else "Request timed out", health_check())
        seen.append(health.state)
    return seen


def test_one_success_makes_a_new_target_healthy() -> None:
    assert states("+") == ["healthy"]
    assert states("-+") == ["initial", "healthy"]
    assert states("--") == ["initial", "unhealthy"]


def test_later_it_takes_as_many_in_a_row_as_the_target_group_says() -> None:
    assert states("+-+--") == ["healthy", "healthy", "healthy", "healthy", "unhealthy"]
    assert states("--++-+++")[2:] == ["unhealthy"] * 5 + ["healthy"]


def test_why_a_target_is_unhealthy() -> None:
    check = health_check(unhealthy=1)
    assert Health().after("Request timed out", check).description == "Request timed out"
    assert Health().after(None, check).description == ""


@pytest.mark.parametrize(
    ("codes", "status", "accepted"),
    [
        ("200", 200, True),
        ("200", 204, False),
        ("200-299", 204, True),
        ("200,302", 302, True),
        ("200, 302", 301, False),
    ],
)
def test_codes(codes: str, status: int, accepted: bool) -> None:
    assert accepts(codes, status) is accepted


def test_where_a_browser_gets() -> None:
    plain, secure = balancer(listener()), balancer(listener(), listener(port=443, protocol="HTTPS"))
    assert entrance(()) is None
    assert entrance((plain,)) is None
    assert entrance((plain, secure)) == (IPv4Address("10.99.0.9"), 443)


def test_one_that_ends_is_started_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    starts = tmp_path / "starts"
    program = tmp_path / "haproxy"
    # Ends by the signal that asks the real one, once it has started, to read its configuration.
    program.write_text(f"#!/bin/sh\necho >>{starts}\nexec sleep 60\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    monkeypatch.setattr(network, "own_addresses", lambda _: None)
    made = Balancer(tmp_path / "balancer", Authority())

    def started(times: int, *targets: Target) -> None:
        deadline = time.monotonic() + 20
        while not starts.exists() or len(starts.read_text()) < times:
            assert time.monotonic() < deadline
            made.update(balancer(listener()), {GROUP: targets})
            time.sleep(0.05)

    try:
        started(1)
        started(2, target())
        made.update(balancer(listener()), {GROUP: (target(),)})
        assert len(starts.read_text()) == 2
    finally:
        made.stop()
