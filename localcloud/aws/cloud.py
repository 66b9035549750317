"""The runtime's view of the embedded AWS: :class:`localcloud.aws.ports.Cloud` over moto's state."""

from __future__ import annotations

import base64
from collections.abc import Iterable
from datetime import UTC, timedelta
from ipaddress import IPv4Address, IPv4Network
from typing import Any, Literal

from moto.elbv2.models import elbv2_backends
from moto.iam.models import iam_backends
from moto.route53.models import route53_backends

from localcloud.aws import balancing, ec2
from localcloud.aws.autoscaling.api import AutoScaling
from localcloud.aws.commands import RunCommand
from localcloud.aws.ports import (
    Action,
    Command,
    Credentials,
    Firewall,
    FixedResponse,
    Forward,
    HealthCheck,
    Instance,
    Interface,
    Listener,
    LoadBalancer,
    MetadataOptions,
    Record,
    Redirect,
    Rule,
    Subnet,
    Target,
    TargetGroup,
    TargetState,
    Volume,
    VolumeAttachment,
    Zone,
)
from localcloud.aws.world import World

_FRESH = timedelta(minutes=10)


class LocalCloud:
    """Implements :class:`localcloud.aws.ports.Cloud`, see there."""

    def __init__(self, world: World, autoscaling: AutoScaling, run_command: RunCommand) -> None:
        self._world = world
        self._autoscaling = autoscaling
        self._run_command = run_command
        self._credentials: dict[str, Credentials] = {}

    @property
    def _ec2(self) -> ec2.Backend:
        return ec2.backend(self._world.account, self._world.region)

    def version(self) -> int:
        """A number that changes whenever anything below may have changed."""
        return self._world.version

    def wait(self, version: int, timeout: float) -> int:
        """Wait until the version differs from ``version``, or for ``timeout`` seconds; return the version."""
        with self._world.changed:
            self._world.changed.wait_for(lambda: self._world.version != version, timeout)
            return self._world.version

    # -- instances

    def instances(self) -> tuple[Instance, ...]:
        """All instances except the terminated ones."""
        with self._world.changed:
            return tuple(self._instance(i) for i in self._ec2.all_instances() if i.state != "terminated")

    def _instance(self, instance: Any) -> Instance:
        found = self._autoscaling.member(instance.id)
        group, member = found if found else (None, None)
        options = instance.metadata_options
        profile = (instance.iam_instance_profile or {}).get("Arn")
        root = instance.block_device_mapping.get(instance.root_device_name)
        user_data = instance.user_data
        return Instance(
            id=instance.id,
            state=instance.state,
            image=instance.image_id,
            type=instance.instance_type,
            zone=instance.availability_zone,
            subnet=instance.subnet_id,
            vpc=instance.vpc_id,
            address=IPv4Address(instance.private_ip),
            user_data=base64.b64decode(str(user_data)) if user_data else b"",
            role=self._role(profile),
            profile_arn=profile,
            tags={tag["key"]: tag["value"] for tag in instance.get_tags()},
            metadata=MetadataOptions(
                enabled=options.http_endpoint == "enabled",
                token_required=options.http_tokens == "required",
                hop_limit=options.http_put_response_hop_limit,
                tags=options.instance_metadata_tags == "enabled",
            ),
            interfaces=tuple(
                Interface(
                    id=interface.id,
                    index=index,
                    address=IPv4Address(interface.private_ip_address),
                    mac=interface.mac_address,
                    subnet=interface.subnet.id,
                    groups=tuple(security_group.id for security_group in interface.group_set),
                    state=interface.attachment_state,
                )
                for index, interface in sorted(instance.nics.items())
            ),
            volumes=tuple(
                VolumeAttachment(
                    id=device.volume_id,
                    device=path,
                    size_gib=int(self._ec2.volumes[device.volume_id].size),
                    state=self._ec2.volumes[device.volume_id].attachment.status,  # type: ignore[union-attr,arg-type]
                )
                for path, device in sorted(instance.block_device_mapping.items())
                if path != instance.root_device_name
            ),
            root_gib=int(self._ec2.volumes[root.volume_id].size) if root else 8,
            spot=instance.lifecycle == "spot",
            launched=instance.launch_time.replace(tzinfo=UTC),
            reboots=self._ec2.reboots.get(instance.id, 0),
            group=group.name if group else None,
            target_lifecycle_state=("Terminated" if member.leaving else "InService") if member else None,
            interruption=self._ec2.interruptions.get(instance.id),
            rebalance=self._ec2.rebalances.get(instance.id),
        )

    def _role(self, profile_arn: str | None) -> str | None:
        if profile_arn is None:
            return None
        for profile in iam_backends[self._world.account]["aws"].instance_profiles.values():
            if profile.arn == profile_arn and profile.roles:
                return str(profile.roles[0].name)
        return None

    def set_state(self, instance: str, state: Literal["running", "stopped", "terminated"]) -> None:
        """Report what became of an instance. Unknown or already terminated ones are ignored."""
        with self._world.changed:
            found = self._ec2.get_instance_by_id(instance)
            if found is None or found.state in ("terminated", state):
                return
            if state == "terminated":
                self._ec2.terminated(found)
            elif state == "stopped":
                self._ec2.stopped(found)
            elif found.state == "pending":
                ec2.set_state(found, "running")
            else:
                return
            self._changed()

    def _changed(self) -> None:
        self._world.touch()
        self._autoscaling.step(self._world.clock())

    def set_console(self, instance: str, output: bytes) -> None:
        """Set what GetConsoleOutput returns: the whole console so far, or its end."""
        with self._world.changed:
            # As on AWS: the last 64 KiB.
            self._ec2.consoles[instance] = output[-65536:]

    def commands(self) -> tuple[Command, ...]:
        """The commands that are to be run."""
        with self._world.changed:
            return self._run_command.waiting()

    def command_started(self, command: str) -> None:
        """Report that a command is now running."""
        with self._world.changed:
            self._run_command.started(command)

    def command_ended(
        self, command: str, *, code: int | None, stdout: str, stderr: str, seconds: float
    ) -> None:
        """Report how a command ended; without a code if it ran out of time."""
        with self._world.changed:
            self._run_command.ended(command, code=code, stdout=stdout, stderr=stderr, seconds=seconds)

    def credentials(self, instance: str) -> Credentials | None:
        """Current credentials of the instance's role; None without a role. The same until nearly expired."""
        with self._world.changed:
            known = self._credentials.get(instance)
            if known is not None and known.expires - self._world.clock() > _FRESH:
                return known
            found = self._ec2.get_instance_by_id(instance)
            role = self._role((found.iam_instance_profile or {}).get("Arn")) if found else None
            if role is None:
                return None
            iam, sts = self._world.client("iam"), self._world.client("sts")
            answer = sts.assume_role(
                RoleArn=iam.get_role(RoleName=role)["Role"]["Arn"],
                RoleSessionName=instance,
                DurationSeconds=21600,
            )["Credentials"]
            self._credentials[instance] = Credentials(
                access_key=answer["AccessKeyId"],
                secret_key=answer["SecretAccessKey"],
                token=answer["SessionToken"],
                expires=answer["Expiration"],
            )
            return self._credentials[instance]

    # -- volumes and interfaces

    def volumes(self) -> tuple[Volume, ...]:
        """All volumes that exist, except the root volumes."""
        with self._world.changed:
            roots = {
                i.block_device_mapping[i.root_device_name].volume_id
                for i in self._ec2.all_instances()
                if i.root_device_name in i.block_device_mapping
            }
            return tuple(
                Volume(id=volume.id, size_gib=int(volume.size), zone=str(volume.availability_zone))
                for volume in self._ec2.volumes.values()
                if volume.id not in roots
            )

    def attached(self, resource: str) -> None:
        """The volume or network interface with this id is now attached."""
        with self._world.changed:
            self._ec2.volume_attached(resource)
            self._ec2.interface_attached(resource)
            self._changed()

    def detached(self, resource: str) -> None:
        """The volume or network interface with this id is now detached."""
        with self._world.changed:
            self._ec2.volume_detached(resource)
            self._ec2.interface_detached(resource)
            self._changed()

    # -- network

    def subnets(self) -> tuple[Subnet, ...]:
        """All subnets of the stacks' VPCs."""
        with self._world.changed:
            return tuple(
                Subnet(id=s.id, vpc=s.vpc_id, cidr=IPv4Network(s.cidr_block), zone=s.availability_zone)
                for by_id in self._ec2.subnets.values()
                for s in by_id.values()
                if not s.default_for_az
            )

    def firewalls(self) -> tuple[Firewall, ...]:
        """The security group rules in force, one entry for each interface of an instance or load balancer."""
        with self._world.changed:
            enis = list(self._ec2.enis.values())
            members: dict[str, list[str]] = {}
            for eni in enis:
                for group in eni.group_set:
                    members.setdefault(group.id, []).append(f"{eni.private_ip_address}/32")
            return tuple(
                Firewall(
                    address=IPv4Address(eni.private_ip_address),
                    interface=eni.id,
                    ingress=self._rules((r for g in eni.group_set for r in g.ingress_rules), members),
                    egress=self._rules((r for g in eni.group_set for r in g.egress_rules), members),
                )
                for eni in enis
                if eni.instance is not None or eni.description.startswith("ELB ")
            )

    def _rules(self, rules: Iterable[Any], members: dict[str, list[str]]) -> tuple[Rule, ...]:
        result = []
        for rule in rules:
            peers = [rule.ip_range["CidrIp"]] if rule.ip_range.get("CidrIp") else []
            if rule.source_group:
                peers += members.get(rule.source_group.get("GroupId"), [])
            if rule.prefix_list_id:
                prefix_list = self._ec2.managed_prefix_lists[rule.prefix_list_id]
                entries = prefix_list.entries.get(prefix_list.version or 1) or []
                peers += [entry["Cidr"] for entry in entries]
            ports = (rule.from_port, rule.to_port) if rule.ip_protocol in ("tcp", "udp") else (0, 65535)
            result.append(
                Rule(
                    protocol="all" if rule.ip_protocol == "-1" else rule.ip_protocol,
                    first_port=ports[0],
                    last_port=ports[1],
                    peers=tuple(IPv4Network(peer) for peer in peers),
                )
            )
        return tuple(result)

    def zones(self) -> tuple[Zone, ...]:
        """All hosted zones."""
        with self._world.changed:
            balancers = {b.dns_name.lower() + ".": b.addresses for b in self.load_balancers()}
            return tuple(
                Zone(
                    id=zone.resource_id,
                    name=_absolute(zone.name),
                    vpcs=tuple(vpc["vpc_id"] for vpc in zone.vpcs) if zone.private_zone else (),
                    records=tuple(_record(record, balancers) for record in zone.rrsets),
                )
                for zone in route53_backends[self._world.account]["aws"].zones.values()
            )

    # -- load balancers

    def load_balancers(self) -> tuple[LoadBalancer, ...]:
        """All load balancers."""
        with self._world.changed:
            backend = elbv2_backends[self._world.account][self._world.region]
            return tuple(self._balancer(balancer) for balancer in backend.load_balancers.values())

    def _balancer(self, balancer: Any) -> LoadBalancer:
        name = balancer.arn.split("loadbalancer/")[1]
        client = self._world.client("elbv2")
        listeners = client.describe_listeners(LoadBalancerArn=balancer.arn)["Listeners"]
        return LoadBalancer(
            arn=balancer.arn,
            name=balancer.name,
            dns_name=balancer.dns_name,
            internal=balancer.scheme == "internal",
            addresses=tuple(
                IPv4Address(eni.private_ip_address)
                for eni in self._ec2.enis.values()
                if eni.description == f"ELB {name}"
            ),
            idle_timeout=int(balancer.attrs.get("idle_timeout.timeout_seconds", 60)),
            listeners=tuple(self._listener(listener) for listener in listeners),
        )

    def _listener(self, listener: dict[str, Any]) -> Listener:
        return Listener(
            arn=listener["ListenerArn"],
            port=int(listener["Port"]),
            protocol=listener["Protocol"],
            certificates=self._names(listener.get("Certificates", [])[:1]),
            action=_action(listener["DefaultActions"]),
        )

    def _names(self, certificates: list[dict[str, Any]]) -> tuple[str, ...]:
        client = self._world.client("acm")
        names: list[str] = []
        for certificate in certificates:
            arn = certificate["CertificateArn"]
            answer = client.describe_certificate(CertificateArn=arn)["Certificate"]
            names += [answer["DomainName"], *answer.get("SubjectAlternativeNames", [])]
        return tuple(dict.fromkeys(names))

    def target_groups(self) -> tuple[TargetGroup, ...]:
        """All target groups."""
        with self._world.changed:
            backend = elbv2_backends[self._world.account][self._world.region]
            return tuple(self._target_group(group) for group in backend.target_groups.values())

    def _target_group(self, group: Any) -> TargetGroup:
        targets = []
        for target in group.targets.values():
            instance = self._ec2.get_instance_by_id(target["Id"])
            if instance is None or instance.state == "terminated":
                continue
            state, _ = balancing.health(group).get(target["Id"], ("initial", ""))
            targets.append(
                Target(
                    id=target["Id"],
                    address=IPv4Address(instance.private_ip),
                    port=int(target["Port"]),
                    state=state,
                )
            )
        return TargetGroup(
            arn=group.arn,
            name=group.name,
            protocol=group.protocol,
            port=int(group.port),
            deregistration_delay=int(group.attributes["deregistration_delay.timeout_seconds"]),
            health_check=HealthCheck(
                protocol=group.health_check_protocol,
                path=group.health_check_path or "/",
                port=str(group.health_check_port),
                interval=int(group.health_check_interval_seconds),
                timeout=int(group.health_check_timeout_seconds),
                healthy=int(group.healthy_threshold_count),
                unhealthy=int(group.unhealthy_threshold_count),
                codes=str(group.matcher["HttpCode"]),
            ),
            targets=tuple(targets),
        )

    def set_target_health(
        self, target_group: str, instance: str, state: TargetState, *, description: str = ""
    ) -> None:
        """Report a target's health. Unknown targets are ignored."""
        with self._world.changed:
            groups = elbv2_backends[self._world.account][self._world.region].target_groups
            group = groups.get(target_group)
            if group is None or instance not in group.targets:
                return
            if balancing.health(group).get(instance) != (state, description):
                balancing.health(group)[instance] = (state, description)
                self._world.touch()


