"""The names that several stacks and the operator's commands agree on, and that instances are told.

As a name is known beforehand, a policy can be narrowed to it without one stack importing from another.
"""

from __future__ import annotations

from typing import Literal

from fleet import facts
from settings.fields import Architecture
from settings.model import Environment

Role = Literal["database", "webui", "worker", "builder"]
SecretName = Literal["database", "api-key", "worker-key", "sign-in", "broker"]

LAUNCH_HOOK = "ready"
TERMINATE_HOOK = "drain"

# Where the load balancer's logs are in the bucket of access logs.
LOAD_BALANCER_LOGS = "load-balancer"

# The tag by which a schedule of snapshots finds a volume; its value is the name of the host's group.
SNAPSHOTS = "openqa:snapshots"


def prefix(environment: Environment) -> str:
    """Returns what the names of the environment's stacks and groups begin with."""
    return f"openqa-{environment.name}"


def stack(environment: Environment, part: str) -> str:
    """Returns the name of one of the environment's stacks, such as ``storage``."""
    return f"{prefix(environment)}-{part}"


def stateful_group(environment: Environment, role: Role) -> str:
    """Returns the name of the database's or the web UI's Auto Scaling group."""
    return f"{prefix(environment)}-{role}"


def fleet_group(environment: Environment, fleet: str) -> str:
    """Returns the name of a worker fleet's Auto Scaling group."""
    return f"{prefix(environment)}-fleet-{fleet}"


def builder_group(environment: Environment, architecture: Architecture) -> str:
    """Returns the name of the Auto Scaling group of an architecture's builder of disk images."""
    return f"{prefix(environment)}-builder-{architecture}"


def images_prefix(architecture: Architecture) -> str:
    """Returns what the keys of an architecture's disk images begin with."""
    return f"{architecture}/"


def tags(environment: Environment) -> dict[str, str]:
    """Returns the stacks' tags, which CloudFormation passes on to all their resources."""
    return {"openqa:environment": environment.name}


def host_tags(environment: Environment, role: Role) -> dict[str, str]:
    """Returns the tags by which operators find hosts of a role, and policies are narrowed to them."""
    return {**tags(environment), "openqa:role": role}


def private_zone(environment: Environment) -> str:
    """Returns the private hosted zone, in which ``webui`` and ``database`` are names."""
    return f"{environment.name}.openqa.internal"


def secrets(environment: Environment) -> frozenset[SecretName]:
    """Returns which secrets the environment has."""
    found: set[SecretName] = {"database", "api-key", "worker-key"}
    if environment.sign_in.method == "OAuth2":
        found.add("sign-in")
    if environment.schedule and environment.schedule.program == "rules":
        found.add("broker")
    return frozenset(found)


def secret(environment: Environment, name: SecretName) -> str:
    """Returns the name of a generated secret."""
    return f"openqa/{environment.name}/{name}"


def arn(environment: Environment, service: str, resource: str) -> str:
    """Returns the ARN of a resource in the environment's account and region; wildcards are allowed.

    Args:
        environment: the settings.
        service: the service's name in ARNs, such as ``ec2``.
        resource: what follows the account, such as ``volume/vol-0``.
    """
    place = f"{environment.region}:{environment.account}"
    return f"arn:{partition(environment)}:{service}:{place}:{resource}"


def partition(environment: Environment) -> str:
    """Returns the AWS partition that the environment's region belongs to."""
    apart = {"cn": "aws-cn", "us-gov": "aws-us-gov"}
    return next((name for begin, name in apart.items() if environment.region.startswith(f"{begin}-")), "aws")


def metric_namespace(environment: Environment) -> str:
    """Returns the CloudWatch namespace of the environment's own metrics."""
    return facts.namespace(environment.name)


def host_events(environment: Environment) -> str:
    """Returns the log group of the events that tell why hosts failed; EventBridge requires its prefix."""
    return f"/aws/events/{prefix(environment)}"


def backup_prefix(role: Role) -> str:
    """Returns what the keys of a host's objects in the backup bucket begin with."""
    return f"{role}/"


def database_ca_parameter(environment: Environment) -> str:
    """Returns the SSM parameter in which the database host publishes its CA certificate."""
    return f"/openqa/{environment.name}/database-ca"
