"""How hosts are launched: everything that determines an instance is in its launch template."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

from aws_cdk import Fn
from aws_cdk import aws_autoscaling as autoscaling
from aws_cdk import aws_ec2 as ec2
from constructs import Construct
from constructs.host_document import Document
from constructs.host_role import HostRole
from constructs.published_files import PublishedBundle

from settings import Environment

BOOT_SCRIPT = Path(__file__).parent.parent / "userdata" / "boot.sh"

# The root volume's device in each system's AMI.
ROOT_DEVICES = {"debian": "/dev/xvda", "fedora": "/dev/sda1"}


class HostLaunchTemplate(Construct):
    """A launch template whose user data holds the host's document.

    Attributes:
        specification: the template and its newest version, for an Auto Scaling group.
    """

    specification: autoscaling.CfnAutoScalingGroup.LaunchTemplateSpecificationProperty

    def __init__(
        self,
        scope: Construct,
        id: str,
        *,
        environment: Environment,
        name: str,
        instance_type: str,
        image: str,
        role: HostRole,
        security_groups: Sequence[str],
        document: Document,
        bundle: PublishedBundle,
        root_gib: int,
        root_mibps: int | None = None,
        nested_virtualization: bool = False,
        detailed_monitoring: bool = False,
        tags: Mapping[str, str],
    ) -> None:
        """Makes the template.

        Args:
            scope: the construct that it belongs to.
            id: its name there.
            environment: the settings.
            name: the ``Name`` of instances and their volumes.
            instance_type: the EC2 instance type, unless the group overrides it.
            image: the id of the AMI, for the type's processor and the document's ``os``.
            role: what the instances may do.
            security_groups: the ids of the groups that say who may talk to them.
            document: what the instances are.
            bundle: what the instances run.
            root_gib: the root volume's size in GiB.
            root_mibps: its throughput in MiB/s; None: gp3's minimum, 125.
            nested_virtualization: ask for KVM inside the instance; never for metal types, which refuse it.
            detailed_monitoring: metrics every minute instead of every five.
            tags: more tags of instances and volumes.
        """
        super().__init__(scope, id)
        template = ec2.CfnLaunchTemplate(
            self,
            "Template",
            launch_template_data=ec2.CfnLaunchTemplate.LaunchTemplateDataProperty(
                image_id=image,
                instance_type=instance_type,
                iam_instance_profile=ec2.CfnLaunchTemplate.IamInstanceProfileProperty(arn=role.profile_arn),
                network_interfaces=[
                    ec2.CfnLaunchTemplate.NetworkInterfaceProperty(
                        device_index=0,
                        # Set here, so that hosts that move between subnets (`egress`) have what they need.
                        associate_public_ip_address=environment.network.egress == "public-ip",
                        groups=list(security_groups),
                        delete_on_termination=True,
                    )
                ],
                metadata_options=ec2.CfnLaunchTemplate.MetadataOptionsProperty(
                    http_endpoint="enabled", http_tokens="required", http_put_response_hop_limit=1
                ),
                block_device_mappings=[
                    ec2.CfnLaunchTemplate.BlockDeviceMappingProperty(
                        device_name=ROOT_DEVICES[document["os"]],
                        ebs=ec2.CfnLaunchTemplate.EbsProperty(
                            volume_type="gp3",
                            volume_size=root_gib,
                            throughput=root_mibps,
                            encrypted=True,
                            delete_on_termination=True,
                        ),
                    )
                ],
                cpu_options=(
                    ec2.CfnLaunchTemplate.CpuOptionsProperty(nested_virtualization="enabled")
                    if nested_virtualization
                    else None
                ),
                monitoring=ec2.CfnLaunchTemplate.MonitoringProperty(enabled=detailed_monitoring),
                # A host that powers itself off is of no further use.
                instance_initiated_shutdown_behavior="terminate",
                user_data=Fn.base64(
                    boot_script(
                        {
                            # The ids and ARNs that CloudFormation fills in need no escaping in JSON.
                            "DOCUMENT": json.dumps(document),
                            "BUNDLE_BUCKET": bundle.bucket,
                            "BUNDLE_KEY": bundle.key,
                            "BUNDLE_SHA256": bundle.sha256,
                            "REGION": environment.region,
                        }
                    )
                ),
                tag_specifications=[
                    ec2.CfnLaunchTemplate.TagSpecificationProperty(
                        resource_type=kind,
                        tags=[{"key": key, "value": value} for key, value in {"Name": name, **tags}.items()],
                    )
                    for kind in ("instance", "volume")
                ],
            ),
        )
        self.specification = autoscaling.CfnAutoScalingGroup.LaunchTemplateSpecificationProperty(
            launch_template_id=template.ref, version=template.attr_latest_version_number
        )


def boot_script(values: Mapping[str, str], script: Path = BOOT_SCRIPT) -> str:
    """Returns the user data: the boot script with each ``@@TOKEN@@`` replaced.

    Args:
        values: the replacements by token.
        script: the script.
    """
    text = script.read_text(encoding="utf-8")
    for token, value in values.items():
        text = text.replace(f"@@{token}@@", value)
    return text
