"""``secrets``: enters a secret or renews a generated one, and restarts what uses it."""

from __future__ import annotations

import argparse
import json
import sys
from secrets import token_hex
from typing import Any

from ops.deployment import DeploymentError, asking_aws_to, client, stack_outputs
from ops.hosts import StatefulHost
from settings import Environment, naming
from settings.naming import SecretName
from userdata.host.errors import HostError
from userdata.host.secrets import sign_in_client

_BROKER = ("ca", "certificate", "key", "password")
# Hosts accept 32 hexadecimal digits for each generated secret (userdata/host/secrets.py).
_BYTES = 16


def add_command(commands: Any) -> None:
    """Adds ``secrets`` to the command line."""
    parser = commands.add_parser("secrets", help="enter a secret, or renew a generated one")
    actions = parser.add_subparsers(required=True, metavar="ACTION")
    entering = actions.add_parser(
        "enter",
        help="set a secret to the value read from standard input",
        description="Reads JSON from standard input, puts it into the secret, and restarts the web UI host's "
        'services. sign-in: {"key": "…", "secret": "…"} of the OAuth2 client. broker: {"ca": "PEM", '
        '"certificate": "PEM", "key": "PEM"} or {"ca": "PEM", "password": "…"}.',
    )
    entering.add_argument("name", choices=("sign-in", "broker"), help="the secret openqa/ENVIRONMENT/NAME")
    entering.set_defaults(run=enter)
    renewing = actions.add_parser(
        "renew",
        help="give a generated secret a new value",
        description="Generates a new value, which nobody sees, and restarts what uses it; jobs run on. "
        "worker-key: the fleets must have no hosts, because openQA would refuse those with the old key.",
    )
    renewing.add_argument(
        "name", choices=("database", "api-key", "worker-key"), help="the secret openqa/ENVIRONMENT/NAME"
    )
    renewing.set_defaults(run=renew)


def enter(environment: Environment, options: argparse.Namespace) -> int:
    """Puts standard input into a secret.

    Args:
        environment: whose.
        options: ``name``.

    Returns:
        0.

    Raises:
        DeploymentError: the environment has no such secret, the value is invalid, or AWS or the host refuses.
    """
    name: SecretName = options.name
    if name not in naming.secrets(environment):
        needs = {"sign-in": 'sign_in.method = "OAuth2"', "broker": '[schedule] and program = "rules"'}
        raise DeploymentError(
            f"{environment.name} has no secret {name}, which exists only with {needs[name]}"
        )
    text = _read()
    {"sign-in": _check_sign_in, "broker": _check_broker}[name](text)
    _put(environment, name, text)
    StatefulHost(environment, "webui").run("restart")
    return 0


def renew(environment: Environment, options: argparse.Namespace) -> int:
    """Gives a generated secret a new value.

    Args:
        environment: whose.
        options: ``name``.

    Returns:
        0.

    Raises:
        DeploymentError: it cannot be renewed, or AWS or a host refuses.
    """
    name: SecretName = options.name
    if name == "database" and environment.database.engine == "rds":
        raise DeploymentError(
            f"{environment.name}'s database is RDS, whose password you change by hand: docs/backups.md, "
            '"RDS instead of a host of ours"'
        )
    if name == "worker-key" and (hosts := _fleet_hosts(environment)):
        raise DeploymentError(
            f"openQA would refuse {', '.join(hosts)}, which have the old worker-key: first end the hosts of "
            'all fleets, as in docs/operating.md, "Change something"'
        )
    _put(environment, name, token_hex(_BYTES))
    for part in ("database", "webui") if name == "database" else ("webui",):
        StatefulHost(environment, part).run("restart")
    return 0


def _read() -> str:
    if sys.stdin.isatty():
        print("Enter the JSON, then Ctrl-D:", file=sys.stderr)
    try:
        text = sys.stdin.read().strip()
        # In some locales Python passes on bytes that are not UTF-8.
        text.encode()
    except UnicodeError as error:
        raise DeploymentError("standard input is not text in UTF-8") from error
    return text


def _check_sign_in(text: str) -> None:
    try:
        sign_in_client(text)
    except HostError as error:
        raise DeploymentError(f"standard input, for the {error}") from error


def _check_broker(text: str) -> None:
    try:
        found = json.loads(text)
    except ValueError:
        found = None
    if not (
        isinstance(found, dict)
        and found.keys() <= set(_BROKER)
        and all(isinstance(value, str) for value in found.values())
        and ("password" in found or {"certificate", "key"} <= found.keys())
    ):
        raise DeploymentError(
            "standard input, for the secret broker: not a JSON object of strings with password, or with "
            f"certificate and key; also allowed: {_BROKER[0]}"
        )


def _put(environment: Environment, name: SecretName, text: str) -> None:
    # Refuses credentials of another account, which may have a secret of this name, too.
    stack_outputs(environment, "storage")
    secret = naming.secret(environment, name)
    manager = client(environment, "secretsmanager")
    with asking_aws_to(f"write the secret {secret}"):
        manager.put_secret_value(SecretId=secret, SecretString=text)
    print(f"{secret} has its new value; restarting what uses it")


def _fleet_hosts(environment: Environment) -> list[str]:
    groups = [naming.fleet_group(environment, fleet.name) for fleet in environment.fleets]
    scaling = client(environment, "autoscaling")
    with asking_aws_to(f"read the groups {', '.join(groups)}"):
        found = scaling.describe_auto_scaling_groups(AutoScalingGroupNames=groups)
    return [instance["InstanceId"] for group in found["AutoScalingGroups"] for instance in group["Instances"]]
