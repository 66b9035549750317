"""The AMI that hosts boot."""

from __future__ import annotations

import hashlib

from aws_cdk import CfnParameter, Stack

from settings import Architecture


def machine_image(stack: Stack, *, image: str | None, architecture: Architecture) -> str:
    """Returns the AMI's id: as set, or the value of the SSM parameter at the time of deployment.

    Args:
        stack: the stack that launches it.
        image: an AMI's id or the name of an SSM parameter, from the settings.
        architecture: the hosts' processor.
    """
    assert image is not None  # noqa: S101 (the settings were validated: fleets and hosts have an image)
    if image.startswith("ami-"):
        return image
    # An update keeps a parameter's value, so each SSM parameter needs its own parameter of the template.
    name = hashlib.sha256(image.encode()).hexdigest()[:8]
    return CfnParameter(
        stack,
        f"Image{architecture.replace('_', '').title()}{name.upper()}",
        type="AWS::SSM::Parameter::Value<AWS::EC2::Image::Id>",
        default=image,
        description=f"The AMI of {architecture} hosts",
    ).value_as_string
