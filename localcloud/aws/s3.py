"""moto's S3 without its own reading of bucket policies, which ignores conditions and asks for too much."""

from __future__ import annotations

from typing import Any

from moto.iam.access_control import PermissionResult
from moto.s3.models import FakeBucket, S3Backend

from localcloud.aws.iam import Need, judge, read

# The service that delivers access logs.
_LOGGING = "logging.s3.amazonaws.com"
_deliver = S3Backend.log_incoming_request


def _neutral(self: FakeBucket, action: str, resource: str) -> Any:
    return PermissionResult.NEUTRAL


def _permitted(self: FakeBucket, *, target_bucket: FakeBucket, target_prefix: str | None) -> bool:
    return True


def _log(self: S3Backend, request: Any, bucket_name: str) -> None:
    """Deliver an access log, if the target's policy lets S3 do so."""
    bucket = self.buckets.get(bucket_name)
    target = self.buckets.get(bucket.logging.get("TargetBucket", "")) if bucket else None
    if bucket is None or target is None or not target.policy:
        return
    need = Need(
        action="s3:PutObject",
        resource=f"{target.arn}/{bucket.logging.get('TargetPrefix', '')}log",
        context={
            "aws:securetransport": ["true"],
            "aws:sourceaccount": [self.account_id],
            "aws:sourcearn": [bucket.arn],
        },
    )
    if judge([read(target.policy.decode())], need, principal=_LOGGING) == "allowed":
        _deliver(self, request, bucket_name)


def install() -> None:
    """Leave bucket policies to :mod:`localcloud.aws.iam`."""
    FakeBucket.get_permission = _neutral  # type: ignore[method-assign]
    # S3 itself accepts a log target whose policy is added only afterwards.
    FakeBucket._log_permissions_enabled_policy = _permitted  # type: ignore[method-assign,assignment]
    S3Backend.log_incoming_request = _log  # type: ignore[method-assign]
