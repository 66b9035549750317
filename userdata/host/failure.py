"""The event that tells why a host failed. The stacks let hosts send it, and log it, by these names."""

from __future__ import annotations

import json

from userdata.host.document import Document

# EventBridge's name for what kind of event it is.
KIND = "openQA host failed"


def source(environment: str) -> str:
    """Returns whose events they are: an environment's, by its name."""
    return f"openqa.{environment}"


def event(document: Document, *, instance: str, reason: str) -> dict[str, str]:
    """Returns the event, for EventBridge's default bus.

    Args:
        document: the host document.
        instance: the instance's id.
        reason: why the host failed.
    """
    detail = {
        "environment": document.environment,
        "group": document.group,
        "instance": instance,
        "reason": reason,
    }
    return {"Source": source(document.environment), "DetailType": KIND, "Detail": json.dumps(detail)}