def _absolute(name: str) -> str:
    return name.lower().rstrip(".") + "."


def _record(record: Any, balancers: dict[str, tuple[IPv4Address, ...]]) -> Record:
    if record.alias_target:
        target = _absolute(record.alias_target["DNSName"]).removeprefix("dualstack.")
        values = tuple(str(address) for address in balancers.get(target, ()))
    else:
        values = tuple(
            value["Value"] if isinstance(value, dict) else str(value) for value in record.records or []
        )
    return Record(name=_absolute(record.name), type=record.type, ttl=int(record.ttl or 60), values=values)


def _action(actions: list[dict[str, Any]]) -> Action:
    action = actions[-1]
    if action["Type"] == "redirect":
        config = action["RedirectConfig"]
        return Redirect(
            status=int(config["StatusCode"].removeprefix("HTTP_")),
            protocol=config.get("Protocol", "#{protocol}"),
            host=config.get("Host", "#{host}"),
            port=config.get("Port", "#{port}"),
            path=config.get("Path", "/#{path}"),
            query=config.get("Query", "#{query}"),
        )
    if action["Type"] == "fixed-response":
        config = action["FixedResponseConfig"]
        return FixedResponse(
            status=int(config["StatusCode"]),
            content_type=config.get("ContentType", "text/plain"),
            body=config.get("MessageBody", ""),
        )
    arn = action.get("TargetGroupArn") or action["ForwardConfig"]["TargetGroups"][0]["TargetGroupArn"]
    return Forward(target_group=arn)
