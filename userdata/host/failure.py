"""The event that tells why a host failed. The stacks allow and log it by these names."""

from __future__ import annotations

import json

from userdata.host.document import Document

# EventBridge's detail type.
KIND = "openQA host failed"


def source(environment: str) -> str:
    """Returns the source of an environment's events."""
    return f"openqa.{environment}"


def event(document: Document, *, instance: str, reason: str) -> dict[str, str]:
    """Returns the event, for EventBridge's default bus.

    Args:
        document: the host document.
        instance: the instance's ID.
        reason: why the host failed.
    """
    detail = {
        "environment": document.environment,
        "group": document.group,
        "instance": instance,
        "reason": reason,
    }
    return {"Source": source(document.environment), "DetailType": KIND, "Detail": json.dumps(detail)}
