"""The names that several stacks, the instances and the operator's commands agree on.

Where a name is known beforehand, a policy can be narrowed to it without one stack importing from another.
"""

from __future__ import annotations

from typing import Literal

from settings import Environment

Role = Literal["database", "webui", "worker"]
SecretName = Literal["database", "api-key", "sign-in"]

LAUNCH_HOOK = "ready"
TERMINATE_HOOK = "drain"


def prefix(environment: Environment) -> str:
    """Returns what the names of the environment's stacks and groups begin with."""
    return f"openqa-{environment.name}"


def host_group(environment: Environment, role: Role) -> str:
    """Returns the name of the database's or the web UI's Auto Scaling group."""
    return f"{prefix(environment)}-{role}"


def fleet_group(environment: Environment, fleet: str) -> str:
    """Returns the name of a worker fleet's Auto Scaling group."""
    return f"{prefix(environment)}-fleet-{fleet}"


def private_zone(environment: Environment) -> str:
    """Returns the private hosted zone, in which ``webui`` and ``database`` are names."""
    return f"{environment.name}.openqa.internal"


def secret(environment: Environment, name: SecretName) -> str:
    """Returns the name of a generated secret."""
    return f"openqa/{environment.name}/{name}"


def database_ca_parameter(environment: Environment) -> str:
    """Returns the SSM parameter in which the database host publishes its CA certificate."""
    return f"/openqa/{environment.name}/database-ca"
