"""Worker hosts of one kind: an Auto Scaling group, whose size this app does not set."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence

from aws_cdk import aws_ssm as ssm
from constructs import Construct
from constructs.host_document import host_document, worker_document
from constructs.host_group import host_group
from constructs.host_launch_template import HostLaunchTemplate
from constructs.host_names import HostNames
from constructs.host_role import HostRole
from constructs.mesh_group import MeshGroup
from constructs.published_files import PublishedBundle, PublishedFile

from fleet import catalogue, facts
from settings import Environment, Fleet
from settings.naming import fleet_group, host_tags

READY_SECONDS = 900
METAL_READY_SECONDS = 2700  # a metal type may take over 20 minutes before it boots anything
DRAIN_SECONDS = 1800  # a hundred heartbeats of this reach the 48 hours that a job may take at most
# From launch to the first job, until real launches give better figures; metal runs its firmware's tests.
BOOT_SECONDS: Mapping[str, int] = {"metal": 1200, "nested": 180, "none": 180}


class WorkerFleet(Construct):
    """A fleet.

    Its desired capacity is never set here, and it has no update policy: the fleets' controller sizes it, and
    drains and replaces hosts with an old launch template.
    """

    def __init__(
        self,
        scope: Construct,
        id: str,
        *,
        environment: Environment,
        fleet: Fleet,
        vpc: str,
        subnets: Sequence[str],
        security_group: str,
        machine_image: str,
        container_image: PublishedFile | None,
        api_key: str,
        names: HostNames,
        bundle: PublishedBundle,
    ) -> None:
        """Makes the fleet.

        Args:
            scope: the construct that it belongs to.
            id: its name there.
            environment: the settings.
            fleet: the fleet's settings.
            vpc: the VPC's id.
            subnets: the ids of the subnets that hosts may boot in; first the one in the web UI's zone.
            security_group: the id of the group that says who may talk to them.
            machine_image: the id of the AMI that they boot.
            container_image: where the worker's container image is; None: in the AMI.
            api_key: the ARN of the secret that workers use at the web UI.
            names: where hosts lease their names.
            bundle: what instances run.
        """
        super().__init__(scope, id)
        name = fleet_group(environment, fleet.name)
        role = HostRole(self, "Role", environment=environment, description=f"{name}: worker hosts")
        role.allow_own_group(name)
        role.allow_lease_names(names.arn, fleet=fleet.name)
        security_groups = [security_group]
        if fleet.mesh:
            role.allow_see_hosts()
            mesh = MeshGroup(self, "Mesh", environment=environment, fleet=fleet, vpc=vpc)
            security_groups.append(mesh.group_id)
        role.allow_read_secrets([api_key])
        role.allow_read_files([bundle, *filter(None, [container_image])])
        network = environment.network
        tags = {
            **host_tags(environment, "worker"),
            "openqa:fleet": fleet.name,
            # Makes a new template when the subnets change, so that hosts in the old ones are replaced.
            "openqa:network": " ".join((network.egress, *sorted(network.availability_zones))),
        }
        template = HostLaunchTemplate(
            self,
            "Launch",
            environment=environment,
            name=name,
            instance_type=fleet.instance_types[0],
            image=machine_image,
            role=role,
            security_groups=security_groups,
            document={
                **host_document(
                    environment,
                    role="worker",
                    group=name,
                    architecture=fleet.architecture,
                    images={"worker": container_image},
                    secrets={"api_key": api_key},
                ),
                **worker_document(environment, fleet, names=names.table),
            },
            bundle=bundle,
            root_gib=fleet.volume_size,
            root_mibps=fleet.volume_mibps,
            nested_virtualization=fleet.virtualization == "nested",
            tags=tags,
        )
        host_group(
            self,
            name=name,
            sizes=(fleet.min, fleet.max),
            # Traffic between zones costs: the controller adds other zones when this one has no capacity.
            subnets=subnets[:1],
            template=template,
            instance_types=fleet.instance_types,
            ready_seconds=METAL_READY_SECONDS if fleet.virtualization == "metal" else READY_SECONDS,
            drain_seconds=DRAIN_SECONDS,
            tags=tags,
            why_no_notifications="Hosts report through lifecycle hooks; fleets change size all day.",
            on_demand_percent=fleet.on_demand_percent,
            protected=True,
        )
        # Not in the web UI host's document: a changed fleet must not replace that host.
        ssm.CfnParameter(
            self,
            "Facts",
            type="String",
            name=f"{facts.parameters(environment.name)}/{fleet.name}",
            description=f"{name}: what the fleets' controller knows of it",
            value=json.dumps({"group": name, "subnets": list(subnets), **_facts(fleet)}),
        )


def _facts(fleet: Fleet) -> Mapping[str, object]:
    """What the fleets' controller knows of a fleet besides its group: `fleet.facts` reads it."""
    return {
        "classes": list(fleet.classes),
        "workers": {name: fleet.workers(name) for name in fleet.instance_types},
        "prices": {name: _price(fleet, name) for name in fleet.instance_types},
        "boot_seconds": BOOT_SECONDS[fleet.virtualization],
        "one_host": fleet.one_host,
        "warm": list(fleet.warm),
        **({} if fleet.spare is None else {"spare": fleet.spare}),
    }


def _price(fleet: Fleet, instance_type: str) -> float:
    hourly = catalogue.load()[instance_type].price
    volume = catalogue.volume_price(fleet.volume_size, fleet.volume_mibps)
    return round((facts.UNKNOWN_PRICE if hourly is None else hourly) + volume, 5)
