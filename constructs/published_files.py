"""Files that instances fetch from the CDK's staging bucket, by the hash of their content or recipe."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from aws_cdk import FileAssetPackaging, Stack

from images.bundle import Bundle
from images.recipe import recipe_hash
from settings import Architecture, Environment


@dataclass(frozen=True, kw_only=True)
class PublishedFile:
    """An object in the staging bucket of the environment's account and region."""

    bucket: str
    key: str


def publish_bundle(stack: Stack, bundle: Bundle) -> PublishedFile:
    """Publishes the bundle of what instances run, which lies in the app's output folder."""
    location = stack.synthesizer.add_file_asset(
        source_hash=bundle.sha256,
        file_name=bundle.path.name,
        packaging=FileAssetPackaging.FILE,
        display_name="What instances run",
    )
    return PublishedFile(bucket=location.bucket_name, key=location.object_key)


def publish_recipes(
    stack: Stack, names: Iterable[str], *, environment: Environment, architecture: Architecture
) -> Mapping[str, PublishedFile | None]:
    """Publishes container images' archives and artifacts, unless the AMI already holds them.

    Args:
        stack: the stack whose instances fetch them.
        names: the recipes' names, such as ``webui`` or ``sample``.
        environment: the settings.
        architecture: the processor that they are for.

    Returns:
        Where each is; None: in the AMI.
    """
    if environment.image.golden:
        return dict.fromkeys(names)
    return {name: publish_recipe(stack, name, environment.os, architecture) for name in names}


def publish_recipe(stack: Stack, name: str, os: str, architecture: str) -> PublishedFile:
    """Publishes a container image's archive or an artifact, whatever the AMI holds.

    Args:
        stack: the stack whose instances fetch it.
        name: the recipe's name.
        os: what it runs.
        architecture: the processor that it is for.
    """
    # The CDK CLI runs this when it publishes: synth needs no image built.
    location = stack.synthesizer.add_file_asset(
        source_hash=recipe_hash(name, os, architecture),
        executable=[sys.executable, "-m", "images", "archive", name, "--os", os, "--arch", architecture],
        display_name=f"{name} for {os} on {architecture}",
    )
    return PublishedFile(bucket=location.bucket_name, key=location.object_key)
