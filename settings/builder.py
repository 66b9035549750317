"""Builders of disk images: hosts that exist only while they build."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from settings.fields import Architecture, Days, Gib, InstanceTypes, Settings, Text, WebAddress

_MINUTES, _HOURS, _DAYS, _MONTHS, _WEEKDAYS = (
    "[0-5]?[0-9]",
    "(?:1?[0-9]|2[0-3])",
    "(?:[1-9]|[12][0-9]|3[01])",
    "(?:[1-9]|1[0-2])",
    "[0-7]",
)
_CRON = " ".join(
    rf"(?:\*(?:/[1-9][0-9]?)?|{one}(?:-{one})?(?:,{one}(?:-{one})?)*)"
    for one in (_MINUTES, _HOURS, _DAYS, _MONTHS, _WEEKDAYS)
)


class Builder(Settings):
    """A host that builds an architecture's disk images and goes away: an Auto Scaling group of 0 or 1."""

    architecture: Architecture
    instance_types: InstanceTypes
    virtualization: Literal["metal", "nested", "none"]
    # createhdds: Fedora's program, from git. sample: a script of ours that makes two small images.
    program: Literal["createhdds", "sample"]
    git: Annotated[str | None, WebAddress] = None
    ref: Annotated[str | None, Text] = None  # a branch, a tag or a commit
    # None: by hand alone
    schedule: Annotated[
        str | None,
        Field(
            pattern=f"^{_CRON}$",
            description='five fields of numbers as crontab has them, in UTC, such as "30 3 * * 6"',
        ),
    ] = None
    hours: Annotated[
        int, Field(ge=1, le=47, description="a whole number of hours from 1 to 47 that a run may take")
    ] = 12
    # Older than that, nobody has looked after the images: an alarm says so.
    overdue_days: Annotated[int, Days] = 8
    volume_gib: Annotated[int, Gib] = 200

    @property
    def kvm(self) -> bool:
        """Whether its host must have KVM."""
        return self.virtualization != "none"
