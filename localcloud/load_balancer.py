"""The Application Load Balancer: an HAProxy on the balancer's own addresses, configured to behave like it."""

from __future__ import annotations

import signal
import subprocess
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from ipaddress import IPv4Address
from pathlib import Path

from localcloud import network
from localcloud.authority import Authority
from localcloud.aws.ports import (
    Cloud,
    FixedResponse,
    Forward,
    HealthCheck,
    Listener,
    LoadBalancer,
    Redirect,
    Target,
    TargetGroup,
)
from localcloud.health import Checker

_CONNECT_SECONDS = 10  # the balancer gives a target this long to accept a connection
_PAGE = "<html><head><title>{0}</title></head><body><center><h1>{0}</h1></center></body></html>"


def routable(targets: Iterable[Target]) -> tuple[Target, ...]:
    """The targets that get requests: the healthy ones, or all if none is healthy ("fail open").

    Args:
        targets: The registered targets, with their states.
    """
    candidates = tuple(target for target in targets if target.state in ("healthy", "unhealthy"))
    return tuple(target for target in candidates if target.state == "healthy") or candidates


def configuration(
    balancer: LoadBalancer,
    *,
    targets: Mapping[str, Sequence[Target]],
    certificates: Mapping[str, Path],
    bad_gateway: Path,
) -> str:
    """HAProxy's configuration.

    Args:
        balancer: The load balancer.
        targets: Who gets requests, by target group.
        certificates: The PEM file of each HTTPS listener, by its ARN.
        bad_gateway: A file with the whole answer for a target that does not accept the connection.
    """
    lines = [
        "global",
        "  maxconn 2000",
        "defaults",
        "  mode http",
        "  retries 0",
        f"  timeout connect {_CONNECT_SECONDS}s",
        *(f"  timeout {kind} {balancer.idle_timeout}s" for kind in ("client", "server", "tunnel")),
    ]
    for listener in balancer.listeners:
        lines += _frontend(listener, balancer.addresses, targets, certificates.get(listener.arn))
    for group, members in sorted(targets.items()):
        lines += [f"backend {_backend(group)}", "  balance roundrobin", f"  errorfile 503 {bad_gateway}"]
        # Any address of the balancer would do as the source.
        source = f" source {balancer.addresses[0]}"
        lines += [f"  server {member.id} {member.address}:{member.port}{source}" for member in members]
    return "\n".join([*lines, ""])


def _frontend(
    listener: Listener,
    addresses: Iterable[IPv4Address],
    targets: Mapping[str, Sequence[Target]],
    certificate: Path | None,
) -> list[str]:
    tls = f" ssl crt {certificate} alpn h2,http/1.1" if certificate else ""
    return [
        f"frontend port-{listener.port}",
        *(f"  bind {address}:{listener.port}{tls}" for address in addresses),
        "  http-request set-header X-Forwarded-For %[req.fhdr(x-forwarded-for)],\\ %[src]"
        " if { req.fhdr(x-forwarded-for) -m found }",
        "  http-request set-header X-Forwarded-For %[src] unless { req.fhdr(x-forwarded-for) -m found }",
        f"  http-request set-header X-Forwarded-Proto {listener.protocol.lower()}",
        f"  http-request set-header X-Forwarded-Port {listener.port}",
        f"  {_action(listener, targets)}",
    ]


def _action(listener: Listener, targets: Mapping[str, Sequence[Target]]) -> str:
    match listener.action:
        case Forward(target_group=group) if targets.get(group):
            return f"default_backend {_backend(group)}"
        case Forward():
            return _respond(503, "text/html", _PAGE.format("503 Service Temporarily Unavailable"))
        case Redirect() as redirect:
            return f'http-request redirect location "{_location(redirect, listener)}" code {redirect.status}'
        case FixedResponse() as fixed:
            return _respond(fixed.status, fixed.content_type, fixed.body)


def _respond(status: int, content_type: str, body: str) -> str:
    text = body.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n").replace("$", "\\$")
    return f'http-request return status {status} content-type "{content_type}" string "{text}"'


def _location(redirect: Redirect, listener: Listener) -> str:
    path = f"{redirect.path}?{redirect.query}" if redirect.query else redirect.path
    # As one piece, so that a missing query leaves no stray question mark.
    path = path.replace("/#{path}?#{query}", "%[pathq]")
    return (
        f"{redirect.protocol.lower()}://{redirect.host}:{redirect.port}{path}".replace(
            "#{protocol}", listener.protocol.lower()
        )
        .replace("#{host}", "%[req.hdr(host),host_only]")
        .replace("#{port}", str(listener.port))
        .replace("#{path}", "%[path,regsub(^/,)]")
        .replace("#{query}", "%[query]")
    )


def _backend(group: str) -> str:
    """A target group's name and number: ``targetgroup/NAME/NUMBER`` at the end of its ARN."""
    return "-".join(group.split("/")[-2:])


