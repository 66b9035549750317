"""The CloudFormation API: what the CDK CLI, instances and operators call."""

from __future__ import annotations

import hashlib
import json
import re
import time
import uuid
from collections.abc import Callable
from typing import Any
from urllib.parse import unquote, urlparse

from botocore.exceptions import ClientError

from localcloud.aws.cloudformation import template as templates
from localcloud.aws.cloudformation.engine import Engine
from localcloud.aws.cloudformation.model import ChangeSet, Event, Resource, Source, Stack
from localcloud.aws.cloudformation.template import TemplateError
from localcloud.aws.service import Refusal
from localcloud.aws.world import World

_NO_CHANGES = (
    "The submitted information didn't contain changes. Submit different information to create a change set."
)
_SSM = re.compile(r"AWS::SSM::Parameter::Value<(.+)>")
_UPDATABLE = {
    "CREATE_COMPLETE",
    "UPDATE_COMPLETE",
    "UPDATE_ROLLBACK_COMPLETE",
    "UPDATE_FAILED",
}
_PATIENCE = 4.0  # seconds
Parameters = dict[str, Any]


def _invalid(message: str) -> Refusal:
    return Refusal("ValidationError", message)


class CloudFormation:
    """One method per action; parameters and answers as boto3 has them."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.engine = Engine(world)

    # -- finding

    def _find(self, name: str) -> Stack:
        stack = self.engine.stacks.get(name) or next(
            (s for s in self.engine.stacks.values() if s.name == name and s.deleted is None), None
        )
        if stack is None:
            raise _invalid(f"Stack with id {name} does not exist")
        return stack

    def _idle(self, stack: Stack) -> Stack:
        if stack.busy:
            raise _invalid(f"Stack:{stack.id} is in {stack.status} state and can not be updated.")
        return stack

    def _change_set(self, p: Parameters) -> tuple[Stack, ChangeSet]:
        wanted = p["ChangeSetName"]
        stacks = [self._find(p["StackName"])] if p.get("StackName") else self.engine.stacks.values()
        for stack in stacks:
            for change_set in stack.change_sets.values():
                if wanted in (change_set.name, change_set.id):
                    return stack, change_set
        raise Refusal("ChangeSetNotFound", f"ChangeSet [{wanted}] does not exist")

    # -- reading what was sent

    def _body(self, p: Parameters, stack: Stack | None) -> str:
        if p.get("UsePreviousTemplate"):
            if stack is None or stack.source is None:
                raise _invalid("There is no previous template")
            return stack.source.body
        if p.get("TemplateBody"):
            return str(p["TemplateBody"])
        if not p.get("TemplateURL"):
            raise _invalid("Either Template URL or Template Body must be specified.")
        bucket, key = _s3_location(p["TemplateURL"])
        try:
            answer = self.world.client("s3").get_object(Bucket=bucket, Key=key)
        except ClientError as error:
            raise _invalid(f"S3 error: {error.response['Error'].get('Message')}") from error
        return str(answer["Body"].read().decode())

    def _source(self, p: Parameters, stack: Stack) -> Source:
        body = self._body(p, stack)
        before = stack.source
        try:
            template = templates.parse(body)
            given = _given(template, p.get("Parameters", []), before)
            values = {
                name: self._parameter(name, definition, given[name])
                for name, definition in template.get("Parameters", {}).items()
            }
            if p.get("Tags") is None and before is not None:
                tags = before.tags
            else:
                tags = {tag["Key"]: tag["Value"] for tag in p.get("Tags") or []}
            source = Source(
                body=body,
                template=template,
                given=given,
                parameters=values,
                tags=tags,
                capabilities=tuple(p.get("Capabilities", [])),
            )
            self.engine.check_rules(source, stack)
            wanted = self.engine.wanted(source, stack)
        except TemplateError as error:
            raise _invalid(str(error)) from error
        named = any(
            definition["Type"] in ("AWS::IAM::Role", "AWS::IAM::ManagedPolicy", "AWS::IAM::InstanceProfile")
            for definition in wanted.values()
        )
        if named and not {"CAPABILITY_IAM", "CAPABILITY_NAMED_IAM"} & set(source.capabilities):
            raise Refusal(
                "InsufficientCapabilitiesException", "Requires capabilities : [CAPABILITY_NAMED_IAM]"
            )
        return source

    def _parameter(self, name: str, definition: dict[str, Any], value: str) -> Any:
        kind = definition["Type"]
        if match := _SSM.fullmatch(kind):
            try:
                value = self.world.client("ssm").get_parameter(Name=value)["Parameter"]["Value"]
            except ClientError as error:
                raise TemplateError(
                    f"Unable to fetch parameters [{value}] from parameter store for this account."
                ) from error
            kind = match[1]
        if "AllowedValues" in definition and value not in map(str, definition["AllowedValues"]):
            raise TemplateError(f"Parameter '{name}' must be one of AllowedValues")
        if "AllowedPattern" in definition and not re.fullmatch(definition["AllowedPattern"], value):
            raise TemplateError(
                f"Parameter {name} failed to satisfy constraint: {definition['AllowedPattern']}"
            )
        if kind == "CommaDelimitedList" or kind.startswith("List<"):
            return [item.strip() for item in value.split(",")]
        return value

    # -- stacks

    def describe_stacks(self, p: Parameters) -> Parameters:
        """Describe one stack, or all that exist."""
        if p.get("StackName"):
            return {"Stacks": [self._describe(self._find(p["StackName"]))]}
        return {"Stacks": [self._describe(s) for s in self.engine.stacks.values() if s.deleted is None]}

    def _describe(self, stack: Stack) -> Parameters:
        source = stack.source
        return {
            "StackId": stack.id,
            "StackName": stack.name,
            "Description": stack.description,
            "ChangeSetId": stack.change_set,
            "CreationTime": stack.created,
            "LastUpdatedTime": stack.updated,
            "DeletionTime": stack.deleted,
            "StackStatus": stack.status,
            "StackStatusReason": stack.reason,
            "DisableRollback": stack.disable_rollback,
            "EnableTerminationProtection": stack.protected,
            "RoleARN": stack.role,
            "NotificationARNs": [],
            "Capabilities": list(source.capabilities) if source else [],
            "Outputs": stack.outputs,
            "Parameters": _described_parameters(source),
            "Tags": [{"Key": k, "Value": v} for k, v in source.tags.items()] if source else [],
            "DriftInformation": {"StackDriftStatus": "NOT_CHECKED"},
        }

    def list_stacks(self, p: Parameters) -> Parameters:
        """List stacks, including deleted ones."""
        wanted = p.get("StackStatusFilter")
        stacks = [s for s in self.engine.stacks.values() if not wanted or s.status in wanted]
        return {
            "StackSummaries": [
                {
                    "StackId": s.id,
                    "StackName": s.name,
                    "CreationTime": s.created,
                    "LastUpdatedTime": s.updated,
                    "DeletionTime": s.deleted,
                    "StackStatus": s.status,
                    "StackStatusReason": s.reason,
                    "TemplateDescription": s.description,
                }
                for s in stacks
            ]
        }

    def _new(self, name: str, status: str) -> Stack:
        identifier = f"{self._arn('stack')}/{name}/{uuid.uuid4()}"
        stack = Stack(id=identifier, name=name, created=self.world.clock(), status=status)
        self.engine.stacks[identifier] = stack
        return stack

    def _arn(self, kind: str) -> str:
        return f"arn:aws:cloudformation:{self.world.region}:{self.world.account}:{kind}"

    def create_stack(self, p: Parameters) -> Parameters:
        """Create a stack without a change set."""
        if any(s.name == p["StackName"] and s.deleted is None for s in self.engine.stacks.values()):
            raise Refusal("AlreadyExistsException", f"Stack [{p['StackName']}] already exists")
        stack = self._new(p["StackName"], "REVIEW_IN_PROGRESS")
        try:
            source = self._source(p, stack)
        except Refusal:
            del self.engine.stacks[stack.id]
            raise
        on_failure = p.get("OnFailure", "ROLLBACK")
        if on_failure == "DELETE":
            del self.engine.stacks[stack.id]
            raise _invalid("OnFailure DELETE is not supported by the local cloud")
        stack.disable_rollback = bool(p.get("DisableRollback")) or on_failure == "DO_NOTHING"
        stack.protected = bool(p.get("EnableTerminationProtection"))
        self._run(stack, "CREATE_IN_PROGRESS", p, lambda: self.engine.create(stack, source))
        return {"StackId": stack.id}

    def update_stack(self, p: Parameters) -> Parameters:
        """Update a stack without a change set."""
        stack = self._idle(self._find(p["StackName"]))
        if stack.status not in _UPDATABLE:
            raise _invalid(f"Stack:{stack.id} is in {stack.status} state and can not be updated.")
        source = self._source(p, stack)
        if not self._differs(stack, source):
            raise _invalid("No updates are to be performed.")
        stack.disable_rollback = bool(p.get("DisableRollback"))
        self._run(stack, "UPDATE_IN_PROGRESS", p, lambda: self.engine.update(stack, source))
        return {"StackId": stack.id}

    def delete_stack(self, p: Parameters) -> None:
        """Delete a stack; one that does not exist is fine."""
        try:
            stack = self._find(p["StackName"])
        except Refusal:
            return
        if stack.deleted is not None:
            return
        if stack.protected:
            raise _invalid(f"Stack [{stack.name}] cannot be deleted while TerminationProtection is enabled")
        self._idle(stack)
        self._run(stack, "DELETE_IN_PROGRESS", p, lambda: self.engine.delete(stack))

    def _run(self, stack: Stack, status: str, p: Parameters, operation: Callable[[], None]) -> None:
        # Set at once: the caller polls, and must not see the previous state.
        stack.status, stack.token = status, p.get("ClientRequestToken")
        self.engine.start(stack, operation)
        # Most operations are over before the caller, which pauses between polls, would look again.
        deadline = time.monotonic() + _PATIENCE
        while stack.busy and (left := deadline - time.monotonic()) > 0:
            self.world.changed.wait(left)

    def update_termination_protection(self, p: Parameters) -> Parameters:
        """Set or clear the termination protection."""
        stack = self._find(p["StackName"])
        stack.protected = bool(p["EnableTerminationProtection"])
        return {"StackId": stack.id}

    # -- change sets

    def create_change_set(self, p: Parameters) -> Parameters:
        """Prepare a change; if it is to create the stack, that is made now, empty."""
        kind = p.get("ChangeSetType", "UPDATE")
        name = p["StackName"]
        existing = next((s for s in self.engine.stacks.values() if s.name == name and not s.deleted), None)
        if kind == "CREATE":
            if existing is not None and existing.status != "REVIEW_IN_PROGRESS":
                raise _invalid(
                    f"Stack [{name}] already exists and cannot be created again with the changeSet"
                )
            stack = existing or self._new(name, "REVIEW_IN_PROGRESS")
        elif kind == "UPDATE":
            stack = self._idle(self._find(name))
            if stack.status not in _UPDATABLE:
                raise _invalid(f"Stack:{stack.id} is in {stack.status} state and can not be updated.")
        else:
            raise _invalid(f"Change sets of type {kind} are not supported by the local cloud")
        try:
            source = self._source(p, stack)
        except Refusal:
            if existing is None:
                del self.engine.stacks[stack.id]
            raise
        changes = self._changes(stack, source)
        differs = kind == "CREATE" or self._differs(stack, source)
        change_set = ChangeSet(
            id=f"{self._arn('changeSet')}/{p['ChangeSetName']}/{uuid.uuid4()}",
            name=p["ChangeSetName"],
            kind=kind,
            description=p.get("Description"),
            created=self.world.clock(),
            source=source,
            changes=changes,
            status="CREATE_COMPLETE" if differs else "FAILED",
            reason=None if differs else _NO_CHANGES,
            execution="AVAILABLE" if differs else "UNAVAILABLE",
        )
        stack.change_sets[change_set.name] = change_set
        return {"Id": change_set.id, "StackId": stack.id}

    def _differs(self, stack: Stack, source: Source) -> bool:
        before = stack.source
        if before is None:
            return True
        return (
            _essence(before.template) != _essence(source.template)
            or before.parameters != source.parameters
            or before.tags != source.tags
        )

    def _changes(self, stack: Stack, source: Source) -> list[dict[str, Any]]:
        wanted = self.engine.wanted(source, stack)
        before = stack.source
        moved = set()
        if before is not None:
            moved = {n for n, v in source.parameters.items() if before.parameters.get(n) != v}
        changes = []
        for name, definition in wanted.items():
            current = stack.resources.get(name)
            if current is None or current.physical_id is None:
                changes.append(_change("Add", name, definition["Type"], None))
            elif current.definition != definition or templates.references(definition) & moved:
                changes.append(_change("Modify", name, definition["Type"], current.physical_id))
                moved.add(name)
        changes += [
            _change("Remove", name, resource.type, resource.physical_id)
            for name, resource in stack.resources.items()
            if name not in wanted
        ]
        return changes

    def describe_change_set(self, p: Parameters) -> Parameters:
        """Describe a change set."""
        stack, change_set = self._change_set(p)
        return {
            "ChangeSetId": change_set.id,
            "ChangeSetName": change_set.name,
            "StackId": stack.id,
            "StackName": stack.name,
            "Description": change_set.description,
            "Parameters": _described_parameters(change_set.source),
            "CreationTime": change_set.created,
            "ExecutionStatus": change_set.execution,
            "Status": change_set.status,
            "StatusReason": change_set.reason,
            "Capabilities": list(change_set.source.capabilities),
            "Tags": [{"Key": k, "Value": v} for k, v in change_set.source.tags.items()],
            "Changes": change_set.changes,
            "NotificationARNs": [],
        }

    def list_change_sets(self, p: Parameters) -> Parameters:
        """List a stack's change sets."""
        stack = self._find(p["StackName"])
        return {
            "Summaries": [
                {
                    "ChangeSetId": c.id,
                    "ChangeSetName": c.name,
                    "StackId": stack.id,
                    "StackName": stack.name,
                    "Status": c.status,
                    "StatusReason": c.reason,
                    "ExecutionStatus": c.execution,
                    "CreationTime": c.created,
                }
                for c in stack.change_sets.values()
            ]
        }

    def delete_change_set(self, p: Parameters) -> None:
        """Delete a change set; one that does not exist is fine, a stack that does not is not."""
        try:
            stack, change_set = self._change_set(p)
        except Refusal as error:
            if error.code == "ChangeSetNotFound":
                return
            raise
        del stack.change_sets[change_set.name]

    def execute_change_set(self, p: Parameters) -> None:
        """Carry out a prepared change."""
        stack, change_set = self._change_set(p)
        self._idle(stack)
        if change_set.execution != "AVAILABLE":
            raise Refusal(
                "InvalidChangeSetStatus",
                f"ChangeSet [{change_set.id}] cannot be executed in its current status of "
                f"[{change_set.status}]",
            )
        stack.change_sets.clear()
        stack.change_set = change_set.id
        stack.disable_rollback = bool(p.get("DisableRollback"))
        if change_set.kind == "CREATE":
            self._run(stack, "CREATE_IN_PROGRESS", p, lambda: self.engine.create(stack, change_set.source))
        else:
            self._run(stack, "UPDATE_IN_PROGRESS", p, lambda: self.engine.update(stack, change_set.source))

    # -- templates

    def get_template(self, p: Parameters) -> Parameters:
        """The template that was last applied, or that of a change set."""
        if p.get("ChangeSetName"):
            source: Source | None = self._change_set(p)[1].source
        else:
            source = self._find(p["StackName"]).source
        body = source.body if source else "{}"
        return {"TemplateBody": body, "StagesAvailable": ["Original", "Processed"]}

    def get_template_summary(self, p: Parameters) -> Parameters:
        """A template's parameters and resource types."""
        stack = self._find(p["StackName"]) if p.get("StackName") else None
        body = stack.source.body if stack and stack.source else self._body(p, None)
        try:
            template = templates.parse(body)
        except TemplateError as error:
            raise _invalid(str(error)) from error
        kinds = [definition["Type"] for definition in template["Resources"].values()]
        return {
            "Description": template.get("Description"),
            "Parameters": [
                {
                    "ParameterKey": name,
                    "ParameterType": definition["Type"],
                    "DefaultValue": definition.get("Default"),
                    "Description": definition.get("Description"),
                    "NoEcho": bool(definition.get("NoEcho")),
                }
                for name, definition in template.get("Parameters", {}).items()
            ],
            "ResourceTypes": sorted(set(kinds)),
            "Metadata": json.dumps(template["Metadata"]) if "Metadata" in template else None,
            "Version": "2010-09-09",
            "ResourceIdentifierSummaries": [],
        }

    def validate_template(self, p: Parameters) -> Parameters:
        """Check a template's form."""
        summary = self.get_template_summary(p)
        keep = ("ParameterKey", "DefaultValue", "Description", "NoEcho")
        return {
            "Description": summary["Description"],
            "Parameters": [{k: entry[k] for k in keep} for entry in summary["Parameters"]],
        }

    # -- resources, events, exports

    def describe_stack_resources(self, p: Parameters) -> Parameters:
        """Describe a stack's resources."""
        if p.get("PhysicalResourceId"):
            wanted = p["PhysicalResourceId"]
            stack = next(
                (
                    s
                    for s in self.engine.stacks.values()
                    if any(r.physical_id == wanted for r in s.resources.values())
                ),
                None,
            )
            if stack is None:
                raise _invalid(f"Stack for {wanted} does not exist")
        else:
            stack = self._find(p["StackName"])
        logical = p.get("LogicalResourceId")
        resources = [r for r in stack.resources.values() if logical in (None, r.logical_id)]
        return {
            "StackResources": [
                {"StackId": stack.id, "StackName": stack.name, "Timestamp": r.updated, **_described(r)}
                for r in resources
            ]
        }

    def describe_stack_resource(self, p: Parameters) -> Parameters:
        """Describe one resource of a stack."""
        stack = self._find(p["StackName"])
        resource = self._resource(stack, p["LogicalResourceId"])
        return {
            "StackResourceDetail": {
                "StackId": stack.id,
                "StackName": stack.name,
                "LastUpdatedTimestamp": resource.updated,
                "Metadata": json.dumps(resource.definition.get("Metadata", {})),
                **_described(resource),
            }
        }

    def list_stack_resources(self, p: Parameters) -> Parameters:
        """List a stack's resources."""
        stack = self._find(p["StackName"])
        return {
            "StackResourceSummaries": [
                {"LastUpdatedTimestamp": r.updated, **_described(r)} for r in stack.resources.values()
            ]
        }

    def _resource(self, stack: Stack, logical_id: str) -> Resource:
        if logical_id not in stack.resources:
            raise _invalid(f"Resource {logical_id} does not exist for stack {stack.name}")
        return stack.resources[logical_id]

    def describe_stack_events(self, p: Parameters) -> Parameters:
        """A stack's events, the newest first."""
        stack = self._find(p["StackName"])
        size = 100
        start = int(p.get("NextToken") or 0)
        events = stack.events[::-1]
        page = events[start : start + size]
        return {
            "StackEvents": [_described_event(stack, event) for event in page],
            "NextToken": str(start + size) if start + size < len(events) else None,
        }

    def list_exports(self, p: Parameters) -> Parameters:
        """All exports of all stacks."""
        return {
            "Exports": [
                {"ExportingStackId": stack.id, "Name": name, "Value": value}
                for name, (stack, value) in self.engine.exports().items()
            ]
        }

    def list_imports(self, p: Parameters) -> Parameters:
        """The stacks that use an export."""
        users = self.engine.importers(p["ExportName"])
        if not users:
            raise _invalid(f"Export '{p['ExportName']}' is not imported by any stack.")
        return {"Imports": users}

    def signal_resource(self, p: Parameters) -> None:
        """An instance reports whether it came up."""
        stack = self._find(p["StackName"])
        resource = self._resource(stack, p["LogicalResourceId"])
        if not resource.status.endswith("_IN_PROGRESS"):
            raise _invalid(
                f"Resource {resource.logical_id} is in {resource.status} state and cannot be signaled"
            )
        unique, status = p["UniqueId"], p["Status"]
        if unique in resource.signals and status != "FAILURE":
            raise _invalid(
                f"Signal with ID {unique} for resource {resource.logical_id} already exists. "
                "Signals may only be updated with a FAILURE status."
            )
        resource.signals[unique] = status
        self.world.touch()

    # -- what the CLI asks for that has no meaning here

    def describe_events(self, p: Parameters) -> Parameters:
        """The events of an operation or change set: validation finds nothing here."""
        return {"OperationEvents": []}

    def get_stack_policy(self, p: Parameters) -> Parameters:
        """There is none."""
        return {}

    def list_hook_results(self, p: Parameters) -> Parameters:
        """There are no hooks."""
        return {"HookResults": []}


