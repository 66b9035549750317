"""``remove``: ends all hosts of a disposable environment and empties its buckets, before ``cdk destroy``."""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from botocore.exceptions import ClientError

from ops.deployment import DeploymentError, asking_aws_to, check_account, client, deployed_groups, tagged
from settings import Environment, naming

POLL_SECONDS = 5.0
_PAGE = 'docs/operating.md, "Remove a deployment"'
_CONSENT = "--yes-delete-results-and-backups"
# Begins the value of the record by which ACM sees that a domain is ours.
_VALIDATION = ".acm-validations.aws."


@dataclass(frozen=True)
class _Found:
    """What there is of an environment that ``cdk destroy`` would stop at or leave.

    Attributes:
        groups: the Auto Scaling groups that are not being deleted yet.
        hosts: the instances that are not terminated.
        buckets: the storage stack's.
        snapshots: those of the openQA volume.
        zone: the hosted zone of the stack ``dns``; None: there is none.
    """

    groups: list[str]
    hosts: list[str]
    buckets: list[str]
    snapshots: list[str]
    zone: str | None


def add_command(commands: Any) -> None:
    """Adds ``remove`` to the command line."""
    parser = commands.add_parser(
        "remove",
        help="end the hosts and empty the buckets of a dev environment",
        description="Of an environment of kind local or dev: terminates all hosts, running jobs included, "
        "empties the buckets and deletes the snapshots. After this, 'cdk destroy --all' can delete the "
        "stacks with the database; 'make destroy' does both.",
    )
    parser.add_argument(
        _CONSENT,
        dest="consent",
        action="store_true",
        help="do it (default: only show what would be deleted)",
    )
    parser.add_argument(
        "--delegation-removed",
        action="store_true",
        help="the parent of the zone that the stack dns created no longer names its name servers",
    )
    parser.set_defaults(run=run)


def run(environment: Environment, options: argparse.Namespace) -> int:
    """Ends the hosts and empties the buckets.

    Args:
        environment: whose.
        options: ``consent`` and ``delegation_removed``.

    Returns:
        0.

    Raises:
        DeploymentError: the environment keeps its state, something has to be done by hand first, there is no
            consent, or AWS refuses or does not answer.
    """
    if not environment.disposable:
        raise DeploymentError(
            f"{environment.name} is of kind {environment.kind}, which is removed by hand: {_PAGE}; "
            "nothing was done"
        )
    _check_account(environment)
    found = _look(environment)
    for line in _losses(environment, found):
        print(line, flush=True)
    _check_attached(environment)
    if found.zone and environment.kind != "local" and not options.delegation_removed:
        raise DeploymentError(
            f"remove the delegation of {environment.name}'s hosted zone {found.zone} from its parent zone, "
            "or whoever gets a zone of this name at one of its name servers controls the name; then pass "
            "--delegation-removed (to make destroy: DELEGATION=removed); nothing was done"
        )
    if not options.consent:
        raise DeploymentError(f"nothing was done: to delete all this for good, pass {_CONSENT}")
    _end_hosts(environment, found)
    for bucket in found.buckets:
        _empty(environment, bucket)
    _delete_rest(environment, found)
    for line in _staying(environment):
        print(line)
    return 0


def _check_account(environment: Environment) -> None:
    """Refuses another account's credentials, whatever is deployed: it may have such an environment."""
    with asking_aws_to("tell which account the shell's credentials belong to"):
        account = client(environment, "sts").get_caller_identity()["Account"]
    check_account(environment, account)


def _check_attached(environment: Environment) -> None:
    """Refuses while somebody has a policy of the stacks: these could not be deleted."""
    iam = client(environment, "iam")
    for part in ("database", "webui"):
        for policy in _resources(environment, part, "AWS::IAM::ManagedPolicy"):
            pages = iam.get_paginator("list_entities_for_policy").paginate(PolicyArn=policy)
            with asking_aws_to(f"read who has the policy {policy}"):
                having = [
                    entity[f"{kind}Name"]
                    for page in pages
                    for kind in ("User", "Group", "Role")
                    for entity in page[f"Policy{kind}s"]
                ]
            if having:
                raise DeploymentError(
                    f"detach the policy {policy} from {', '.join(having)}, or the stack "
                    f"{naming.stack(environment, part)} cannot be deleted; nothing was done"
                )


def _look(environment: Environment) -> _Found:
    ec2 = client(environment, "ec2")
    volume = naming.stateful_group(environment, "webui")
    pages = ec2.get_paginator("describe_snapshots").paginate(
        OwnerIds=["self"], Filters=[{"Name": f"tag:{naming.SNAPSHOTS}", "Values": [volume]}]
    )
    with asking_aws_to(f"list {environment.name}'s snapshots"):
        snapshots = [snapshot["SnapshotId"] for page in pages for snapshot in page["Snapshots"]]
    return _Found(
        groups=[
            group["AutoScalingGroupName"] for group in deployed_groups(environment) if not group.get("Status")
        ],
        hosts=_hosts(environment),
        buckets=_resources(environment, "storage", "AWS::S3::Bucket"),
        snapshots=snapshots,
        zone=next(iter(_resources(environment, "dns", "AWS::Route53::HostedZone")), None),
    )


def _hosts(environment: Environment) -> list[str]:
    states = ["pending", "running", "shutting-down", "stopping", "stopped"]
    filters = [*tagged(environment), {"Name": "instance-state-name", "Values": states}]
    pages = client(environment, "ec2").get_paginator("describe_instances").paginate(Filters=filters)
    with asking_aws_to(f"list {environment.name}'s hosts"):
        return sorted(
            instance["InstanceId"]
            for page in pages
            for reservation in page["Reservations"]
            for instance in reservation["Instances"]
        )


