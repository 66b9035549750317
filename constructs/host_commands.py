"""What an operator may have a host do through Systems Manager: named commands, never a shell."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from aws_cdk import CfnOutput
from aws_cdk import aws_iam as iam
from aws_cdk import aws_ssm as ssm
from constructs import Construct
from constructs.acknowledged import acknowledge_patterns
from constructs.policy_documents import allow, document

from settings import Environment
from settings.messages import COMPOSE, UPDATE
from settings.naming import Role, arn, host_tags, prefix, stack

# The longest that Systems Manager allows, because a restore takes as long as the database is large.
_TIMEOUT_SECONDS = 48 * 3600
_TIME = r"[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}(\.[0-9]{1,6})?(Z|[+-][0-9]{2}:[0-9]{2})"


@dataclass(frozen=True, kw_only=True)
class Parameter:
    """A parameter of a command.

    Attributes:
        pattern: what it must match, anchored; it lets through nothing that means something to a shell.
        default: its value if not given; None: it must be given.
        description: what it is for.
    """

    pattern: str
    default: str | None = None
    description: str


@dataclass(frozen=True, kw_only=True)
class HostCommand:
    """A command of ``python3 -m userdata.host`` that operators may run.

    Attributes:
        name: the document is ``openqa-ENVIRONMENT-ROLE-NAME``.
        description: what it does.
        words: the command's words, with ``{{ Parameter }}`` in place of each parameter.
        parameters: its parameters by name.
    """

    name: str
    description: str
    words: str
    parameters: Mapping[str, Parameter] = field(default_factory=dict)


# Identifies the run whose progress is asked for.
_RUN = Parameter(pattern="^[0-9a-f]{32}$", description="a unique name for this run")
PROGRESS = HostCommand(
    name="progress",
    description="reports the progress of a running command",
    words="progress {{ Run }} --after {{ After }}",
    parameters={"After": Parameter(pattern="^[0-9]{1,9}$", description="how many lines are known already")},
)
BACKUP = HostCommand(name="backup", description="takes a base backup of the database", words="backup")
RESTORE = HostCommand(
    name="restore",
    description="restores the database from the backup bucket",
    words="restore --to {{ To }} {{ Timeline }} {{ Overwrite }}",
    parameters={
        "To": Parameter(pattern=f"^(latest|{_TIME})$", description="latest, or a time with its zone"),
        "Timeline": Parameter(
            pattern="^(--timeline=[0-9]{1,9})?$",
            default="",
            description="the timeline; the newest unless given",
        ),
        "Overwrite": Parameter(
            pattern="^(--yes-overwrite)?$",
            default="",
            description="replaces an existing database",
        ),
    },
)
RESTART = HostCommand(
    name="restart", description="restarts all services, with the current secrets", words="restart"
)
RECONCILE = HostCommand(
    name="reconcile", description="brings openQA in line with a restored database", words="reconcile"
)
CONTENT = HostCommand(
    name="content",
    description="brings tests, needles and job templates up to date",
    words="content {{ Rewritten }} {{ Again }}",
    parameters={
        "Rewritten": Parameter(
            pattern="^(--rewritten)?$", default="", description="accepts a rewritten history"
        ),
        "Again": Parameter(pattern="^(--again)?$", default="", description="loads all job templates again"),
    },
)
SCHEDULE = HostCommand(
    name="schedule",
    description="schedules a compose or an update of Fedora's",
    words="schedule {{ Kind }} {{ What }}",
    parameters={
        "Kind": Parameter(pattern="^(compose|update)$", description="compose or update"),
        "What": Parameter(
            pattern=f"^({COMPOSE}|{UPDATE})$", description="the compose's address, or the update's id"
        ),
    },
)


class HostCommands(Construct):
    """The documents of a host's commands, and the policy of those who may run them, on that host only."""

    def __init__(
        self,
        scope: Construct,
        id: str,
        *,
        environment: Environment,
        role: Role,
        commands: Sequence[HostCommand],
    ) -> None:
        """Makes the documents and the policy.

        Args:
            scope: the construct that they belong to.
            id: their name there.
            environment: the settings.
            role: what the host is.
            commands: what operators may have it do.
        """
        super().__init__(scope, id)
        names = []
        for command in commands:
            made = ssm.CfnDocument(
                self,
                command.name.capitalize(),
                name=f"{prefix(environment)}-{role}-{command.name}",
                document_type="Command",
                document_format="JSON",
                target_type="/AWS::EC2::Instance",
                # A named document cannot be replaced.
                update_method="NewVersion",
                content=content(command),
            )
            names.append(made.ref)
            CfnOutput(scope, f"{command.name.capitalize()}Command", value=made.ref)
        own = host_tags(environment, role)
        instances = arn(environment, "ec2", "instance/*")
        own_stack = arn(environment, "cloudformation", f"stack/{stack(environment, role)}/*")
        policy = iam.CfnManagedPolicy(
            self,
            "Operator",
            description=f"{prefix(environment)}-{role}: run the host's own commands through Systems Manager",
            policy_document=document(
                [
                    allow(
                        ["ssm:SendCommand"], [arn(environment, "ssm", f"document/{name}") for name in names]
                    ),
                    allow(
                        ["ssm:SendCommand"],
                        [instances],
                        {"StringEquals": {f"ssm:resourceTag/{key}": value for key, value in own.items()}},
                    ),
                    allow(
                        ["ssm:GetCommandInvocation", "autoscaling:DescribeAutoScalingGroups"],
                        ["*"],
                        {"StringEquals": {"aws:RequestedRegion": environment.region}},
                    ),
                    allow(["cloudformation:DescribeStacks"], [own_stack]),
                ]
            ),
        )
        acknowledge_patterns(
            policy,
            "*",
            instances,
            own_stack,
            reason="Instances come and go, and the condition narrows this to the host's; invocations are not "
            "resources; a stack's ARN contains a random id.",
        )
        CfnOutput(scope, "OperatorPolicy", value=policy.ref)


def content(command: HostCommand) -> Mapping[str, object]:
    """Returns a command's document, of schema 2.2."""
    parameters = {
        name: {
            "type": "String",
            "description": parameter.description,
            "allowedPattern": parameter.pattern,
            **({} if parameter.default is None else {"default": parameter.default}),
        }
        for name, parameter in {"Run": _RUN, **command.parameters}.items()
    }
    return {
        "schemaVersion": "2.2",
        "description": command.description,
        "parameters": parameters,
        "mainSteps": [
            {
                "action": "aws:runShellScript",
                "name": command.name,
                "precondition": {"StringEquals": ["platformType", "Linux"]},
                "inputs": {
                    "timeoutSeconds": str(_TIMEOUT_SECONDS),
                    "runCommand": [
                        "export PYTHONPATH=/opt/openqa-on-aws PYTHONDONTWRITEBYTECODE=1",
                        f"exec python3 -m userdata.host --run {{{{ Run }}}} {command.words}",
                    ],
                },
            }
        ],
    }
