"""AWS::ElasticLoadBalancingV2: load balancers."""

from __future__ import annotations

from typing import Any

from localcloud.aws.cloudformation.types import (
    Context,
    Properties,
    ResourceError,
    Type,
    UpdateRefusedError,
    changes,
    tags,
)


def _attributes(p: Properties, name: str) -> list[dict[str, str]]:
    return [{"Key": entry["Key"], "Value": entry["Value"]} for entry in p.get(name, [])]


class _Balancing(Type):
    """Something of ELB, whose tags go by ARN."""

    def retag(self, c: Context, old: Properties, new: Properties) -> None:
        """Replace the tags."""
        gone = {tag["Key"] for tag in tags(old)} - {tag["Key"] for tag in tags(new)}
        if gone:
            c.call("elbv2", "remove_tags", ResourceArns=[c.id], TagKeys=sorted(gone))
        if tags(new):
            c.call("elbv2", "add_tags", ResourceArns=[c.id], Tags=tags(new))


class LoadBalancer(
    _Balancing,
    type="AWS::ElasticLoadBalancingV2::LoadBalancer",
    properties="LoadBalancerAttributes SecurityGroups Subnets Tags",
    immutable="IpAddressType Name Scheme Type",
):
    """An Application Load Balancer, with one interface in each of its subnets."""

    def refused(self, p: Properties) -> str | None:
        """Only Application Load Balancers are supported here."""
        if p.get("Type", "application") != "application":
            return f"The local cloud has no load balancers of type {p['Type']}"
        return super().refused(p)

    def create(self, c: Context, p: Properties) -> None:
        """Create it."""
        answer = c.call(
            "elbv2",
            "create_load_balancer",
            **{
                key: value
                for key, value in p.items()
                if key not in ("LoadBalancerAttributes", "Name", "Tags")
            },
            Name=p.get("Name") or c.name(32),
            Tags=tags(p),
        )
        c.created(answer["LoadBalancers"][0]["LoadBalancerArn"])
        for subnet in p["Subnets"]:
            c.call(
                "ec2",
                "create_network_interface",
                SubnetId=subnet,
                Groups=p.get("SecurityGroups"),
                Description=f"ELB {self._name(c)}",
            )
        self._set(c, p)

    def _name(self, c: Context) -> str:
        return c.id.split("loadbalancer/")[1]

    def _interfaces(self, c: Context) -> list[str]:
        answer = c.call(
            "ec2",
            "describe_network_interfaces",
            Filters=[{"Name": "description", "Values": [f"ELB {self._name(c)}"]}],
        )
        return [interface["NetworkInterfaceId"] for interface in answer["NetworkInterfaces"]]

    def _set(self, c: Context, p: Properties) -> None:
        if entries := _attributes(p, "LoadBalancerAttributes"):
            c.call("elbv2", "modify_load_balancer_attributes", LoadBalancerArn=c.id, Attributes=entries)

    def update(self, c: Context, old: Properties, new: Properties) -> None:
        """Change attributes, groups and tags."""
        if "Subnets" in changes(old, new):
            raise UpdateRefusedError("The local cloud cannot change a load balancer's Subnets")
        if "SecurityGroups" in changes(old, new):
            groups = new["SecurityGroups"]
            c.call("elbv2", "set_security_groups", LoadBalancerArn=c.id, SecurityGroups=groups)
            for interface in self._interfaces(c):
                c.call(
                    "ec2",
                    "modify_network_interface_attribute",
                    NetworkInterfaceId=interface,
                    Groups=groups,
                )
        self._set(c, new)
        self.retag(c, old, new)

    def delete(self, c: Context, p: Properties) -> None:
        """Delete it, if its attributes allow that."""
        entries = {entry["Key"]: entry["Value"] for entry in _attributes(p, "LoadBalancerAttributes")}
        if str(entries.get("deletion_protection.enabled", "false")).lower() == "true":
            raise ResourceError(
                f"Load balancer '{c.id}' cannot be deleted because deletion protection is enabled"
            )
        for interface in self._interfaces(c):
            c.call("ec2", "delete_network_interface", NetworkInterfaceId=interface)
        c.call("elbv2", "delete_load_balancer", LoadBalancerArn=c.id)

    def attributes(self, c: Context, p: Properties) -> dict[str, Any]:
        """What ``Fn::GetAtt`` gives."""
        balancer = c.call("elbv2", "describe_load_balancers", LoadBalancerArns=[c.id])["LoadBalancers"][0]
        return {
            "LoadBalancerArn": c.id,
            "DNSName": balancer["DNSName"],
            "CanonicalHostedZoneID": balancer["CanonicalHostedZoneId"],
            "LoadBalancerFullName": self._name(c),
            "LoadBalancerName": balancer["LoadBalancerName"],
            "SecurityGroups": balancer.get("SecurityGroups", []),
        }


