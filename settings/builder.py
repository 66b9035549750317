"""Builders of disk images: hosts that exist only while they build."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import AfterValidator, Field

from settings.fields import (
    Architecture,
    Days,
    Gib,
    ImageName,
    InstanceTypes,
    OperatingSystem,
    Settings,
    Text,
    WebAddress,
)

# What the fields of a cron expression count: minutes, hours, days, months, days of the week.
_RANGES = ((0, 59), (0, 23), (1, 31), (1, 12), (0, 7))
_NUMBERS = "[0-9]{1,2}(?:-[0-9]{1,2})?"
_CRON = " ".join([rf"(?:\*(?:/[0-9]{{1,2}})?|{_NUMBERS}(?:,{_NUMBERS})*)"] * len(_RANGES))
_DAYS = {2: 29, 4: 30, 6: 30, 9: 30, 11: 30}  # of months without a 31st


def _comes(cron: str | None) -> str | None:
    """Refuse numbers out of range, and days that no month has, for which Auto Scaling would wait for ever."""
    if cron is not None:
        fields = cron.split()
        numbers = [_numbers(field, *span) for field, span in zip(fields, _RANGES, strict=True)]
        longest = max(_DAYS.get(month, 31) for month in numbers[3])
        # Named days of the week are added to those of the month.
        if fields[4].startswith("*") and min(numbers[2]) > longest:
            raise ValueError
    return cron


def _numbers(field: str, least: int, most: int) -> list[int]:
    found: list[int] = []
    for part in field.split(","):
        span, _, step = part.partition("/")
        first, _, last = (f"{least}-{most}" if span == "*" else span).partition("-")
        if not (least <= int(first) <= int(last or first) <= most and 1 <= int(step or 1) <= most):
            raise ValueError
        found += range(int(first), int(last or first) + 1, int(step or 1))
    return found


class Builder(Settings):
    """A host that builds an architecture's disk images, then goes: an Auto Scaling group of 0 or 1."""

    architecture: Architecture
    instance_types: InstanceTypes
    virtualization: Literal["metal", "nested", "none"]
    # None: that of the other hosts. createhdds needs Fedora, whatever the others run.
    os: OperatingSystem | None = None
    image: Annotated[str | None, ImageName] = None
    # createhdds: Fedora's program, from git. sample: a script of ours that makes two small images.
    program: Literal["createhdds", "sample"]
    git: Annotated[str | None, WebAddress] = None
    ref: Annotated[str | None, Text] = None  # a branch, a tag or a commit
    # None: only by hand
    schedule: Annotated[
        str | None,
        Field(
            pattern=f"^{_CRON}$",
            description="five fields of numbers as in crontab, in UTC, for days that some month has, such as "
            '"30 3 * * 6"',
        ),
        AfterValidator(_comes),
    ] = None
    hours: Annotated[
        int, Field(ge=1, le=47, description="a whole number of hours from 1 to 47 that a run may take")
    ] = 12
    # When the newest images are older, an alarm rings.
    overdue_days: Annotated[int, Days] = 8
    volume_gib: Annotated[int, Gib] = 200

    @property
    def kvm(self) -> bool:
        """Whether its host must have KVM."""
        return self.virtualization != "none"