def _s3_location(url: str) -> tuple[str, str]:
    """Bucket and key of a template's URL, path-style or virtual-hosted."""
    parsed = urlparse(url)
    host, path = parsed.hostname or "", unquote(parsed.path.lstrip("/"))
    if match := re.fullmatch(r"(.+)\.s3(?:[.-][a-z0-9-]+)?\.(?:amazonaws\.com|localhost)", host):
        return match[1], path
    bucket, _, key = path.partition("/")
    return bucket, key


def _given(
    template: dict[str, Any], parameters: list[dict[str, Any]], before: Source | None
) -> dict[str, str]:
    sent = {entry["ParameterKey"]: entry for entry in parameters}
    definitions = template.get("Parameters", {})
    if unknown := sorted(sent.keys() - definitions.keys()):
        raise TemplateError(f"Parameters: [{', '.join(unknown)}] do not exist in the template")
    values: dict[str, str] = {}
    for name, definition in definitions.items():
        entry = sent.get(name, {})
        if entry.get("UsePreviousValue") and before is not None and name in before.given:
            values[name] = before.given[name]
        elif entry.get("ParameterValue") is not None:
            values[name] = entry["ParameterValue"]
        elif "Default" in definition:
            values[name] = str(definition["Default"])
    if missing := [name for name in definitions if name not in values]:
        raise TemplateError(f"Parameters: [{', '.join(missing)}] must have values")
    return values