class TargetGroup(
    _Balancing,
    type="AWS::ElasticLoadBalancingV2::TargetGroup",
    properties="HealthCheckEnabled HealthCheckIntervalSeconds HealthCheckPath HealthCheckPort "
    "HealthCheckProtocol HealthCheckTimeoutSeconds HealthyThresholdCount Matcher Tags TargetGroupAttributes "
    "UnhealthyThresholdCount",
    immutable="IpAddressType Name Port Protocol ProtocolVersion TargetType VpcId",
):
    """A target group; its targets come from Auto Scaling groups."""

    def create(self, c: Context, p: Properties) -> None:
        """Create it."""
        answer = c.call(
            "elbv2",
            "create_target_group",
            **{
                key: value for key, value in p.items() if key not in ("Name", "Tags", "TargetGroupAttributes")
            },
            Name=p.get("Name") or c.name(32),
            Tags=tags(p),
        )
        c.created(answer["TargetGroups"][0]["TargetGroupArn"])
        self._set(c, p)

    def _set(self, c: Context, p: Properties) -> None:
        if entries := _attributes(p, "TargetGroupAttributes"):
            c.call("elbv2", "modify_target_group_attributes", TargetGroupArn=c.id, Attributes=entries)

    def update(self, c: Context, old: Properties, new: Properties) -> None:
        """Change health check, attributes and tags."""
        changed = changes(old, new) - {"Tags", "TargetGroupAttributes"}
        if changed:
            c.call(
                "elbv2", "modify_target_group", TargetGroupArn=c.id, **{key: new.get(key) for key in changed}
            )
        self._set(c, new)
        self.retag(c, old, new)

    def delete(self, c: Context, p: Properties) -> None:
        """Delete it."""
        c.call("elbv2", "delete_target_group", TargetGroupArn=c.id)

    def attributes(self, c: Context, p: Properties) -> dict[str, Any]:
        """What ``Fn::GetAtt`` gives."""
        group = c.call("elbv2", "describe_target_groups", TargetGroupArns=[c.id])["TargetGroups"][0]
        return {
            "TargetGroupArn": c.id,
            "TargetGroupFullName": c.id.split(":")[-1],
            "TargetGroupName": group["TargetGroupName"],
            "LoadBalancerArns": group.get("LoadBalancerArns", []),
        }


def _actions(p: Properties, name: str) -> list[dict[str, Any]]:
    for action in p[name]:
        if action["Type"] not in ("forward", "redirect", "fixed-response"):
            raise ResourceError(f"The local cloud's load balancers cannot {action['Type']}")
    return list(p[name])


class Listener(
    Type,
    type="AWS::ElasticLoadBalancingV2::Listener",
    properties="Certificates DefaultActions ListenerAttributes Port Protocol SslPolicy",
    immutable="LoadBalancerArn",
):
    """A listener."""

    def create(self, c: Context, p: Properties) -> None:
        """Create it."""
        rest = {key: value for key, value in p.items() if key not in ("DefaultActions", "ListenerAttributes")}
        answer = c.call("elbv2", "create_listener", **rest, DefaultActions=_actions(p, "DefaultActions"))
        c.created(answer["Listeners"][0]["ListenerArn"])
        self._set(c, p)

    def _set(self, c: Context, p: Properties) -> None:
        if entries := _attributes(p, "ListenerAttributes"):
            c.call("elbv2", "modify_listener_attributes", ListenerArn=c.id, Attributes=entries)

    def update(self, c: Context, old: Properties, new: Properties) -> None:
        """Change it."""
        rest = {key: new.get(key) for key in ("Certificates", "Port", "Protocol", "SslPolicy")}
        c.call(
            "elbv2",
            "modify_listener",
            ListenerArn=c.id,
            **rest,
            DefaultActions=_actions(new, "DefaultActions"),
        )
        self._set(c, new)

    def delete(self, c: Context, p: Properties) -> None:
        """Delete it."""
        c.call("elbv2", "delete_listener", ListenerArn=c.id)

    def attributes(self, c: Context, p: Properties) -> dict[str, Any]:
        """What ``Fn::GetAtt`` gives."""
        return {"ListenerArn": c.id}
