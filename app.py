"""Reads one environment and wires its stacks: ``cdk synth|diff|deploy -c env=NAME``.

``-c environments=DIRECTORY`` takes the file from elsewhere than ``environments/``. ``CDK_VALIDATION=false``
in the shell leaves out AWS's security rules, which take a third of the time.
"""

from __future__ import annotations

import gc
import os
import re
import sys
from pathlib import Path

if __name__ == "__main__":
    # Loading the CDK makes hundreds of thousands of objects, and nothing that this short run could free.
    gc.disable()

import aws_cdk as cdk

import settings
from images.bundle import write_bundle
from stacks.builders import BuildersStack
from stacks.dashboard import DashboardStack
from stacks.database import DatabaseStack
from stacks.dns import DnsStack
from stacks.network import NetworkStack
from stacks.storage import StorageStack
from stacks.webui import WebUiStack
from stacks.workers import WorkersStack


def build(app: cdk.App, environment: settings.Environment) -> None:
    """Adds an environment's stacks to an app, in the order in which they deploy."""
    bundle = write_bundle(Path(app.outdir))
    domain = environment.domain
    hosted_zone_id = domain.hosted_zone_id if domain else None
    if domain and not hosted_zone_id:
        hosted_zone_id = DnsStack(app, environment=environment, hosted_zone=domain.hosted_zone).hosted_zone_id
    network = NetworkStack(app, environment=environment)
    storage = StorageStack(app, environment=environment, network=network)
    database = DatabaseStack(app, environment=environment, network=network, storage=storage, bundle=bundle)
    webui = WebUiStack(
        app,
        environment=environment,
        network=network,
        storage=storage,
        hosted_zone_id=hosted_zone_id,
        database=database.endpoint,
        bundle=bundle,
    )
    workers = WorkersStack(app, environment=environment, network=network, storage=storage, bundle=bundle)
    builder = network.security_groups.builder
    if builder and storage.disk_images:
        BuildersStack(
            app,
            environment=environment,
            network=network,
            security_group=builder,
            bucket=storage.disk_images,
            bundle=bundle,
        )
    DashboardStack(app, environment=environment)
    # A host comes up only when what it talks to is there.
    webui.add_stack_dependency(database)
    workers.add_stack_dependency(webui)


def advise(app: cdk.App, environment: settings.Environment) -> None:
    """Has the CDK CLI warn of probable mistakes, which ``--strict`` refuses."""
    for line in settings.warnings(environment):
        cdk.Annotations.of(app).add_warning_v2("openqa:settings", line)


def check(app: cdk.App) -> None:
    """Has synth check AWS's security rules: a finding that is not acknowledged with a reason is an error."""
    # Loading them takes time, so they are not even imported where nothing is to be validated.
    from cdk_nag import AwsSolutionsChecks

    cdk.Validations.of(app).add_plugins(AwsSolutionsChecks(app))


def main() -> int:
    """Synthesizes the environment that the context names; returns the exit code."""
    app = cdk.App(analytics_reporting=False, stack_traces=False)
    try:
        environment = settings.load(
            str(app.node.try_get_context("env") or ""),
            Path(app.node.try_get_context("environments") or settings.ENVIRONMENTS),
        )
    except settings.SettingsError as error:
        print(error, file=sys.stderr)
        return 1
    try:
        build(app, environment)
        advise(app, environment)
        if os.environ.get("CDK_VALIDATION") != "false":
            check(app)
        app.synth()
    except (OSError, RuntimeError) as error:
        # What the CDK's Node cannot write is a RuntimeError here, like everything that goes wrong there.
        if isinstance(error, RuntimeError) and not re.match("Error: E[A-Z]+: ", str(error)):
            raise
        print(f"The templates cannot be written to {app.outdir}: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
