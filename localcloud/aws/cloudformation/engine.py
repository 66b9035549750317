"""Runs the operations on stacks: create, update, delete, each with its roll-back."""

from __future__ import annotations

import json
import logging
import re
import uuid
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from botocore.exceptions import BotoCoreError, ClientError

from localcloud.aws.cloudformation import template as templates
from localcloud.aws.cloudformation.model import Event, Resource, Source, Stack
from localcloud.aws.cloudformation.template import Scope, TemplateError
from localcloud.aws.cloudformation.types import Context, ResourceError, Type, UpdateRefusedError
from localcloud.aws.world import World

_LOG = logging.getLogger(__name__)
_DYNAMIC = re.compile(r"\{\{resolve:(ssm|secretsmanager):([^}]+)\}\}")
_GONE = re.compile(r"NotFound|NoSuch|NonExist|does not exist")
_ZONES = "abcdef"
_EXPECTED = (ResourceError, TemplateError, ClientError, BotoCoreError, NotImplementedError, KeyError)


class OperationError(Exception):
    """An operation that cannot go on; the message is the stack's reason."""


class Engine:
    """All stacks of the region, and the operations on them."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.stacks: dict[str, Stack] = {}  # by id

    # -- what other stacks export

    def exports(self) -> dict[str, tuple[Stack, str]]:
        """Export name to the stack that exports it, and the value."""
        return {
            name: (stack, value)
            for stack in self.stacks.values()
            if stack.deleted is None
            for name, value in stack.exports.items()
        }

    def importers(self, export: str) -> list[str]:
        """The names of the stacks that use an export."""
        return [s.name for s in self.stacks.values() if s.deleted is None and export in s.imports]

    # -- scope

    def condition(self, source: Source, stack: Stack) -> Callable[[str], bool]:
        """A function that tells whether a condition of the template holds."""

        def no_resource(name: str, *_: str) -> Any:
            raise TemplateError(f"Template error: a condition cannot refer to the resource {name}")

        def holds(name: str) -> bool:
            definitions = source.template.get("Conditions", {})
            if name not in definitions:
                raise TemplateError(f"Template error: unresolved condition {name}")
            return bool(templates.resolve(definitions[name], scope))

        scope = self._scope(source, stack, no_resource, no_resource, holds, set())
        return holds

    def wanted(self, source: Source, stack: Stack) -> dict[str, Any]:
        """The resources whose conditions hold, by logical id, in the order of their creation."""
        holds = self.condition(source, stack)
        resources = {
            name: resource
            for name, resource in source.template["Resources"].items()
            if "Condition" not in resource or holds(resource["Condition"])
        }
        return {name: resources[name] for name in templates.creation_order(resources)}

    def check_rules(self, source: Source, stack: Stack) -> None:
        """Evaluate the template's Rules section.

        Raises:
            TemplateError: An assertion does not hold.
        """

        def nothing(name: str, *_: str) -> Any:
            raise TemplateError(f"Template error: a rule cannot refer to {name}")

        scope = self._scope(source, stack, nothing, nothing, self.condition(source, stack), set())
        for rule in source.template.get("Rules", {}).values():
            if not templates.resolve(rule.get("RuleCondition", True), scope):
                continue
            for assertion in rule.get("Assertions", []):
                if not templates.resolve(assertion["Assert"], scope):
                    raise TemplateError(assertion.get("AssertDescription", "An assertion of Rules failed"))

    def _scope(
        self,
        source: Source,
        stack: Stack,
        ref: Callable[[str], Any],
        attribute: Callable[[str, str], Any],
        condition: Callable[[str], bool],
        imports: set[str],
    ) -> Scope:
        pseudo = {
            "AWS::AccountId": self.world.account,
            "AWS::NotificationARNs": [],
            "AWS::Partition": "aws",
            "AWS::Region": self.world.region,
            "AWS::StackId": stack.id,
            "AWS::StackName": stack.name,
            "AWS::URLSuffix": "amazonaws.com",
        }

        def lookup(name: str) -> Any:
            if name in pseudo:
                return pseudo[name]
            return source.parameters[name] if name in source.parameters else ref(name)

        def imported(name: str) -> str:
            exports = self.exports()
            if name not in exports:
                raise TemplateError(f"No export named {name} found.")
            imports.add(name)
            return exports[name][1]

        return Scope(
            mappings=source.template.get("Mappings", {}),
            ref=lookup,
            attribute=attribute,
            condition=condition,
            imported=imported,
            zones=tuple(f"{self.world.region}{letter}" for letter in _ZONES),
        )

    def scope(self, source: Source, stack: Stack, imports: set[str]) -> Scope:
        """What the resources and outputs of a template refer to."""

        def existing(name: str) -> Resource:
            resource = stack.resources.get(name)
            if resource is None or resource.physical_id is None:
                raise TemplateError(f"Template error: resource {name} does not exist")
            return resource

        def ref(name: str) -> Any:
            resource = existing(name)
            return Type.types[resource.type].ref(str(resource.physical_id))

        def attribute(name: str, key: str) -> Any:
            resource = existing(name)
            if key not in resource.attributes:
                raise TemplateError(f"Attribute {key} of {resource.type} is not supported by the local cloud")
            return resource.attributes[key]

        return self._scope(source, stack, ref, attribute, self.condition(source, stack), imports)

    def properties(self, definition: dict[str, Any], stack: Stack, scope: Scope, source: Source) -> Any:
        """A resource's properties with functions and dynamic references worked out, and all its tags."""
        resolved = templates.resolve(definition.get("Properties", {}), scope)
        return self._dynamic(resolved)

    def _dynamic(self, value: Any) -> Any:
        if isinstance(value, dict):
            return {key: self._dynamic(item) for key, item in value.items()}
        if isinstance(value, list):
            return [self._dynamic(item) for item in value]
        return _DYNAMIC.sub(self._dynamic_reference, value) if isinstance(value, str) else value

    def _dynamic_reference(self, match: re.Match[str]) -> str:
        service, reference = match[1], match[2]
        if service == "ssm":
            return str(self.world.client("ssm").get_parameter(Name=reference)["Parameter"]["Value"])
        # An ARN holds six colons itself.
        count = 7 if reference.startswith("arn:") else 1
        parts = reference.split(":")
        identifier, rest = ":".join(parts[:count]), parts[count:]
        secret = self.world.client("secretsmanager").get_secret_value(SecretId=identifier)["SecretString"]
        key = rest[1] if len(rest) > 1 else ""
        return str(json.loads(secret)[key] if key else secret)

    # -- operations

    def start(self, stack: Stack, operation: Callable[[], None]) -> None:
        """Run an operation in a thread of its own, which holds the world's lock except while it waits."""
        import threading

        def run() -> None:
            with self.world.changed:
                try:
                    operation()
                except Exception as error:  # the stack must not stay in progress for ever
                    _LOG.exception("operation on %s", stack.name)
                    self.event(stack, stack.status.replace("IN_PROGRESS", "FAILED"), reason_of(error))

        threading.Thread(target=run, daemon=True, name=f"stack-{stack.name}").start()

    def event(
        self, stack: Stack, status: str, reason: str | None = None, resource: Resource | None = None
    ) -> None:
        """Set the status of a stack or of one of its resources, and announce it."""
        now = self.world.clock()
        if resource is None:
            stack.status, stack.reason = status, reason
        else:
            resource.status, resource.reason, resource.updated = status, reason, now
        stack.events.append(
            Event(
                id=str(uuid.uuid4()),
                time=now,
                logical_id=resource.logical_id if resource else stack.name,
                physical_id=resource.physical_id if resource else stack.id,
                type=resource.type if resource else "AWS::CloudFormation::Stack",
                status=status,
                reason=reason,
                token=stack.token,
            )
        )
        self.world.touch()
        # Lets other threads look between two resources.
        self.world.changed.wait(0.001)

    def create(self, stack: Stack, source: Source) -> None:
        """Create all resources; on failure, delete what was created."""
        self.event(stack, "CREATE_IN_PROGRESS", "User Initiated")
        run = _Run(self, stack, source)
        try:
            run.apply()
            run.finish()
        except OperationError as failure:
            stack.source = source
            if stack.disable_rollback:
                self.event(stack, "CREATE_FAILED", str(failure))
                return
            self.event(stack, "ROLLBACK_IN_PROGRESS", f"{failure} Rollback requested by user.")
            failed = run.remove(list(run.attempted)[::-1], retain=("Retain",))
            self.event(stack, "ROLLBACK_FAILED" if failed else "ROLLBACK_COMPLETE", failed)
            return
        self.event(stack, "CREATE_COMPLETE")

    def update(self, stack: Stack, source: Source) -> None:
        """Apply a new template; on failure, go back to the old one."""
        before = stack.source
        if before is None:
            raise OperationError("The stack was never created")
        stack.updated = self.world.clock()
        self.event(stack, "UPDATE_IN_PROGRESS", "User Initiated")
        run = _Run(self, stack, source)
        try:
            run.apply()
            run.finish()
        except OperationError as failure:
            if stack.disable_rollback:
                self.event(stack, "UPDATE_FAILED", str(failure))
                return
            self.event(stack, "UPDATE_ROLLBACK_IN_PROGRESS", str(failure))
            self._roll_back(stack, before, run)
            return
        self.event(stack, "UPDATE_COMPLETE_CLEANUP_IN_PROGRESS")
        run.clean_up()
        self.event(stack, "UPDATE_COMPLETE")

    def _roll_back(self, stack: Stack, before: Source, failed: _Run) -> None:
        back = _Run(self, stack, before, undo=failed)
        try:
            back.apply()
            back.finish()
        except OperationError as failure:
            self.event(stack, "UPDATE_ROLLBACK_FAILED", str(failure))
            return
        self.event(stack, "UPDATE_ROLLBACK_COMPLETE_CLEANUP_IN_PROGRESS")
        back.clean_up()
        self.event(stack, "UPDATE_ROLLBACK_COMPLETE")

    def delete(self, stack: Stack) -> None:
        """Delete all resources but the retained."""
        self.event(stack, "DELETE_IN_PROGRESS", "User Initiated")
        for export in stack.exports:
            if users := self.importers(export):
                reason = f"Export {export} cannot be deleted as it is in use by {', '.join(users)}"
                self.event(stack, "DELETE_FAILED", reason)
                return
        if stack.source is not None:
            order = templates.creation_order({n: r.definition for n, r in stack.resources.items()})
            run = _Run(self, stack, stack.source)
            if failed := run.remove(order[::-1], retain=("Retain", "RetainExceptOnCreate")):
                self.event(stack, "DELETE_FAILED", failed)
                return
        stack.outputs, stack.imports = [], set()
        stack.deleted = self.world.clock()
        self.event(stack, "DELETE_COMPLETE")