def _described_parameters(source: Source | None) -> list[dict[str, Any]]:
    if source is None:
        return []
    definitions = source.template.get("Parameters", {})
    return [
        {
            "ParameterKey": name,
            "ParameterValue": "****" if definitions[name].get("NoEcho") else value,
            "ResolvedValue": source.parameters[name] if _SSM.fullmatch(definitions[name]["Type"]) else None,
        }
        for name, value in source.given.items()
    ]


def _described(resource: Resource) -> dict[str, Any]:
    return {
        "LogicalResourceId": resource.logical_id,
        "PhysicalResourceId": resource.physical_id,
        "ResourceType": resource.type,
        "ResourceStatus": resource.status,
        "ResourceStatusReason": resource.reason,
        "DriftInformation": {"StackResourceDriftStatus": "NOT_CHECKED"},
    }


def _described_event(stack: Stack, event: Event) -> dict[str, Any]:
    return {
        "StackId": stack.id,
        "EventId": event.id,
        "StackName": stack.name,
        "LogicalResourceId": event.logical_id,
        "PhysicalResourceId": event.physical_id,
        "ResourceType": event.type,
        "Timestamp": event.time,
        "ResourceStatus": event.status,
        "ResourceStatusReason": event.reason,
        "ClientRequestToken": event.token,
    }


def _change(action: str, name: str, kind: str, physical_id: str | None) -> dict[str, Any]:
    change = {
        "Action": action,
        "LogicalResourceId": name,
        "PhysicalResourceId": physical_id,
        "ResourceType": kind,
        "Scope": ["Properties"] if action == "Modify" else [],
        "Replacement": "Conditional" if action == "Modify" else None,
        "Details": [],
    }
    return {"Type": "Resource", "ResourceChange": change}


def _essence(template: dict[str, Any]) -> str:
    """What makes a template differ from another: all but top-level metadata and rules."""
    essence = {k: v for k, v in template.items() if k not in ("Metadata", "Rules")}
    return hashlib.sha256(json.dumps(essence, sort_keys=True).encode()).hexdigest()
