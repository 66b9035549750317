"""Files that instances fetch from the CDK's staging bucket, by the hash of their content or recipe."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from aws_cdk import FileAssetPackaging, Stack

from images.bundle import Bundle
from images.recipe import Recipe, system
from settings import Architecture, Environment


@dataclass(frozen=True, kw_only=True)
class PublishedFile:
    """An object in the staging bucket of the environment's account and region."""

    bucket: str
    key: str


@dataclass(frozen=True, kw_only=True)
class PublishedBundle(PublishedFile):
    """What instances run, and the SHA-256 that they check it by, in hexadecimal digits."""

    sha256: str


def publish_bundle(stack: Stack, bundle: Bundle) -> PublishedBundle:
    """Publishes the bundle of what instances run, from the app's output folder."""
    location = stack.synthesizer.add_file_asset(
        source_hash=bundle.sha256,
        file_name=bundle.path.name,
        packaging=FileAssetPackaging.FILE,
        display_name="What instances run",
    )
    return PublishedBundle(bucket=location.bucket_name, key=location.object_key, sha256=bundle.sha256)


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
    # An image with the environment's own packages is not in the AMI.
    return {
        name: None
        if environment.image.golden and not environment_recipe(environment, name, architecture).packages
        else publish_recipe(stack, name, environment=environment, architecture=architecture)
        for name in names
    }


def publish_recipe(
    stack: Stack, name: str, *, environment: Environment, architecture: Architecture
) -> PublishedFile:
    """Publishes a container image's archive or an artifact, whatever the AMI holds.

    Args:
        stack: the stack whose instances fetch it.
        name: the recipe's name, such as ``consumer``.
        environment: the settings.
        architecture: the processor that it is for.
    """
    recipe = environment_recipe(environment, name, architecture)
    # The CDK CLI runs this when it publishes, so synth needs no built image.
    location = stack.synthesizer.add_file_asset(
        source_hash=recipe.hash,
        executable=[sys.executable, "-m", "images", *recipe.words],
        display_name=f"{recipe.name} for {recipe.os} on {recipe.architecture}",
    )
    return PublishedFile(bucket=location.bucket_name, key=location.object_key)


def environment_recipe(environment: Environment, name: str, architecture: Architecture) -> Recipe:
    """Returns the recipe of an environment's container image or artifact; see `publish_recipe`."""
    packages = environment.content.worker_packages if name == "worker" else ()
    return Recipe(name, system(name, environment.os), architecture, packages)
