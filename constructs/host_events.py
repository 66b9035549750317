"""The log of what hosts report about their failures."""

from __future__ import annotations

import json

from aws_cdk import aws_events as events
from aws_cdk import aws_logs as logs
from constructs import Construct
from constructs.policy_documents import document

from settings import Environment
from settings.naming import arn, host_events, prefix
from userdata.host import failure

# The services that write to a log group for a rule: EventBridge's user guide, "CloudWatch Logs permissions".
_WRITERS = {"Service": ["delivery.logs.amazonaws.com", "events.amazonaws.com"]}


class HostEvents(Construct):
    """A log group, and the rule that fills it with the environment's events."""

    def __init__(self, scope: Construct, id: str, *, environment: Environment) -> None:
        super().__init__(scope, id)
        name = host_events(environment)
        group = logs.CfnLogGroup(self, "Log", log_group_name=name, retention_in_days=environment.log_days)
        place = arn(environment, "logs", f"log-group:{name}")
        rule_name = f"{prefix(environment)}-host-failed"
        policy = logs.CfnResourcePolicy(
            self,
            "Writers",
            policy_name=f"{prefix(environment)}-events",
            policy_document=json.dumps(
                document(
                    [
                        {
                            "Effect": "Allow",
                            "Principal": _WRITERS,
                            "Action": "logs:CreateLogStream",
                            "Resource": f"{place}:*",
                        },
                        # Only for this rule: otherwise somebody else's could have the service write here.
                        {
                            "Effect": "Allow",
                            "Principal": _WRITERS,
                            "Action": "logs:PutLogEvents",
                            "Resource": f"{place}:*",
                            "Condition": {
                                "ArnLike": {"aws:SourceArn": arn(environment, "events", f"rule/{rule_name}")}
                            },
                        },
                    ]
                )
            ),
        )
        rule = events.CfnRule(
            self,
            "Rule",
            name=rule_name,
            description=f"{prefix(environment)}: hosts that failed, and why",
            event_pattern={"source": [failure.source(environment.name)], "detail-type": [failure.KIND]},
            targets=[events.CfnRule.TargetProperty(id="Log", arn=place)],
        )
        rule.add_resource_dependency(group)
        rule.add_resource_dependency(policy)
