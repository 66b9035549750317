"""Values of the embedded AWS as the runtime sees them, and an AWS that answers with them."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from ipaddress import IPv4Address, IPv4Network
from typing import Any

from localcloud.aws.ports import (
    Action,
    Credentials,
    Firewall,
    Forward,
    HealthCheck,
    Instance,
    Interface,
    Listener,
    LoadBalancer,
    MetadataOptions,
    Rule,
    Subnet,
    Target,
    TargetState,
)

ADDRESS = IPv4Address("10.99.1.5")
ANYWHERE = Rule(protocol="all", first_port=0, last_port=65535, peers=(IPv4Network("0.0.0.0/0"),))
SUBNET = Subnet(id="subnet-1", vpc="vpc-1", cidr=IPv4Network("10.99.1.0/24"), zone="us-east-1a")
GROUP = "arn:aws:elasticloadbalancing:us-east-1:123456789012:targetgroup/webui/0123456789abcdef"


def instance(**changes: Any) -> Instance:
    interface = Interface(
        id="eni-1",
        index=0,
        address=ADDRESS,
        mac="02:00:00:00:00:01",
        subnet="subnet-1",
        groups=("sg-1", "sg-2"),
        state="attached",
    )
    made = Instance(
        id="i-1",
        state="running",
        image="ami-1",
        type="c8i.large",
        zone="us-east-1a",
        subnet="subnet-1",
        vpc="vpc-1",
        address=ADDRESS,
        user_data=b"#!/bin/sh\n",
        role="worker",
        profile_arn="arn:aws:iam::123456789012:instance-profile/worker",
        tags={"Name": "small"},
        metadata=metadata_options(),
        interfaces=(interface,),
        volumes=(),
        root_gib=8,
        spot=False,
        launched=datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC),
        reboots=0,
        group=None,
        target_lifecycle_state="InService",
    )
    return replace(made, **changes)


def metadata_options(**changes: Any) -> MetadataOptions:
    return replace(MetadataOptions(enabled=True, token_required=True, hop_limit=1, tags=True), **changes)


def rule(protocol: str, port: int, *peers: str) -> Rule:
    return Rule(
        protocol=protocol, first_port=port, last_port=port, peers=tuple(IPv4Network(peer) for peer in peers)
    )


def firewall(address: str, *ingress: Rule, egress: tuple[Rule, ...] = (ANYWHERE,)) -> Firewall:
    return Firewall(address=IPv4Address(address), interface="eni-1", ingress=ingress, egress=egress)


def target(address: str = "10.99.1.5", *, state: TargetState = "healthy", port: int = 80) -> Target:
    return Target(id=f"i-{address.rpartition('.')[2]}", address=IPv4Address(address), port=port, state=state)


def health_check(**changes: Any) -> HealthCheck:
    check = HealthCheck(
        protocol="HTTP",
        path="/health",
        port="traffic-port",
        interval=5,
        timeout=2,
        healthy=3,
        unhealthy=2,
        codes="200-299",
    )
    return replace(check, **changes)


def listener(**changes: Any) -> Listener:
    action: Action = Forward(target_group=GROUP)
    made = Listener(arn="listener-1", port=80, protocol="HTTP", certificates=(), action=action)
    return replace(made, **changes)


def balancer(*listeners: Listener) -> LoadBalancer:
    return LoadBalancer(
        arn="arn:aws:elasticloadbalancing:us-east-1:123456789012:loadbalancer/app/openqa/1",
        name="openqa",
        dns_name="openqa-1.us-east-1.elb.amazonaws.com",
        internal=False,
        addresses=(IPv4Address("10.99.0.9"), IPv4Address("10.99.2.9")),
        idle_timeout=3600,
        listeners=listeners,
    )


class FixedInstances:
    """The part of an AWS that the metadata service asks; all instances have credentials."""

    def __init__(self, *instances: Instance) -> None:
        self._instances = instances

    def instances(self) -> tuple[Instance, ...]:
        return self._instances

    def subnets(self) -> tuple[Subnet, ...]:
        return (SUBNET,)

    def credentials(self, instance: str) -> Credentials | None:
        return Credentials(
            access_key="AKIA", secret_key="s3cret", token="token", expires=datetime(2026, 2, 3, tzinfo=UTC)
        )