class _Run:
    """One pass of applying a template to a stack, which can be undone by another.

    Args:
        engine: The engine.
        stack: The stack.
        source: What to apply.
        undo: The failed pass that this one undoes: only what that one touched is touched again.
    """

    def __init__(self, engine: Engine, stack: Stack, source: Source, undo: _Run | None = None) -> None:
        self.engine = engine
        self.stack = stack
        self.source = source
        self.undo = undo
        self.imports: set[str] = set()
        self.wanted = engine.wanted(source, stack)
        self.scope = engine.scope(source, stack, self.imports)
        # Logical id to the resource as it was before: None if there was none.
        self.attempted: dict[str, Resource | None] = {}
        self.replaced: list[Resource] = []  # to be deleted at the end

    def apply(self) -> None:
        """Create and update, in the order of dependencies.

        Raises:
            OperationError: A resource failed.
        """
        for name, definition in self.wanted.items():
            current = self.stack.resources.get(name)
            try:
                if self.undo is not None:
                    self._restore(name, definition, current, self.undo)
                elif current is None or current.physical_id is None:
                    self._create(name, definition)
                else:
                    self._update(name, definition, current)
            except Exception as error:  # whatever it is, the stack has to be rolled back
                if not isinstance(error, _EXPECTED):
                    _LOG.exception("%s of %s", name, self.stack.name)
                resource = self.stack.resources[name]
                verb = "CREATE" if self.attempted.get(name) is None else "UPDATE"
                self.engine.event(self.stack, f"{verb}_FAILED", reason_of(error), resource)
                what = "create" if verb == "CREATE" else "update"
                raise OperationError(f"The following resource(s) failed to {what}: [{name}].") from error

    def _restore(self, name: str, definition: dict[str, Any], current: Resource | None, undo: _Run) -> None:
        if current is None:
            return
        before = undo.attempted.get(name)
        if before is None:
            current.definition = definition  # whose policies may have changed
            return
        if current.physical_id != before.physical_id:
            # It was replaced: the old one still exists.
            if current.physical_id is not None:
                self.replaced.append(current)
            self.stack.resources[name] = before
            current = before
        self._update(name, definition, current, force=True)

    def _context(self, resource: Resource, definition: dict[str, Any], verb: str) -> Context:
        kind = "CreationPolicy" if verb == "CREATE" else "UpdatePolicy"
        return Context(
            world=self.engine.world,
            stack=self.stack,
            resource=resource,
            progress=lambda reason: self.engine.event(self.stack, f"{verb}_IN_PROGRESS", reason, resource),
            policies=templates.resolve(definition.get(kind, {}), self.scope) or {},
        )

    def _resolve(self, resource: Resource, definition: dict[str, Any]) -> tuple[Type, dict[str, Any]]:
        kind = Type.types.get(definition["Type"])
        if kind is None:
            raise ResourceError(f"{definition['Type']} is not supported by the local cloud")
        properties = self.engine.properties(definition, self.stack, self.scope, self.source)
        if refusal := kind.refused(properties):
            raise ResourceError(refusal)
        own = {
            "aws:cloudformation:stack-name": self.stack.name,
            "aws:cloudformation:stack-id": self.stack.id,
            "aws:cloudformation:logical-id": resource.logical_id,
        }
        return kind, kind.tagged(properties, {**own, **self.source.tags})

    def _create(self, name: str, definition: dict[str, Any], before: Resource | None = None) -> None:
        resource = Resource(logical_id=name, type=definition["Type"], definition=definition)
        self.stack.resources[name] = resource
        self.attempted[name] = before
        verb = "UPDATE" if before else "CREATE"
        if before:
            reason = "Requested update requires the creation of a new physical resource; hence creating one."
            self.engine.event(self.stack, "UPDATE_IN_PROGRESS", reason, resource)
        else:
            self.engine.event(self.stack, "CREATE_IN_PROGRESS", None, resource)
        kind, properties = self._resolve(resource, definition)
        resource.properties = properties
        context = self._context(resource, definition, verb)
        if before:
            # A replacement counts as creation for its policies.
            context = replace(
                context, policies=templates.resolve(definition.get("CreationPolicy", {}), self.scope) or {}
            )
        kind.create(context, properties)
        resource.attributes = kind.attributes(context, properties)
        self.engine.event(self.stack, f"{verb}_COMPLETE", None, resource)

    def _update(
        self, name: str, definition: dict[str, Any], current: Resource, *, force: bool = False
    ) -> None:
        if current.type != definition["Type"]:
            self.attempted[name] = current
            raise ResourceError("Update of resource type is not permitted.")
        kind, properties = self._resolve(current, definition)
        old = current.properties
        if properties == old and not force:
            current.definition = definition
            return
        changed = {key for key in old.keys() | properties.keys() if old.get(key) != properties.get(key)}
        if changed & kind.immutable:
            self.replaced.append(current)
            self._create(name, definition, before=current)
            return
        self.attempted[name] = replace(current, signals={})
        current.signals = {}
        self.engine.event(self.stack, "UPDATE_IN_PROGRESS", None, current)
        context = self._context(current, definition, "UPDATE")
        previous_definition, current.definition = current.definition, definition
        try:
            if changed:
                # Already set, so that a roll-back knows what it has to undo.
                current.properties = properties
                kind.update(context, old, properties)
        except UpdateRefusedError:
            current.definition, current.properties = previous_definition, old
            raise
        except BaseException:
            current.definition = previous_definition
            raise
        current.attributes = kind.attributes(context, properties)
        self.engine.event(self.stack, "UPDATE_COMPLETE", None, current)

    def finish(self) -> None:
        """Work out the outputs.

        Raises:
            OperationError: An output cannot be worked out, or an export clashes or is in use.
        """
        outputs = []
        try:
            for key, output in self.source.template.get("Outputs", {}).items():
                if "Condition" in output and not self.scope.condition(output["Condition"]):
                    continue
                entry = {"OutputKey": key, "OutputValue": str(templates.resolve(output["Value"], self.scope))}
                if "Description" in output:
                    entry["Description"] = output["Description"]
                if "Export" in output:
                    entry["ExportName"] = templates.resolve(output["Export"]["Name"], self.scope)
                outputs.append(entry)
        except TemplateError as error:
            raise OperationError(str(error)) from error
        self._check_exports({o["ExportName"]: o["OutputValue"] for o in outputs if "ExportName" in o})
        self.stack.outputs = outputs
        self.stack.imports = self.imports
        self.stack.source = self.source
        self.stack.description = self.source.template.get("Description")

    def _check_exports(self, exports: dict[str, str]) -> None:
        others = self.engine.exports()
        for name in exports:
            if name in others and others[name][0] is not self.stack:
                raise OperationError(
                    f"Export with name {name} is already exported by stack {others[name][0].name}."
                )
        for name, value in self.stack.exports.items():
            if exports.get(name) != value and (users := self.engine.importers(name)):
                verb = "updated" if name in exports else "deleted"
                raise OperationError(f"Export {name} cannot be {verb} as it is in use by {', '.join(users)}")

    def clean_up(self) -> None:
        """Delete what the update left over; failures stay as events."""
        for resource in self.replaced:
            self._delete(resource, resource.definition.get("UpdateReplacePolicy", "Delete"))
        gone = {n: r.definition for n, r in self.stack.resources.items() if n not in self.wanted}
        self.remove(templates.creation_order(gone)[::-1], retain=("Retain", "RetainExceptOnCreate"))

    def remove(self, names: list[str], *, retain: tuple[str, ...]) -> str | None:
        """Delete resources; return the reason if some could not be deleted."""
        failed = []
        for name in names:
            resource = self.stack.resources.get(name)
            if resource is None:
                continue
            policy = resource.definition.get("DeletionPolicy", "Delete")
            if self._delete(resource, "Retain" if policy in retain else "Delete"):
                del self.stack.resources[name]
            else:
                failed.append(name)
        return f"The following resource(s) failed to delete: [{', '.join(failed)}]." if failed else None

    def _delete(self, resource: Resource, policy: str) -> bool:
        if resource.physical_id is None:
            return True
        if policy != "Delete":
            self.engine.event(self.stack, "DELETE_SKIPPED", None, resource)
            return True
        self.engine.event(self.stack, "DELETE_IN_PROGRESS", None, resource)
        context = self._context(resource, {}, "DELETE")
        try:
            Type.types[resource.type].delete(context, resource.properties)
        except Exception as error:  # whatever it is, the stack is not deleted
            if not isinstance(error, _EXPECTED):
                _LOG.exception("%s of %s", resource.logical_id, self.stack.name)
            if not (isinstance(error, ClientError) and _GONE.search(str(error))):
                self.engine.event(self.stack, "DELETE_FAILED", reason_of(error), resource)
                return False
        self.engine.event(self.stack, "DELETE_COMPLETE", None, resource)
        return True


def reason_of(error: BaseException) -> str:
    """An error as an event's reason."""
    if isinstance(error, ClientError):
        details = error.response["Error"]
        return f"{details.get('Message')} (Operation: {error.operation_name}; Code: {details.get('Code')})"
    if isinstance(error, KeyError):
        return f"Property {error} is missing"
    return str(error) or type(error).__name__
