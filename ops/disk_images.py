"""``disk-images``: starts the builders of disk images, or lists what they published."""

from __future__ import annotations

import argparse
from typing import Any

from ops.deployment import DeploymentError, asking_aws_to, client, stack_outputs
from settings import Environment, naming
from userdata.host.disk_images.manifest import Manifest
from userdata.host.disk_images.store import Store
from userdata.host.errors import HostError


def add_command(commands: Any) -> None:
    """Adds the command to the parser's subcommands."""
    parser = commands.add_parser("disk-images", help="build or list the tests' disk images")
    actions = parser.add_subparsers(required=True, metavar="ACTION")
    building = actions.add_parser("build", help="start the builders, which terminate when they are done")
    building.add_argument("--arch", choices=("x86_64", "aarch64"), help="only its builder (default: all)")
    building.set_defaults(run=build)
    listing = actions.add_parser("list", help="show what the builders have published")
    listing.set_defaults(run=show)


def build(environment: Environment, options: argparse.Namespace) -> int:
    """Starts builders; an architecture whose builder is already at work gets no second one.

    Raises:
        DeploymentError: there is no such builder, or AWS refused.
    """
    wanted = [
        builder.architecture
        for builder in environment.builders
        if options.arch in (None, builder.architecture)
    ]
    if not wanted:
        raise DeploymentError(f"{environment.name} has no such builder: see [[builders]] in its file")
    stack_outputs(environment, "builders")  # fails if there are no builders, or only another account's
    scaling = client(environment, "autoscaling")
    for architecture in wanted:
        name = naming.builder_group(environment, architecture)
        with asking_aws_to(f"start the builder {name}"):
            groups = scaling.describe_auto_scaling_groups(AutoScalingGroupNames=[name])["AutoScalingGroups"]
            if not groups:
                raise DeploymentError(f"{environment.name} is not deployed with a builder for {architecture}")
            if groups[0]["DesiredCapacity"]:
                there = ", ".join(entry["InstanceId"] for entry in groups[0]["Instances"]) or "coming up"
                print(f"{architecture}: a builder is at work already: {there}")
                continue
            scaling.set_desired_capacity(AutoScalingGroupName=name, DesiredCapacity=1)
        print(f"{architecture}: a builder is coming up; it terminates when its images are published")
    return 0


def show(environment: Environment, options: argparse.Namespace) -> int:
    """Lists the published images; returns 1 if a builder has published none.

    Raises:
        DeploymentError: the bucket cannot be read.
    """
    missing = False
    for architecture, manifest in read(environment).items():
        if manifest is None:
            print(f"{architecture}: nothing has been published yet")
            missing = True
            continue
        print(
            f"{architecture}: {len(manifest.images)} images, "
            f"up to date as of {manifest.checked or 'no time yet'}"
        )
        for image in manifest.images:
            print(f"  {image.name}  {image.bytes / 1024**3:.1f} GiB  sha256 {image.sha256}")
    return int(missing)


def read(environment: Environment) -> dict[str, Manifest | None]:
    """Returns what each builder has published, by architecture.

    Raises:
        DeploymentError: the environment has no builders, or the bucket cannot be read.
    """
    outputs = stack_outputs(environment, "storage")
    if "DiskImagesBucket" not in outputs:
        raise DeploymentError(f"{environment.name} is not deployed with builders of disk images")
    s3 = client(environment, "s3")
    try:
        return {
            builder.architecture: Store(
                s3, bucket=outputs["DiskImagesBucket"], prefix=naming.images_prefix(builder.architecture)
            ).read()[0]
            for builder in environment.builders
        }
    except HostError as error:
        raise DeploymentError(str(error)) from error
