"""AWS::SSM, AWS::Logs, AWS::Events, AWS::CloudWatch, AWS::ECR: what operators look at."""

from __future__ import annotations

from typing import Any

from localcloud.aws.cloudformation.types import Context, Properties, Type, changes, tags


class Parameter(
    Type,
    type="AWS::SSM::Parameter",
    properties="AllowedPattern Description Tags Tier Value",
    immutable="DataType Name Type",
):
    """A parameter."""

    def tagged(self, p: Properties, more: dict[str, str]) -> Properties:
        """Its tags are a map."""
        return p if not more else {**p, "Tags": {**more, **p.get("Tags", {})}}

    def create(self, c: Context, p: Properties) -> None:
        """Put it."""
        name = p.get("Name") or c.name(128)
        entries = [{"Key": key, "Value": value} for key, value in p.get("Tags", {}).items()]
        c.call(
            "ssm",
            "put_parameter",
            **{key: value for key, value in p.items() if key not in ("Name", "Tags")},
            Name=name,
            Overwrite=False,
            Tags=[tag for tag in entries if not tag["Key"].startswith("aws:")],
        )
        c.created(name)

    def update(self, c: Context, old: Properties, new: Properties) -> None:
        """Put another value."""
        c.call(
            "ssm",
            "put_parameter",
            **{key: value for key, value in new.items() if key not in ("Name", "Tags")},
            Name=c.id,
            Overwrite=True,
        )

    def delete(self, c: Context, p: Properties) -> None:
        """Delete it."""
        c.call("ssm", "delete_parameter", Name=c.id)

    def attributes(self, c: Context, p: Properties) -> dict[str, Any]:
        """What ``Fn::GetAtt`` gives."""
        return {"Type": p["Type"], "Value": p["Value"]}


class Document(
    Type,
    type="AWS::SSM::Document",
    properties="Content UpdateMethod",
    immutable="DocumentFormat DocumentType Name TargetType",
):
    """A document of Systems Manager."""

    def refused(self, p: Properties) -> str | None:
        """With the other method a change replaces the document, which fails if it has a name."""
        if p.get("UpdateMethod") != "NewVersion":
            return f"The local cloud supports only the UpdateMethod NewVersion of {self.type}"
        return super().refused(p)

    def create(self, c: Context, p: Properties) -> None:
        """Create it."""
        name = p.get("Name") or c.name(128)
        rest = {key: value for key, value in p.items() if key not in ("Name", "UpdateMethod")}
        c.call("ssm", "create_document", Name=name, **rest)
        c.created(name)

    def update(self, c: Context, old: Properties, new: Properties) -> None:
        """Make a new version. AWS says that this becomes the default, but was seen to keep the old one."""
        rest = {key: new[key] for key in ("Content", "DocumentFormat") if key in new}
        c.call("ssm", "update_document", Name=c.id, DocumentVersion="$LATEST", **rest)

    def delete(self, c: Context, p: Properties) -> None:
        """Delete it."""
        c.call("ssm", "delete_document", Name=c.id)


class LogGroup(
    Type,
    type="AWS::Logs::LogGroup",
    properties="KmsKeyId RetentionInDays Tags",
    immutable="LogGroupClass LogGroupName",
):
    """A log group."""

    def create(self, c: Context, p: Properties) -> None:
        """Create it."""
        name = p.get("LogGroupName") or c.name(512)
        c.call(
            "logs",
            "create_log_group",
            logGroupName=name,
            kmsKeyId=p.get("KmsKeyId"),
            tags={tag["Key"]: tag["Value"] for tag in tags(p, own=True)} or None,
        )
        c.created(name)
        self._retain(c, p)

    def _retain(self, c: Context, p: Properties) -> None:
        if "RetentionInDays" in p:
            days = p["RetentionInDays"]
            c.call("logs", "put_retention_policy", logGroupName=c.id, retentionInDays=days)
        else:
            c.call("logs", "delete_retention_policy", logGroupName=c.id)

    def update(self, c: Context, old: Properties, new: Properties) -> None:
        """Change retention and tags."""
        if changes(old, new) - {"RetentionInDays", "Tags"}:
            super().update(c, old, new)
        self._retain(c, new)

    def delete(self, c: Context, p: Properties) -> None:
        """Delete it."""
        c.call("logs", "delete_log_group", logGroupName=c.id)

    def attributes(self, c: Context, p: Properties) -> dict[str, Any]:
        """What ``Fn::GetAtt`` gives."""
        return {"Arn": f"arn:aws:logs:{c.world.region}:{c.world.account}:log-group:{c.id}:*"}


class LogsPolicy(Type, type="AWS::Logs::ResourcePolicy", properties="PolicyDocument", immutable="PolicyName"):
    """Who else may write to log groups; nothing enforces it here."""

    def create(self, c: Context, p: Properties) -> None:
        """Put it."""
        self._put(c, p)
        c.created(p["PolicyName"])

    def _put(self, c: Context, p: Properties) -> None:
        c.call("logs", "put_resource_policy", policyName=p["PolicyName"], policyDocument=p["PolicyDocument"])

    def update(self, c: Context, old: Properties, new: Properties) -> None:
        """Put another."""
        self._put(c, new)

    def delete(self, c: Context, p: Properties) -> None:
        """Delete it."""
        c.call("logs", "delete_resource_policy", policyName=c.id)


