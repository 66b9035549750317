"""moto's S3 without its own reading of bucket policies, which ignores their conditions."""

from __future__ import annotations

from typing import Any

from moto.iam.access_control import PermissionResult
from moto.s3.models import FakeBucket


def _neutral(self: FakeBucket, action: str, resource: str) -> Any:
    return PermissionResult.NEUTRAL


def install() -> None:
    """Leave bucket policies to :mod:`localcloud.aws.iam`."""
    FakeBucket.get_permission = _neutral  # type: ignore[method-assign]
