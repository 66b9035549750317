"""moto's Parameter Store, with AWS's limit on the length of values: longer ones need a paid tier."""

from __future__ import annotations

from typing import Any

from moto.ssm.models import SimpleSystemManagerBackend

from localcloud.aws.service import Refusal

# In bytes, by tier. The Systems Manager user guide, "Managing parameter tiers".
_LONGEST = {"Standard": 4096, "Advanced": 8192, "Intelligent-Tiering": 8192}

_original = SimpleSystemManagerBackend.put_parameter


def _put_parameter(
    self: SimpleSystemManagerBackend, name: str, description: str, value: str, *rest: Any, **more: Any
) -> Any:
    tier = more.get("tier") or "Standard"
    if len(value.encode()) > _LONGEST[tier]:
        raise Refusal(
            "ValidationException",
            f"{tier} tier parameters support a maximum parameter value of {_LONGEST[tier]} characters.",
        )
    return _original(self, name, description, value, *rest, **more)


def install() -> None:
    """Add this limit to moto's parameters, which may be of any length."""
    SimpleSystemManagerBackend.put_parameter = _put_parameter  # type: ignore[method-assign]
