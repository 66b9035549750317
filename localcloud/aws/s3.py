"""moto's S3 without its own reading of bucket policies, which ignores conditions and asks for too much."""

from __future__ import annotations

from typing import Any

from moto.iam.access_control import PermissionResult
from moto.s3.models import FakeBucket


def _neutral(self: FakeBucket, action: str, resource: str) -> Any:
    return PermissionResult.NEUTRAL


def _permitted(self: FakeBucket, *, target_bucket: FakeBucket, target_prefix: str | None) -> bool:
    return True


def install() -> None:
    """Leave bucket policies to :mod:`localcloud.aws.iam`."""
    FakeBucket.get_permission = _neutral  # type: ignore[method-assign]
    # S3 itself accepts a log target whose policy is added only afterwards.
    FakeBucket._log_permissions_enabled_policy = _permitted  # type: ignore[method-assign,assignment]
