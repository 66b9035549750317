"""What a resource type is: a small class that creates, updates and deletes by the service's own API."""

from __future__ import annotations

import json
import re
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, ClassVar

from localcloud.aws.cloudformation.model import Resource, Stack
from localcloud.aws.world import World

Properties = dict[str, Any]


class ResourceError(Exception):
    """A resource that could not be made as the template says; the message becomes the event's reason."""


class UpdateRefusedError(ResourceError):
    """A resource that cannot be changed so: nothing was changed, and a roll-back has nothing to undo."""


@dataclass(kw_only=True)
class Context:
    """What a resource type works with.

    Attributes:
        progress: Adds an event with a reason to the resource, its status unchanged.
        policies: The resource's ``CreationPolicy`` or ``UpdatePolicy``, functions worked out.
    """

    world: World
    stack: Stack
    resource: Resource
    progress: Callable[[str], None]
    policies: Mapping[str, Any]

    @property
    def id(self) -> str:
        """The physical id."""
        if self.resource.physical_id is None:
            raise ResourceError(f"{self.resource.logical_id} does not exist")
        return self.resource.physical_id

    def created(self, physical_id: str) -> None:
        """To be called as soon as the resource exists, so that a later failure deletes it."""
        self.resource.physical_id = physical_id
        self.progress("Resource creation Initiated")

    def call(self, service: str, operation: str, **parameters: Any) -> dict[str, Any]:
        """Call the embedded AWS.

        Args:
            service: boto3's name of the service.
            operation: The method's name, in snake case.
            parameters: As boto3 has them, but texts may stand for numbers and booleans, as they do in
                templates, and None is left out.

        Returns:
            boto3's answer.
        """
        client = self.world.client(service)
        method = client.meta.method_to_api_mapping[operation]
        shape = client.meta.service_model.operation_model(method).input_shape
        answer: dict[str, Any] = getattr(client, operation)(**(fit(parameters, shape) if shape else {}))
        return answer

    def name(self, limit: int, *, lower: bool = False) -> str:
        """A unique name for a resource that the template does not name."""
        suffix = uuid.uuid4().hex[:12].upper()
        room = limit - len(suffix) - 2
        logical = self.resource.logical_id[: max(room // 2, room - len(self.stack.name))]
        stack = self.stack.name[: room - len(logical)].strip("-")
        name = f"{stack}-{logical}-{suffix}"
        return name.lower() if lower else name

    def wait(self, done: Callable[[], bool], timeout: timedelta | None = None) -> bool:
        """Let other threads work until a condition holds.

        Args:
            done: Tells whether it holds.
            timeout: How long to wait at most, by the world's clock.

        Returns:
            Whether it held in time.
        """
        start = self.world.clock()
        while not done():
            if timeout is not None and self.world.clock() - start >= timeout:
                return False
            self.world.changed.wait(0.5)
        return True


def fit(value: Any, shape: Any) -> Any:
    """Turn a template's value into the type that the API wants."""
    kind = shape.type_name
    if kind == "structure" and isinstance(value, dict):
        members = shape.members
        return {k: fit(v, members[k]) if k in members else v for k, v in value.items() if v is not None}
    if kind == "list" and isinstance(value, list):
        return [fit(item, shape.member) for item in value]
    if kind == "map" and isinstance(value, dict):
        return {key: fit(item, shape.value) for key, item in value.items()}
    if kind in ("integer", "long") and isinstance(value, str):
        return int(value)
    if kind in ("float", "double") and isinstance(value, str):
        return float(value)
    if kind == "boolean" and isinstance(value, str):
        return {"true": True, "false": False}.get(value.lower(), value)
    if kind == "string" and isinstance(value, bool):
        return str(value).lower()
    if kind == "string" and isinstance(value, int | float):
        return str(value)
    if kind == "string" and isinstance(value, dict | list):
        return json.dumps(value)
    return value


class Type:
    """A resource type.

    A subclass states its properties; a property that it does not state is refused, one that is
    ``immutable`` replaces the resource when it changes.
    """

    types: ClassVar[dict[str, Type]] = {}
    type: ClassVar[str]
    properties: ClassVar[frozenset[str]]
    immutable: ClassVar[frozenset[str]]

    def __init_subclass__(cls, *, type: str = "", properties: str = "", immutable: str = "") -> None:
        if type:
            cls.type = type
            cls.immutable = frozenset(immutable.split())
            cls.properties = frozenset(properties.split()) | cls.immutable
            Type.types[type] = cls()

    def create(self, c: Context, p: Properties) -> None:
        """Create the resource and tell its id by ``c.created``."""
        raise NotImplementedError

    def update(self, c: Context, old: Properties, new: Properties) -> None:
        """Change the resource in place; by default, only its tags can change."""
        if changed := changes(old, new) - {"Tags"}:
            raise UpdateRefusedError(
                f"The local cloud cannot change {', '.join(sorted(changed))} of {self.type} in place"
            )
        self.retag(c, old, new)

    def retag(self, c: Context, old: Properties, new: Properties) -> None:
        """Replace the tags."""
        raise UpdateRefusedError(f"The local cloud cannot change the tags of {self.type} in place")

    def delete(self, c: Context, p: Properties) -> None:
        """Delete the resource."""
        raise NotImplementedError

    def ref(self, physical_id: str) -> str:
        """What ``Ref`` gives."""
        return physical_id

    def attributes(self, c: Context, p: Properties) -> dict[str, Any]:
        """What ``Fn::GetAtt`` gives, asked after creation and every update."""
        return {}

    def tagged(self, p: Properties, more: dict[str, str]) -> Properties:
        """The properties with the stack's tags added, which the resource's own override."""
        if "Tags" not in self.properties:
            return p
        own = {tag["Key"]: tag["Value"] for tag in p.get("Tags", [])}
        return {**p, "Tags": [{"Key": key, "Value": value} for key, value in {**more, **own}.items()]}

    def refused(self, p: Properties) -> str | None:
        """Why these properties are not supported here; None if they are."""
        if unknown := sorted(p.keys() - self.properties):
            return f"The local cloud does not support {', '.join(unknown)} of {self.type}"
        return None


def changes(old: Properties, new: Properties) -> set[str]:
    """The names of the properties that differ."""
    return {name for name in old.keys() | new.keys() if old.get(name) != new.get(name)}


def tags(p: Properties, *, own: bool = False) -> list[dict[str, str]]:
    """The tags of a resource.

    Args:
        p: The resource's properties.
        own: Without CloudFormation's, for services that accept none that begin with ``aws:``.
    """
    return [tag for tag in p.get("Tags", []) if not (own and tag["Key"].startswith("aws:"))]


def tag_specifications(kind: str, p: Properties) -> list[dict[str, Any]] | None:
    """The tags as EC2's calls that create something take them."""
    return [{"ResourceType": kind, "Tags": tags(p)}] if tags(p) else None


def duration(text: str) -> timedelta:
    """Read an ISO 8601 duration of hours, minutes and seconds, such as PT15M.

    Raises:
        ResourceError: It is not a duration.
    """
    match = re.fullmatch(r"PT(?:(\d+)H)?(?:(\d+)M)?(?:(\d+)S)?", text)
    if not match or not any(match.groups()):
        raise ResourceError(f"{text!r} is not a duration such as PT15M")
    hours, minutes, seconds = (int(group or 0) for group in match.groups())
    return timedelta(hours=hours, minutes=minutes, seconds=seconds)
