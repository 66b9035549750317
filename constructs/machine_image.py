"""The AMI that hosts boot."""

from __future__ import annotations

from aws_cdk import CfnParameter, Stack

from settings import Architecture, Environment


def machine_image(stack: Stack, *, environment: Environment, architecture: Architecture) -> str:
    """Returns the AMI's id: as set, or the value of the SSM parameter at the time of deployment.

    Args:
        stack: the stack that launches it.
        environment: the settings.
        architecture: the hosts' processor.
    """
    image = environment.image.aarch64 if architecture == "aarch64" else environment.image.x86_64
    assert image is not None  # noqa: S101 (the settings were validated: fleets and hosts have an image)
    if image.startswith("ami-"):
        return image
    return CfnParameter(
        stack,
        f"Image{architecture.replace('_', '').title()}",
        type="AWS::SSM::Parameter::Value<AWS::EC2::Image::Id>",
        default=image,
        description=f"The AMI of {architecture} hosts",
    ).value_as_string
