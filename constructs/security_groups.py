"""Who may talk to whom: all security groups and rules, made from one table."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Literal

from aws_cdk import aws_ec2 as ec2
from constructs import Construct
from constructs.acknowledged import acknowledge

from settings import Environment
from settings.naming import prefix

Group = Literal["load-balancer", "webui", "database", "worker", "builder"]
Peer = Literal["clients", "developers", "internet"]

ANYWHERE = "0.0.0.0/0"
# They must not change: CloudFormation would replace the group, and refuses while other stacks use its id.
DESCRIPTIONS: Mapping[Group, str] = {
    "load-balancer": "The load balancer in front of the web UI",
    "webui": "The web UI host and its fixed interface",
    "database": "The database host and its fixed interface",
    "worker": "Worker hosts",
    "builder": "Builders of disk images",
}


@dataclass(frozen=True, kw_only=True)
class Flow:
    """One kind of traffic that is allowed; everything else is not.

    Attributes:
        source: who opens the connection.
        target: who is connected to.
        ports: first and last TCP port; None: every protocol and port.
        why: the reason, which becomes the rule's description.
    """

    source: Group | Peer
    target: Group | Peer
    ports: tuple[int, int] | None
    why: str


def flows(environment: Environment) -> tuple[Flow, ...]:
    """Returns the table: who, to whom, on which ports, why."""
    most = _most_workers(environment)
    https = environment.domain is not None
    web = "Redirected to HTTPS" if https else "The web UI"
    table: list[tuple[Group | Peer, Group | Peer, tuple[int, int] | None, str]] = [
        ("clients", "load-balancer", (80, 80), web),
        ("load-balancer", "webui", (80, 80), "The web UI and its health check"),
        ("worker", "webui", (80, 80), "Jobs, assets and results: the API and its websockets"),
        ("worker", "webui", (873, 873), "Tests and needles by rsync"),
        ("webui", "worker", (20013, 20003 + 10 * most), "Developer mode: the command server of each worker"),
        ("developers", "worker", (5991, 5990 + most), "VNC of the systems under test"),
        ("webui", "database", (5432, 5432), "PostgreSQL with TLS"),
        ("webui", "internet", (443, 443), "AWS, packages, sign-in, git, assets"),
        ("webui", "internet", (80, 80), "Packages and assets"),
        ("database", "internet", (443, 443), "AWS and packages"),
        ("database", "internet", (80, 80), "Packages"),
        ("worker", "internet", None, "Whatever the systems under test download"),
    ]
    if environment.database.engine == "rds":
        table = [row for row in table if row[:2] != ("database", "internet")]
    elif environment.database.rds:
        table.append(("database", "database", (5432, 5432), "Moving to RDS: from our host"))
    if environment.schedule:
        port = environment.schedule.port
        table.append(("webui", "internet", (port, port), "The broker of messages that schedule jobs"))
    if https:
        table.insert(0, ("clients", "load-balancer", (443, 443), "The web UI"))
    if environment.builders:
        table += [
            ("builder", "internet", (443, 443), "AWS, packages, git and what is installed into images"),
            ("builder", "internet", (80, 80), "Packages and what is installed into images"),
        ]
    # EC2 identifies a rule by its ports and peer alone: removing one of two equal rules would remove both.
    unlike: dict[tuple[Group | Peer, Group | Peer, tuple[int, int] | None], str] = {}
    for who, whom, ports, why in table:
        unlike.setdefault((who, whom, ports), why)
    return tuple(
        Flow(source=who, target=whom, ports=ports, why=why) for (who, whom, ports), why in unlike.items()
    )


def client_networks(environment: Environment) -> tuple[str, ...]:
    """Returns the networks that can reach the web UI: everything, if the environment is public."""
    return (ANYWHERE,) if environment.public else tuple(str(network) for network in environment.trusted)


def nothing() -> ec2.CfnSecurityGroup.EgressProperty:
    """Returns the rule that lets nothing out: without any, EC2 would add one that lets everything out."""
    return ec2.CfnSecurityGroup.EgressProperty(
        cidr_ip="255.255.255.255/32", ip_protocol="icmp", from_port=252, to_port=86, description="Nothing"
    )


class SecurityGroups(Construct):
    """The security groups with the rules of :func:`flows`.

    Attributes:
        load_balancer: the id of the load balancer's group.
        webui: the id of the web UI host's group.
        database: the id of the database host's group.
        worker: the id of the worker hosts' group.
        builder: the id of the builders' group; None: the environment has no builders.
    """

    load_balancer: str
    webui: str
    database: str
    worker: str
    builder: str | None

    def __init__(self, scope: Construct, id: str, *, environment: Environment, vpc: str) -> None:
        """Makes the groups and their rules.

        Args:
            scope: the construct that they belong to.
            id: their name there.
            environment: the settings.
            vpc: the VPC's id.
        """
        super().__init__(scope, id)
        table = flows(environment)
        peers = {
            "clients": client_networks(environment),
            "developers": tuple(str(network) for network in environment.developers),
            "internet": (ANYWHERE,),
        }
        groups: dict[str, ec2.CfnSecurityGroup] = {
            name: ec2.CfnSecurityGroup(
                self,
                _camel(name),
                vpc_id=vpc,
                group_description=f"{prefix(environment)}: {description}",
                security_group_ingress=_ingress(name, table, peers),
                security_group_egress=_egress(name, table, peers),
                tags=[{"key": "Name", "value": f"{prefix(environment)}-{name}"}],
            )
            for name, description in DESCRIPTIONS.items()
            if name != "builder" or environment.builders
        }
        if environment.public:
            acknowledge(
                groups["load-balancer"],
                "AwsSolutions::AwsSolutions-EC23",
                reason="The environment makes the web UI public: ports 80 and 443.",
            )
        ids = {name: group.attr_group_id for name, group in groups.items()}
        for flow in table:
            if flow.source in ids and flow.target in ids:
                self._between(flow, ids[flow.source], ids[flow.target])
        self.load_balancer = ids["load-balancer"]
        self.webui = ids["webui"]
        self.database = ids["database"]
        self.worker = ids["worker"]
        self.builder = ids.get("builder")

    def _between(self, flow: Flow, source: str, target: str) -> None:
        name = f"{_camel(flow.source)}To{_camel(flow.target)}{flow.ports[0] if flow.ports else ''}"
        protocol, first, last = _range(flow)
        ec2.CfnSecurityGroupIngress(
            self,
            f"{name}In",
            group_id=target,
            source_security_group_id=source,
            ip_protocol=protocol,
            from_port=first,
            to_port=last,
            description=flow.why,
        )
        ec2.CfnSecurityGroupEgress(
            self,
            f"{name}Out",
            group_id=source,
            destination_security_group_id=target,
            ip_protocol=protocol,
            from_port=first,
            to_port=last,
            description=flow.why,
        )


def _ingress(
    name: str, table: Iterable[Flow], peers: Mapping[str, tuple[str, ...]]
) -> list[ec2.CfnSecurityGroup.IngressProperty]:
    return [
        ec2.CfnSecurityGroup.IngressProperty(
            cidr_ip=network, ip_protocol=protocol, from_port=first, to_port=last, description=flow.why
        )
        for flow in table
        if flow.target == name
        for network in peers.get(flow.source, ())
        for protocol, first, last in [_range(flow)]
    ]


def _egress(
    name: str, table: Iterable[Flow], peers: Mapping[str, tuple[str, ...]]
) -> list[ec2.CfnSecurityGroup.EgressProperty]:
    rules = [
        ec2.CfnSecurityGroup.EgressProperty(
            cidr_ip=network, ip_protocol=protocol, from_port=first, to_port=last, description=flow.why
        )
        for flow in table
        if flow.source == name
        for network in peers.get(flow.target, ())
        for protocol, first, last in [_range(flow)]
    ]
    return rules or [nothing()]


def _range(flow: Flow) -> tuple[str, int | None, int | None]:
    return ("tcp", *flow.ports) if flow.ports else ("-1", None, None)


def _most_workers(environment: Environment) -> int:
    return max(fleet.workers(name) for fleet in environment.fleets for name in fleet.instance_types)


def _camel(name: str) -> str:
    return name.title().replace("-", "")
