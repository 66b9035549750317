"""What Auto Scaling groups need of EC2 and the load balancers, by their APIs."""

from __future__ import annotations

import base64
from typing import Any

from botocore.exceptions import BotoCoreError, ClientError

from localcloud.aws import ec2
from localcloud.aws.autoscaling.model import Group, Launched, LaunchError, Template
from localcloud.aws.world import World

_PASSED_ON = (
    "BlockDeviceMappings",
    "CpuOptions",
    "CreditSpecification",
    "DisableApiTermination",
    "EbsOptimized",
    "IamInstanceProfile",
    "ImageId",
    "InstanceInitiatedShutdownBehavior",
    "InstanceType",
    "KeyName",
    "Monitoring",
    "NetworkInterfaces",
    "SecurityGroupIds",
)
_METADATA = ("HttpEndpoint", "HttpPutResponseHopLimit", "HttpTokens", "InstanceMetadataTags")


class Ec2Machines:
    """EC2 and ELB of the embedded AWS."""

    def __init__(self, world: World) -> None:
        self._world = world

    def state(self, instance: str) -> str:
        """The instance's state; ``terminated`` if it is unknown."""
        found = ec2.backend(self._world.account, self._world.region).get_instance_by_id(instance)
        return found.state if found else "terminated"

    def launch(self, group: Group, subnet: str, type: str | None, *, spot: bool) -> Launched:
        """Launch an instance from the group's launch template."""
        client = self._world.client("ec2")
        try:
            answer = client.describe_launch_template_versions(
                LaunchTemplateId=group.template.id, Versions=[group.template.version]
            )
            version = answer["LaunchTemplateVersions"][0]
            parameters = _parameters(version["LaunchTemplateData"], subnet)
            if type is not None:
                parameters["InstanceType"] = type
            self._find_capacity(client, subnet, parameters["InstanceType"])
            if spot:
                parameters["InstanceMarketOptions"] = {"MarketType": "spot"}
            own = {
                "aws:autoscaling:groupName": group.name,
                "aws:ec2launchtemplate:id": group.template.id,
                "aws:ec2launchtemplate:version": str(version["VersionNumber"]),
                **{tag["Key"]: tag.get("Value", "") for tag in group.tags if tag.get("PropagateAtLaunch")},
            }
            parameters["TagSpecifications"] = _tags(version["LaunchTemplateData"], own)
            instance = client.run_instances(MinCount=1, MaxCount=1, **parameters)["Instances"][0]
        except (ClientError, BotoCoreError, KeyError, IndexError) as error:
            message = error.response["Error"]["Message"] if isinstance(error, ClientError) else str(error)
            raise LaunchError(f"{message} Launching EC2 instance failed.") from error
        return Launched(
            id=instance["InstanceId"],
            subnet=subnet,
            zone=instance["Placement"]["AvailabilityZone"],
            type=instance["InstanceType"],
            template=Template(
                id=group.template.id, name=group.template.name, version=str(version["VersionNumber"])
            ),
        )

    def _find_capacity(self, client: Any, subnet: str, type: str) -> None:
        (found,) = client.describe_subnets(SubnetIds=[subnet])["Subnets"]
        zone = found["AvailabilityZone"]
        if zone in self._world.short_zones:
            raise LaunchError(
                f"We currently do not have sufficient {type} capacity in the Availability Zone you requested "
                f"({zone}). Launching EC2 instance failed."
            )
        offers = client.describe_instance_type_offerings(
            LocationType="availability-zone", Filters=[{"Name": "instance-type", "Values": [type]}]
        )
        zones = sorted(offer["Location"] for offer in offers["InstanceTypeOfferings"])
        if zone not in zones:
            raise LaunchError(
                f"Your requested instance type ({type}) is not supported in your requested Availability Zone "
                f"({zone}). Please retry your request by not specifying an Availability Zone or choosing "
                f"{', '.join(zones)}. Launching EC2 instance failed."
            )

    def terminate(self, instance: str) -> None:
        """Terminate an instance."""
        self._world.client("ec2").terminate_instances(InstanceIds=[instance])

    def register(self, target_group: str, instance: str) -> None:
        """Add an instance to a target group."""
        client = self._world.client("elbv2")
        client.register_targets(TargetGroupArn=target_group, Targets=[{"Id": instance}])

    def deregister(self, target_group: str, instance: str) -> None:
        """Take an instance from a target group, if it is in it."""
        try:
            self._world.client("elbv2").deregister_targets(
                TargetGroupArn=target_group, Targets=[{"Id": instance}]
            )
        except ClientError:
            return


def _parameters(data: dict[str, Any], subnet: str) -> dict[str, Any]:
    parameters = {key: data[key] for key in _PASSED_ON if data.get(key)}
    if "UserData" in data:
        # boto3 encodes it again.
        parameters["UserData"] = base64.b64decode(data["UserData"])
    if "MetadataOptions" in data:
        options = data["MetadataOptions"]
        parameters["MetadataOptions"] = {key: options[key] for key in _METADATA if key in options}
    if "NetworkInterfaces" in parameters:
        first, *others = parameters["NetworkInterfaces"]
        parameters["NetworkInterfaces"] = [{**first, "SubnetId": subnet}, *others]
    else:
        parameters["SubnetId"] = subnet
    return parameters


def _tags(data: dict[str, Any], own: dict[str, str]) -> list[dict[str, Any]]:
    kinds = {
        entry["ResourceType"]: {tag["Key"]: tag["Value"] for tag in entry.get("Tags", [])}
        for entry in data.get("TagSpecifications", [])
    }
    kinds["instance"] = {**kinds.get("instance", {}), **own}
    return [
        {"ResourceType": kind, "Tags": [{"Key": key, "Value": value} for key, value in tags.items()]}
        for kind, tags in kinds.items()
        if kind in ("instance", "volume") and tags
    ]