def _resources(environment: Environment, part: str, kind: str) -> list[str]:
    """Returns the ids of a stack's resources of one type that are there; none, if there is no such stack."""
    stack = naming.stack(environment, part)
    with asking_aws_to(f"read the stack {stack}"):
        try:
            answer = client(environment, "cloudformation").describe_stack_resources(StackName=stack)
        except ClientError as error:
            if "does not exist" in str(error):
                return []
            raise
    return [
        resource["PhysicalResourceId"]
        for resource in answer["StackResources"]
        if resource["ResourceType"] == kind
        and resource.get("PhysicalResourceId")
        and resource["ResourceStatus"] != "DELETE_COMPLETE"
    ]


def _losses(environment: Environment, found: _Found) -> Iterator[str]:
    yield (
        f"To be deleted of {environment.name}, in account {environment.account}, {environment.region}, with "
        "the database, openQA's results and assets, and all backups:"
    )
    for title, ids in (
        ("Auto Scaling groups", found.groups),
        ("hosts, with the jobs that they run", found.hosts),
        ("content of buckets", found.buckets),
        ("snapshots", found.snapshots),
    ):
        yield f"  {title}: {', '.join(ids) or 'none'}"


def _end_hosts(environment: Environment, found: _Found) -> None:
    scaling = client(environment, "autoscaling")
    for group in found.groups:
        with asking_aws_to(f"delete the Auto Scaling group {group}"):
            # With its hosts, at once: workers are protected, and would first wait for their jobs.
            scaling.delete_auto_scaling_group(AutoScalingGroupName=group, ForceDelete=True)
    if hosts := _hosts(environment):
        with asking_aws_to(f"terminate {', '.join(hosts)}"):
            # One that was detached from its group would stay.
            client(environment, "ec2").terminate_instances(InstanceIds=hosts)
    told: list[str] = []
    while left := _hosts(environment):
        if left != told:
            print(f"waiting until these hosts are terminated: {', '.join(left)}", flush=True)
            told = left
        time.sleep(POLL_SECONDS)
    print("all hosts are gone", flush=True)


def _empty(environment: Environment, bucket: str) -> None:
    """Deletes all versions and delete markers of a bucket, to which nobody can then add any."""
    s3 = client(environment, "s3")
    # S3 and the load balancer deliver access logs for some hours. A policy of its stack that were gone might
    # keep the stack from being deleted, so this one takes its place.
    closed = {
        "Effect": "Deny",
        "Principal": "*",
        "Action": "s3:PutObject",
        "Resource": f"arn:{naming.partition(environment)}:s3:::{bucket}/*",
    }
    policy = json.dumps({"Version": "2012-10-17", "Statement": [closed]})
    count = 0
    with asking_aws_to(f"empty the bucket {bucket}"):
        s3.put_bucket_policy(Bucket=bucket, Policy=policy)
        # Always the first page, as what was on it is gone.
        while keys := _first_page(s3, bucket):
            # Object Lock in governance mode (object_lock_days) lets administrators do this.
            answer = s3.delete_objects(
                Bucket=bucket, Delete={"Objects": keys, "Quiet": True}, BypassGovernanceRetention=True
            )
            if failed := answer.get("Errors"):
                first = failed[0]
                raise DeploymentError(
                    f"{bucket} cannot be emptied: {first['Key']}, one of {len(failed)} that stay: "
                    f"{first['Code']}: {first.get('Message', 'S3 gives no reason')}"
                )
            count += len(keys)
            print(f"{bucket}: {count} versions deleted so far", flush=True)
    print(f"{bucket} is empty", flush=True)


def _first_page(s3: Any, bucket: str) -> list[dict[str, str]]:
    """Returns a bucket's first versions and delete markers, as many as one call deletes."""
    page = s3.list_object_versions(Bucket=bucket)
    return [
        {"Key": entry["Key"], "VersionId": entry["VersionId"]}
        for kind in ("Versions", "DeleteMarkers")
        for entry in page.get(kind, [])
    ]


def _delete_rest(environment: Environment, found: _Found) -> None:
    ec2 = client(environment, "ec2")
    for snapshot in found.snapshots:
        with asking_aws_to(f"delete the snapshot {snapshot}"):
            ec2.delete_snapshot(SnapshotId=snapshot)
    parameter = naming.database_ca_parameter(environment)
    with asking_aws_to(f"delete the parameter {parameter}"):
        # In this form there is no error if it is gone.
        client(environment, "ssm").delete_parameters(Names=[parameter])
    if found.zone:
        _delete_validations(environment, found.zone)


def _delete_validations(environment: Environment, zone: str) -> None:
    """Deletes the records that ACM's validation left in a zone, which only then can be deleted."""
    route53 = client(environment, "route53")
    with asking_aws_to(f"delete the certificate's records from the hosted zone {zone}"):
        pages = route53.get_paginator("list_resource_record_sets").paginate(HostedZoneId=zone)
        changes = [
            {"Action": "DELETE", "ResourceRecordSet": record}
            for page in pages
            for record in page["ResourceRecordSets"]
            if record["Type"] == "CNAME"
            and any(_VALIDATION in f"{value['Value']}." for value in record.get("ResourceRecords", []))
        ]
        if changes:
            route53.change_resource_record_sets(HostedZoneId=zone, ChangeBatch={"Changes": changes})


def _staying(environment: Environment) -> Iterator[str]:
    yield f"'cdk destroy --all' can now delete {environment.name}'s stacks ('make destroy' does). These stay:"
    yield "  what was published to the bootstrap's bucket (cdk gc --unstable=gc)"
    if environment.database.engine == "rds":
        yield "  RDS's log group, /aws/rds/instance/…"
    if environment.backups.replicate_to:
        yield f"  copies of the backups in {environment.backups.replicate_to}"
