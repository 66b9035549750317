"""What CloudFormation remembers: stacks, their resources, change sets and events."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from typing import Any


@dataclass(kw_only=True)
class Resource:
    """A resource of a stack.

    Attributes:
        definition: The resource in the template.
        properties: Its properties with all functions worked out, as last applied.
        attributes: What ``Fn::GetAtt`` finds.
        signals: What SignalResource reported since the last creation or update began: unique id to status.
    """

    logical_id: str
    type: str
    definition: dict[str, Any]
    properties: dict[str, Any] = field(default_factory=dict)
    physical_id: str | None = None
    attributes: dict[str, Any] = field(default_factory=dict)
    status: str = ""
    reason: str | None = None
    updated: datetime | None = None
    signals: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Event:
    """What happened to a stack or one of its resources."""

    id: str
    time: datetime
    logical_id: str
    physical_id: str | None
    type: str
    status: str
    reason: str | None
    token: str | None


@dataclass(frozen=True, kw_only=True)
class Source:
    """What a stack is, or is to be, made of.

    Attributes:
        body: The template as it was sent.
        template: The same, read.
        given: The parameters' values as they were given.
        parameters: The parameters' values, SSM parameters looked up.
    """

    body: str
    template: dict[str, Any]
    given: dict[str, str]
    parameters: dict[str, Any]
    tags: dict[str, str]
    capabilities: tuple[str, ...]


@dataclass(kw_only=True)
class ChangeSet:
    """A change that is prepared."""

    id: str
    name: str
    kind: str  # CREATE or UPDATE
    description: str | None
    created: datetime
    source: Source
    changes: list[dict[str, Any]]
    status: str
    reason: str | None
    execution: str


@dataclass(kw_only=True)
class Stack:
    """A stack.

    Attributes:
        source: What was last applied completely; None before the first creation.
        imports: The exports of other stacks that it uses.
    """

    id: str
    name: str
    created: datetime
    status: str
    reason: str | None = None
    updated: datetime | None = None
    deleted: datetime | None = None
    source: Source | None = None
    description: str | None = None
    role: str | None = None
    protected: bool = False
    disable_rollback: bool = False
    change_set: str | None = None
    resources: dict[str, Resource] = field(default_factory=dict)
    events: list[Event] = field(default_factory=list)
    change_sets: dict[str, ChangeSet] = field(default_factory=dict)
    outputs: list[dict[str, Any]] = field(default_factory=list)
    imports: set[str] = field(default_factory=set)
    token: str | None = None

    @property
    def exports(self) -> dict[str, str]:
        """Export name to value."""
        return {o["ExportName"]: o["OutputValue"] for o in self.outputs if "ExportName" in o}

    @property
    def busy(self) -> bool:
        """An operation is running."""
        return self.status.endswith("_IN_PROGRESS") and self.status != "REVIEW_IN_PROGRESS"
