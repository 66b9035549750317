"""What all stacks of an environment have in common."""

from __future__ import annotations

import aws_cdk as cdk
from constructs import Construct

from settings import Environment, naming


class EnvironmentStack(cdk.Stack):
    """A stack of one environment, in its account and region, under the name ``openqa-ENV-PART``."""

    def __init__(
        self,
        scope: Construct,
        part: str,
        *,
        environment: Environment,
        description: str,
        holds_state: bool = False,
    ) -> None:
        """Makes the stack.

        Args:
            scope: the app.
            part: the last part of its name.
            environment: the settings.
            description: what it holds, in one line.
            holds_state: whether it is protected from termination, unless the environment is disposable.
        """
        super().__init__(
            scope,
            naming.stack(environment, part),
            env=cdk.Environment(account=environment.account, region=environment.region),
            description=f"openQA, environment {environment.name}: {description}",
            termination_protection=holds_state and not environment.disposable,
            tags=naming.tags(environment),
        )


def state_policy(environment: Environment) -> cdk.RemovalPolicy:
    """Returns what happens to state when its stack goes.

    State is kept from its first successful deployment on: after one that failed, the names are free again.
    """
    if environment.disposable:
        return cdk.RemovalPolicy.DESTROY
    return cdk.RemovalPolicy.RETAIN_ON_UPDATE_OR_DELETE