class Rule(
    Type, type="AWS::Events::Rule", properties="Description EventPattern State Targets", immutable="Name"
):
    """A rule of EventBridge's default bus."""

    def create(self, c: Context, p: Properties) -> None:
        """Put it with its targets."""
        name = p.get("Name") or c.name(64)
        self._put(c, p, name)
        c.created(name)
        c.call("events", "put_targets", Rule=name, Targets=p["Targets"])

    def _put(self, c: Context, p: Properties, name: str) -> None:
        rest = {key: value for key, value in p.items() if key not in ("Name", "Targets")}
        c.call("events", "put_rule", Name=name, **rest)

    def update(self, c: Context, old: Properties, new: Properties) -> None:
        """Put another, and its targets instead of the old ones."""
        self._put(c, new, c.id)
        gone = {target["Id"] for target in old["Targets"]} - {target["Id"] for target in new["Targets"]}
        if gone:
            c.call("events", "remove_targets", Rule=c.id, Ids=sorted(gone))
        c.call("events", "put_targets", Rule=c.id, Targets=new["Targets"])

    def delete(self, c: Context, p: Properties) -> None:
        """Delete it with its targets."""
        c.call("events", "remove_targets", Rule=c.id, Ids=[target["Id"] for target in p["Targets"]])
        c.call("events", "delete_rule", Name=c.id)

    def attributes(self, c: Context, p: Properties) -> dict[str, Any]:
        """What ``Fn::GetAtt`` gives."""
        return {"Arn": f"arn:aws:events:{c.world.region}:{c.world.account}:rule/{c.id}"}


class Alarm(
    Type,
    type="AWS::CloudWatch::Alarm",
    properties="ActionsEnabled AlarmActions AlarmDescription ComparisonOperator DatapointsToAlarm "
    "Dimensions EvaluationPeriods ExtendedStatistic InsufficientDataActions MetricName Metrics Namespace "
    "OKActions Period Statistic Tags Threshold TreatMissingData Unit",
    immutable="AlarmName",
):
    """An alarm; nothing evaluates it here."""

    def _put(self, c: Context, p: Properties, name: str) -> None:
        rest = {key: value for key, value in p.items() if key not in ("AlarmName", "Tags")}
        c.call("cloudwatch", "put_metric_alarm", AlarmName=name, **rest, Tags=tags(p, own=True))

    def create(self, c: Context, p: Properties) -> None:
        """Put it."""
        name = p.get("AlarmName") or c.name(255)
        self._put(c, p, name)
        c.created(name)

    def update(self, c: Context, old: Properties, new: Properties) -> None:
        """Put another."""
        self._put(c, new, c.id)

    def delete(self, c: Context, p: Properties) -> None:
        """Delete it."""
        c.call("cloudwatch", "delete_alarms", AlarmNames=[c.id])

    def attributes(self, c: Context, p: Properties) -> dict[str, Any]:
        """What ``Fn::GetAtt`` gives."""
        return {"Arn": f"arn:aws:cloudwatch:{c.world.region}:{c.world.account}:alarm:{c.id}"}


class Dashboard(
    Type, type="AWS::CloudWatch::Dashboard", properties="DashboardBody", immutable="DashboardName"
):
    """A dashboard."""

    def create(self, c: Context, p: Properties) -> None:
        """Put it."""
        name = p.get("DashboardName") or c.name(255)
        c.call("cloudwatch", "put_dashboard", DashboardName=name, DashboardBody=p["DashboardBody"])
        c.created(name)

    def update(self, c: Context, old: Properties, new: Properties) -> None:
        """Put another."""
        c.call("cloudwatch", "put_dashboard", DashboardName=c.id, DashboardBody=new["DashboardBody"])

    def delete(self, c: Context, p: Properties) -> None:
        """Delete it."""
        c.call("cloudwatch", "delete_dashboards", DashboardNames=[c.id])


class Repository(
    Type,
    type="AWS::ECR::Repository",
    properties="ImageScanningConfiguration ImageTagMutability LifecyclePolicy RepositoryPolicyText Tags",
    immutable="EncryptionConfiguration RepositoryName",
):
    """An image repository; the CDK's bootstrap stack has one."""

    def create(self, c: Context, p: Properties) -> None:
        """Create it."""
        name = p.get("RepositoryName") or c.name(256, lower=True)
        c.call(
            "ecr",
            "create_repository",
            repositoryName=name,
            imageTagMutability=p.get("ImageTagMutability"),
            tags=tags(p, own=True),
        )
        c.created(name)
        self._configure(c, p)

    def _configure(self, c: Context, p: Properties) -> None:
        if "LifecyclePolicy" in p:
            text = p["LifecyclePolicy"]["LifecyclePolicyText"]
            c.call("ecr", "put_lifecycle_policy", repositoryName=c.id, lifecyclePolicyText=text)
        if "RepositoryPolicyText" in p:
            text = p["RepositoryPolicyText"]
            c.call("ecr", "set_repository_policy", repositoryName=c.id, policyText=text)

    def update(self, c: Context, old: Properties, new: Properties) -> None:
        """Change its policies."""
        self._configure(c, new)

    def delete(self, c: Context, p: Properties) -> None:
        """Delete it."""
        c.call("ecr", "delete_repository", repositoryName=c.id)

    def attributes(self, c: Context, p: Properties) -> dict[str, Any]:
        """What ``Fn::GetAtt`` gives."""
        host = f"{c.world.account}.dkr.ecr.{c.world.region}.amazonaws.com"
        return {
            "Arn": f"arn:aws:ecr:{c.world.region}:{c.world.account}:repository/{c.id}",
            "RepositoryUri": f"{host}/{c.id}",
        }
