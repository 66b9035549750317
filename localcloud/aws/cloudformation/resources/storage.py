"""AWS::S3 and AWS::EC2::Volume: what keeps state."""

from __future__ import annotations

import uuid
from typing import Any

from localcloud.aws.cloudformation.resources.network import Ec2Type
from localcloud.aws.cloudformation.types import (
    Context,
    Properties,
    ResourceError,
    Type,
    UpdateRefusedError,
    changes,
    tag_specifications,
    tags,
)

_TRANSITION = {"StorageClass": "StorageClass", "TransitionInDays": "Days"}


class Bucket(
    Type,
    type="AWS::S3::Bucket",
    properties="AccessControl BucketEncryption LifecycleConfiguration LoggingConfiguration OwnershipControls "
    "PublicAccessBlockConfiguration Tags VersioningConfiguration",
    immutable="BucketName",
):
    """A bucket."""

    def refused(self, p: Properties) -> str | None:
        """Canned access lists are not supported here."""
        if p.get("AccessControl", "Private") != "Private":
            return f"The local cloud has no AccessControl {p['AccessControl']}"
        return super().refused(p)

    def create(self, c: Context, p: Properties) -> None:
        """Create it."""
        name = p.get("BucketName") or c.name(63, lower=True)
        if any(bucket["Name"] == name for bucket in c.call("s3", "list_buckets")["Buckets"]):
            raise ResourceError(f"{name} already exists")
        c.call("s3", "create_bucket", Bucket=name)
        c.created(name)
        self._configure(c, p)

    def update(self, c: Context, old: Properties, new: Properties) -> None:
        """Change its configuration."""
        if gone := changes(old, new) & old.keys() - new.keys() - {"LifecycleConfiguration", "Tags"}:
            raise UpdateRefusedError(f"The local cloud cannot take {', '.join(sorted(gone))} from a bucket")
        if "LifecycleConfiguration" in old and "LifecycleConfiguration" not in new:
            c.call("s3", "delete_bucket_lifecycle", Bucket=c.id)
        self._configure(c, new)

    def _configure(self, c: Context, p: Properties) -> None:
        if own := tags(p, own=True):
            c.call("s3", "put_bucket_tagging", Bucket=c.id, Tagging={"TagSet": own})
        if "VersioningConfiguration" in p:
            c.call(
                "s3",
                "put_bucket_versioning",
                Bucket=c.id,
                VersioningConfiguration=p["VersioningConfiguration"],
            )
        if "PublicAccessBlockConfiguration" in p:
            c.call(
                "s3",
                "put_public_access_block",
                Bucket=c.id,
                PublicAccessBlockConfiguration=p["PublicAccessBlockConfiguration"],
            )
        if "OwnershipControls" in p:
            c.call(
                "s3", "put_bucket_ownership_controls", Bucket=c.id, OwnershipControls=p["OwnershipControls"]
            )
        if "BucketEncryption" in p:
            rules = [
                {
                    **{key: value for key, value in rule.items() if key != "ServerSideEncryptionByDefault"},
                    "ApplyServerSideEncryptionByDefault": rule["ServerSideEncryptionByDefault"],
                }
                for rule in p["BucketEncryption"]["ServerSideEncryptionConfiguration"]
            ]
            c.call(
                "s3", "put_bucket_encryption", Bucket=c.id, ServerSideEncryptionConfiguration={"Rules": rules}
            )
        if "LoggingConfiguration" in p:
            names = {"DestinationBucketName": "TargetBucket", "LogFilePrefix": "TargetPrefix"}
            logging = {names[key]: value for key, value in p["LoggingConfiguration"].items()}
            c.call(
                "s3",
                "put_bucket_logging",
                Bucket=c.id,
                BucketLoggingStatus={"LoggingEnabled": {"TargetPrefix": "", **logging}},
            )
        if "LifecycleConfiguration" in p:
            c.call(
                "s3",
                "put_bucket_lifecycle_configuration",
                Bucket=c.id,
                LifecycleConfiguration={
                    "Rules": [_lifecycle_rule(rule) for rule in p["LifecycleConfiguration"]["Rules"]]
                },
            )

    def delete(self, c: Context, p: Properties) -> None:
        """Delete it, if it is empty."""
        c.call("s3", "delete_bucket", Bucket=c.id)

    def attributes(self, c: Context, p: Properties) -> dict[str, Any]:
        """What ``Fn::GetAtt`` gives."""
        return {
            "Arn": f"arn:aws:s3:::{c.id}",
            "DomainName": f"{c.id}.s3.amazonaws.com",
            "RegionalDomainName": f"{c.id}.s3.{c.world.region}.amazonaws.com",
        }