class Balancer:
    """A running load balancer.

    Args:
        directory: Holds its configuration and certificates.
        authority: Issues its certificates.
    """

    def __init__(self, directory: Path, authority: Authority) -> None:
        directory.mkdir(mode=0o700)
        self._directory = directory
        self._authority = authority
        self._certificates: dict[tuple[str, ...], Path] = {}
        self._configuration = ""
        self._process: subprocess.Popen[bytes] | None = None
        self._bad_gateway = directory / "502.http"
        page = _PAGE.format("502 Bad Gateway")
        self._bad_gateway.write_text(
            "HTTP/1.1 502 Bad Gateway\r\nContent-Type: text/html\r\n"
            f"Content-Length: {len(page)}\r\nConnection: close\r\n\r\n{page}"
        )

    def update(self, balancer: LoadBalancer, targets: Mapping[str, Sequence[Target]]) -> None:
        """Bring it in line with what is wanted. Existing connections stay.

        Args:
            balancer: The load balancer.
            targets: Who gets requests, by target group.

        Raises:
            NetworkError: An address could not be added.
        """
        text = configuration(
            balancer,
            targets=targets,
            certificates={
                listener.arn: self._certificate(listener)
                for listener in balancer.listeners
                if listener.protocol == "HTTPS"
            },
            bad_gateway=self._bad_gateway,
        )
        # A signal to reload ends one that is still starting, which is likely on a busy machine.
        runs = self._process is not None and self._process.poll() is None
        if runs and text == self._configuration:
            return
        network.own_addresses(balancer.addresses)
        path = self._directory / "haproxy.cfg"
        path.write_text(text)
        self._configuration = text
        if self._process is None or not runs:
            self._process = subprocess.Popen(
                ["haproxy", "-W", "-db", "-q", "-f", str(path)], stdin=subprocess.DEVNULL
            )
        else:
            self._process.send_signal(signal.SIGUSR2)  # reload

    def stop(self) -> None:
        """End it and all its connections."""
        if self._process is not None:
            self._process.terminate()
            self._process.wait()

    def _certificate(self, listener: Listener) -> Path:
        names = listener.certificates
        if names not in self._certificates:
            path = self._directory / f"{len(self._certificates)}.pem"
            path.write_bytes(self._authority.issue(names))
            self._certificates[names] = path
        return self._certificates[names]


class LoadBalancing:
    """All load balancers and the health of their targets.

    Args:
        cloud: What is wanted, and where health is reported.
        directory: An empty directory for files.
        authority: Issues certificates.
    """

    def __init__(self, cloud: Cloud, directory: Path, authority: Authority) -> None:
        self._cloud = cloud
        self._directory = directory
        self._authority = authority
        self._wanted: list[LoadBalancer] = []
        self._groups: dict[str, TargetGroup] = {}
        self._balancers: dict[str, Balancer] = {}
        self._checkers: dict[_Check, Checker] = {}

    def read(self) -> None:
        """Look up what is wanted."""
        # One that is being created may have no addresses or no listeners yet.
        self._wanted = [b for b in self._cloud.load_balancers() if b.addresses and b.listeners]
        self._groups = {group.arn: group for group in self._cloud.target_groups()}
        self._check(_checks(self._wanted, self._groups))

    def update(self) -> None:
        """Bring all in line with what is wanted and with what the checks say; cheap when nothing changed.

        Raises:
            NetworkError: An address could not be added.
        """
        members = {arn: routable(self._judged(group)) for arn, group in self._groups.items()}
        for arn in self._balancers.keys() - {balancer.arn for balancer in self._wanted}:
            self._balancers.pop(arn).stop()
        for balancer in self._wanted:
            if balancer.arn not in self._balancers:
                directory = self._directory / balancer.arn.rpartition("/")[2]
                self._balancers[balancer.arn] = Balancer(directory, self._authority)
            self._balancers[balancer.arn].update(
                balancer, {arn: members.get(arn, ()) for arn in _target_groups(balancer)}
            )

    def _check(self, wanted: Mapping[_Check, IPv4Address]) -> None:
        for check in self._checkers.keys() - wanted.keys():
            self._checkers.pop(check).stop()
        for check in wanted.keys() - self._checkers.keys():
            target = Target(id=check.instance, address=check.address, port=check.port, state="initial")
            self._checkers[check] = Checker(check.settings, target, wanted[check])

    def _judged(self, group: TargetGroup) -> list[Target]:
        """The group's targets with the states that the checks found; a changed state is reported."""
        judged = []
        for target in group.targets:
            checker = self._checkers.get(_Check.of(group, target))
            if checker is None:
                continue
            health = checker.health
            if health.state != target.state:
                self._cloud.set_target_health(
                    group.arn, target.id, health.state, description=health.description
                )
            judged.append(replace(target, state=health.state))
        return judged


@dataclass(frozen=True, kw_only=True)
class _Check:
    """What is checked, and how; a change of either starts a new check."""

    group: str
    settings: HealthCheck
    instance: str
    address: IPv4Address
    port: int

    @classmethod
    def of(cls, group: TargetGroup, target: Target) -> _Check:
        return cls(
            group=group.arn,
            settings=group.health_check,
            instance=target.id,
            address=target.address,
            port=target.port,
        )


def _checks(
    balancers: Iterable[LoadBalancer], groups: Mapping[str, TargetGroup]
) -> dict[_Check, IPv4Address]:
    """The checks of targets that are in use and not leaving, and the address that each check comes from."""
    return {
        _Check.of(groups[arn], target): balancer.addresses[0]
        for balancer in balancers
        for arn in _target_groups(balancer) & groups.keys()
        for target in groups[arn].targets
        if target.state in ("initial", "healthy", "unhealthy")
    }


def _target_groups(balancer: LoadBalancer) -> set[str]:
    return {
        listener.action.target_group
        for listener in balancer.listeners
        if isinstance(listener.action, Forward)
    }
