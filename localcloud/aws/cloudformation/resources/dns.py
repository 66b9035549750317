"""AWS::Route53 and AWS::CertificateManager: names and certificates."""

from __future__ import annotations

from typing import Any

from localcloud.aws.cloudformation.types import Context, Properties, Type, changes, tags


class HostedZone(
    Type,
    type="AWS::Route53::HostedZone",
    properties="HostedZoneConfig HostedZoneTags VPCs QueryLoggingConfig",
    immutable="Name",
):
    """A hosted zone, private where it has VPCs."""

    def create(self, c: Context, p: Properties) -> None:
        """Create it."""
        vpcs = p.get("VPCs", [])
        answer = c.call(
            "route53",
            "create_hosted_zone",
            Name=p["Name"],
            CallerReference=c.name(128),
            HostedZoneConfig={**p.get("HostedZoneConfig", {}), "PrivateZone": bool(vpcs)},
            VPC=vpcs[0] if vpcs else None,
        )
        c.created(answer["HostedZone"]["Id"].split("/")[-1])
        for vpc in vpcs[1:]:
            c.call("route53", "associate_vpc_with_hosted_zone", HostedZoneId=c.id, VPC=vpc)

    def update(self, c: Context, old: Properties, new: Properties) -> None:
        """Only tags can change."""
        super().update(c, old, {**new, "HostedZoneTags": old.get("HostedZoneTags")})

    def delete(self, c: Context, p: Properties) -> None:
        """Delete it, if it has no records of its own left."""
        c.call("route53", "delete_hosted_zone", Id=c.id)

    def refused(self, p: Properties) -> str | None:
        """Query logs are refused: they need a log group that is not here."""
        return "The local cloud has no query logs" if "QueryLoggingConfig" in p else super().refused(p)

    def attributes(self, c: Context, p: Properties) -> dict[str, Any]:
        """What ``Fn::GetAtt`` gives."""
        answer = c.call("route53", "get_hosted_zone", Id=c.id)
        return {"Id": c.id, "NameServers": answer.get("DelegationSet", {}).get("NameServers", [])}


class RecordSet(
    Type,
    type="AWS::Route53::RecordSet",
    properties="AliasTarget Comment ResourceRecords TTL",
    immutable="HostedZoneId HostedZoneName Name Type",
):
    """A record."""

    def create(self, c: Context, p: Properties) -> None:
        """Create it."""
        self._change(c, "CREATE", p)
        c.created(p["Name"].rstrip("."))

    def update(self, c: Context, old: Properties, new: Properties) -> None:
        """Change it."""
        self._change(c, "UPSERT", new)

    def delete(self, c: Context, p: Properties) -> None:
        """Delete it."""
        self._change(c, "DELETE", p)

    def _change(self, c: Context, action: str, p: Properties) -> None:
        if "HostedZoneId" in p:
            zone = p["HostedZoneId"]
        else:
            answer = c.call("route53", "list_hosted_zones_by_name", DNSName=p["HostedZoneName"])
            zone = answer["HostedZones"][0]["Id"].split("/")[-1]
        record: dict[str, Any] = {"Name": p["Name"], "Type": p["Type"]}
        if "AliasTarget" in p:
            record["AliasTarget"] = {"EvaluateTargetHealth": False, **p["AliasTarget"]}
        else:
            record["TTL"] = p["TTL"]
            record["ResourceRecords"] = [{"Value": value} for value in p["ResourceRecords"]]
        c.call(
            "route53",
            "change_resource_record_sets",
            HostedZoneId=zone,
            ChangeBatch={"Changes": [{"Action": action, "ResourceRecordSet": record}]},
        )


class Certificate(
    Type,
    type="AWS::CertificateManager::Certificate",
    properties="CertificateTransparencyLoggingPreference Tags",
    immutable="DomainName DomainValidationOptions KeyAlgorithm SubjectAlternativeNames ValidationMethod",
):
    """A certificate; it is issued at once, as if its validation record were there."""

    def create(self, c: Context, p: Properties) -> None:
        """Request it."""
        answer = c.call(
            "acm",
            "request_certificate",
            DomainName=p["DomainName"],
            SubjectAlternativeNames=p.get("SubjectAlternativeNames"),
            ValidationMethod=p.get("ValidationMethod"),
            KeyAlgorithm=p.get("KeyAlgorithm"),
            Tags=tags(p, own=True),
        )
        c.created(answer["CertificateArn"])
        from moto.acm.models import acm_backends

        acm_backends[c.world.account][c.world.region].get_certificate(c.id).status = "ISSUED"

    def update(self, c: Context, old: Properties, new: Properties) -> None:
        """Only tags can change."""
        if changes(old, new) - {"Tags"}:
            super().update(c, old, new)
        if own := tags(new, own=True):
            c.call("acm", "add_tags_to_certificate", CertificateArn=c.id, Tags=own)

    def delete(self, c: Context, p: Properties) -> None:
        """Delete it."""
        c.call("acm", "delete_certificate", CertificateArn=c.id)