def _lifecycle_rule(rule: Properties) -> dict[str, Any]:
    """A rule of a bucket's life cycle as S3's API has it.

    Raises:
        ResourceError: It has a property that is not supported.
    """
    result: dict[str, Any] = {"Status": rule["Status"], "Filter": {"Prefix": rule.get("Prefix", "")}}
    for key, value in rule.items():
        if key in ("Status", "Prefix"):
            continue
        if key == "Id":
            result["ID"] = value
        elif key == "ExpirationInDays":
            result.setdefault("Expiration", {})["Days"] = value
        elif key == "ExpiredObjectDeleteMarker":
            result.setdefault("Expiration", {})["ExpiredObjectDeleteMarker"] = value
        elif key in ("NoncurrentVersionExpiration", "AbortIncompleteMultipartUpload"):
            names = {"NewerNoncurrentVersions": "NewerNoncurrentVersions"}
            names |= {"NoncurrentDays": "NoncurrentDays", "DaysAfterInitiation": "DaysAfterInitiation"}
            result[key] = {names[name]: item for name, item in value.items()}
        elif key == "NoncurrentVersionExpirationInDays":
            result["NoncurrentVersionExpiration"] = {"NoncurrentDays": value}
        elif key == "Transitions":
            result["Transitions"] = [
                {_TRANSITION[name]: item for name, item in transition.items()} for transition in value
            ]
        elif key == "NoncurrentVersionTransitions":
            result[key] = [
                {"StorageClass": item["StorageClass"], "NoncurrentDays": item["TransitionInDays"]}
                for item in value
            ]
        else:
            raise ResourceError(f"The local cloud does not support {key} of a bucket's lifecycle rule")
    return result


class BucketPolicy(Type, type="AWS::S3::BucketPolicy", properties="PolicyDocument", immutable="Bucket"):
    """A bucket's policy."""

    def create(self, c: Context, p: Properties) -> None:
        """Put it."""
        c.call("s3", "put_bucket_policy", Bucket=p["Bucket"], Policy=p["PolicyDocument"])
        c.created(p["Bucket"])

    def update(self, c: Context, old: Properties, new: Properties) -> None:
        """Put another."""
        c.call("s3", "put_bucket_policy", Bucket=c.id, Policy=new["PolicyDocument"])

    def delete(self, c: Context, p: Properties) -> None:
        """Delete it."""
        c.call("s3", "delete_bucket_policy", Bucket=c.id)


class Volume(
    Ec2Type,
    type="AWS::EC2::Volume",
    properties="AvailabilityZone Encrypted Iops KmsKeyId Size SnapshotId Tags Throughput VolumeType",
):
    """An EBS volume, which no change makes CloudFormation replace."""

    def create(self, c: Context, p: Properties) -> None:
        """Create it."""
        answer = c.call(
            "ec2",
            "create_volume",
            **{key: value for key, value in p.items() if key != "Tags"},
            TagSpecifications=tag_specifications("volume", p),
        )
        c.created(answer["VolumeId"])

    def update(self, c: Context, old: Properties, new: Properties) -> None:
        """Grow or change it."""
        changed = changes(old, new) - {"Tags"}
        if fixed := sorted(changed & {"AvailabilityZone", "Encrypted", "KmsKeyId", "SnapshotId"}):
            names = ", ".join(fixed)
            raise UpdateRefusedError(f"Update to resource type {self.type} is not supported: {names}")
        if "Size" in changed and int(new["Size"]) < int(old["Size"]):
            raise UpdateRefusedError(f"New size cannot be smaller than existing size {old['Size']} of {c.id}")
        if changed:
            c.call("ec2", "modify_volume", VolumeId=c.id, **{key: new.get(key) for key in changed})
        self.retag(c, old, new)

    def delete(self, c: Context, p: Properties) -> None:
        """Delete it."""
        c.call("ec2", "delete_volume", VolumeId=c.id)

    def attributes(self, c: Context, p: Properties) -> dict[str, Any]:
        """What ``Fn::GetAtt`` gives."""
        return {"VolumeId": c.id}


class LifecyclePolicy(
    Type,
    type="AWS::DLM::LifecyclePolicy",
    properties="Description ExecutionRoleArn PolicyDetails State Tags",
):
    """A schedule of snapshots: kept as a record, for nothing here takes snapshots."""

    def create(self, c: Context, p: Properties) -> None:
        """Note it."""
        c.created(f"policy-0{uuid.uuid4().hex[:16]}")

    def update(self, c: Context, old: Properties, new: Properties) -> None:
        """Note what changed."""

    def delete(self, c: Context, p: Properties) -> None:
        """Forget it."""

    def attributes(self, c: Context, p: Properties) -> dict[str, Any]:
        """What ``Fn::GetAtt`` gives."""
        return {"Arn": f"arn:aws:dlm:{c.world.region}:{c.world.account}:policy/{c.id}"}
