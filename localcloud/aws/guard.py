"""Checks the requests of instances against their roles' policies, and all against buckets' policies."""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import parse_qs, unquote, urlparse

import xmltodict  # type: ignore[import-untyped]
from moto.core.parse import PROTOCOL_PARSERS
from moto.core.request import determine_request_protocol
from moto.core.utils import get_service_model
from moto.dynamodb.models import dynamodb_backends
from moto.iam.models import iam_backends
from moto.s3.models import s3_backends
from moto.secretsmanager.models import secretsmanager_backends
from moto.sts.models import sts_backends
from werkzeug.datastructures import Headers, MultiDict

from localcloud.aws import ec2
from localcloud.aws.autoscaling.api import AutoScaling
from localcloud.aws.iam import Need, Policy, judge, read
from localcloud.aws.world import World

_LOG = logging.getLogger(__name__)
# Signing name to boto3's name and IAM's prefix, where they differ.
_SERVICES = {"monitoring": ("cloudwatch", "cloudwatch"), "elasticloadbalancing": ("elbv2",) * 2}
_FREE = {"sts:GetCallerIdentity"}
_STRANGER = "The security token included in the request is invalid."
Parameters = dict[str, Any]
# ARNs, and what conditions see of each.
Resources = list[tuple[str, dict[str, list[str]]]]
_ANY: Resources = [("*", {})]  # of requests that name none


@dataclass(frozen=True, kw_only=True)
class Request:
    """A request as it arrived.

    Attributes:
        service: The signing name.
        action: The action; S3's are worked out here.
        url: The URL as on AWS.
        inside: It came by AWS's own host names, as all requests of instances do.
    """

    service: str
    action: str
    method: str
    url: str
    headers: Mapping[str, str]
    body: bytes
    access_key: str | None
    inside: bool


class Guard:
    """Knows the policies of the embedded AWS."""

    def __init__(self, world: World, autoscaling: AutoScaling) -> None:
        self._world = world
        self._autoscaling = autoscaling
        # By signing name. A request to S3 may have several needs: see _s3_needs.
        self._by_service: Mapping[str, Callable[[str, Parameters], Resources]] = {
            "autoscaling": self._group,
            "cloudformation": self._stack,
            "dynamodb": self._table,
            "ec2": self._ec2_resources,
            "events": self._bus,
            "kms": self._key,
            "logs": self._log_group,
            "monitoring": self._metric,
            "secretsmanager": self._secret,
            "ssm": self._parameter,
        }

    def refusal(self, request: Request) -> str | None:
        """Why a request is refused; None if it may pass."""
        session = self._session(request)
        if session is None and request.inside:
            return _STRANGER if request.access_key else "Request is missing Authentication Token"
        if session is None:
            principal = f"arn:aws:iam::{self._world.account}:root"
        else:
            principal = session.arn
            if session.session_token != request.headers.get("X-Amz-Security-Token"):
                return _STRANGER
        if session is None and request.service != "s3":
            return None
        instance = session.session_name if session else None
        policies = self._policies(session.role_arn) if session else None
        for need in self._needs(request, principal, instance):
            why = self._judge(need, policies, principal)
            if why:
                message = (
                    f"User: {principal} is not authorized to perform: {need.action} on resource: "
                    f"{need.resource} because {why} the {need.action} action"
                )
                _LOG.warning("%s", message)
                return message
        return None

    def hides(self, request: Request) -> bool:
        """Whether a missing object is to be reported as forbidden, because its bucket may not be listed."""
        session = self._session(request)
        if session is None or request.service != "s3" or request.method not in ("GET", "HEAD"):
            return False
        bucket, key = _bucket_and_key(request.url)
        need = Need(
            action="s3:ListBucket",
            resource=f"arn:aws:s3:::{bucket}",
            context=self._context(session.arn, session.session_name) | {"s3:prefix": [key]},
        )
        return bool(key) and self._judge(need, self._policies(session.role_arn), session.arn) is not None

    def _judge(self, need: Need, policies: list[Policy] | None, principal: str) -> str | None:
        verdicts = {judge(self._bucket_policies(need), need, principal=principal)}
        if policies is not None:
            verdicts.add(judge(policies, need))
        if "denied" in verdicts:
            return "an explicit deny in a policy forbids"
        if policies is None or "allowed" in verdicts or need.action in _FREE:
            return None
        return "no identity-based policy allows"

    # -- who asks

    def _session(self, request: Request) -> Any:
        """The instance's session; None if the caller is not an instance."""
        if request.access_key is None:
            return None
        sessions = sts_backends[self._world.account]["aws"]
        session = sessions.get_assumed_role_from_access_key(request.access_key)
        return session if session and session.session_name.startswith("i-") else None

    def _policies(self, role_arn: str) -> list[Policy]:
        role = iam_backends[self._world.account]["aws"].get_role_by_arn(role_arn)
        managed = [
            version.document
            for policy in role.managed_policies.values()
            for version in policy.versions
            if version.version_id == policy.default_version_id and version.document
        ]
        return [read(document) for document in (*role.policies.values(), *managed)]

    def _bucket_policies(self, need: Need) -> list[Policy]:
        if not need.action.startswith("s3:"):
            return []
        name = need.resource.removeprefix("arn:aws:s3:::").split("/")[0]
        bucket = s3_backends[self._world.account]["aws"].buckets.get(name)
        return [read(bucket.policy.decode())] if bucket and bucket.policy else []

    # -- what it needs

    def _context(self, principal: str, instance: str | None) -> dict[str, list[str]]:
        context = {
            "aws:principalaccount": [self._world.account],
            "aws:principalarn": [re.sub(r":sts:(.*):assumed-role/([^/]+)/.*", r":iam:\1:role/\2", principal)],
            "aws:requestedregion": [self._world.region],
            "aws:securetransport": ["true"],
        }
        if instance:
            context["ec2:sourceinstancearn"] = [self._arn("ec2", f"instance/{instance}")]
        return context

    def _arn(self, service: str, rest: str, separator: str = ":") -> str:
        return f"arn:aws:{service}:{self._world.region}:{self._world.account}{separator}{rest}"

    def _needs(self, request: Request, principal: str, instance: str | None) -> Iterator[Need]:
        base = self._context(principal, instance)
        if request.service == "s3":
            needs: Iterable[tuple[str, str, dict[str, list[str]]]] = _s3_needs(request)
        else:
            boto, prefix = _SERVICES.get(request.service, (request.service,) * 2)
            parameters = _parameters(boto, request)
            resources = self._resources(request.service, request.action, parameters)
            needs = [(f"{prefix}:{request.action}", resource, context) for resource, context in resources]
        for action, resource, context in needs:
            yield Need(action=action, resource=resource, context=base | context)

    def _resources(self, service: str, action: str, p: Parameters) -> Resources:
        """What a request is about: another API is added as a function in ``_by_service``, in ``__init__``."""
        if action.startswith(("Describe", "List")) and service != "secretsmanager":
            return _ANY
        find = self._by_service.get(service)
        return find(action, p) if find else _ANY

    def _secret(self, _: str, p: Parameters) -> Resources:
        if "SecretId" not in p:
            return _ANY
        secret = secretsmanager_backends[self._world.account][self._world.region].secrets.get(p["SecretId"])
        arn = secret.arn if secret else self._arn("secretsmanager", f"secret:{p['SecretId']}")
        found = {tag["Key"]: tag["Value"] for tag in (secret.tags if secret else None) or []}
        return [(arn, _tag_context("secretsmanager", found))]

    def _parameter(self, _: str, p: Parameters) -> Resources:
        if not {"Name", "Names", "Path"} & p.keys():
            return _ANY
        names = p.get("Names") or [p.get("Name") or p["Path"]]
        return [(self._arn("ssm", f"parameter/{name.lstrip('/')}"), {}) for name in names]

    def _stack(self, _: str, p: Parameters) -> Resources:
        if "StackName" not in p:
            return _ANY
        name = p["StackName"]
        if name.startswith("arn:"):
            return [(name, {})]
        answer = self._world.client("cloudformation").describe_stacks()["Stacks"]
        arns = [stack["StackId"] for stack in answer if stack["StackName"] == name]
        return [(arn, {}) for arn in arns] or [(self._arn("cloudformation", f"stack/{name}/none"), {})]

    def _log_group(self, _: str, p: Parameters) -> Resources:
        if "logGroupName" not in p:
            return _ANY
        stream = f":log-stream:{p['logStreamName']}" if "logStreamName" in p else ":*"
        return [(self._arn("logs", f"log-group:{p['logGroupName']}{stream}"), {})]

    def _metric(self, _: str, p: Parameters) -> Resources:
        return [("*", {"cloudwatch:namespace": [p["Namespace"]]} if "Namespace" in p else {})]

    def _table(self, action: str, p: Parameters) -> Resources:
        if "TableName" not in p:
            return _ANY
        return [(self._arn("dynamodb", f"table/{p['TableName']}"), self._leading_keys(action, p))]

    def _bus(self, action: str, p: Parameters) -> Resources:
        return [self._event(entry) for entry in p["Entries"]] if action == "PutEvents" else _ANY

    def _key(self, _: str, p: Parameters) -> Resources:
        if "KeyId" not in p:
            return _ANY
        key = p["KeyId"]
        return [(key if key.startswith("arn:") else self._arn("kms", f"key/{key}"), {})]

    def _event(self, entry: Mapping[str, str]) -> tuple[str, dict[str, list[str]]]:
        """The bus that an event is for, and what conditions see of it."""
        bus = entry.get("EventBusName", "default")
        keys = {"events:source": "Source", "events:detail-type": "DetailType"}
        context = {key: [entry[name]] for key, name in keys.items() if name in entry}
        return bus if bus.startswith("arn:") else self._arn("events", f"event-bus/{bus}"), context

    def _leading_keys(self, action: str, p: Parameters) -> dict[str, list[str]]:
        """The partition keys that a request to a table touches."""
        table = dynamodb_backends[self._world.account][self._world.region].tables.get(p["TableName"])
        if table is None:
            return {}
        if action == "Query":
            names, values = p.get("ExpressionAttributeNames", {}), p.get("ExpressionAttributeValues", {})
            compared = re.findall(r"([#\w]+)\s*=\s*(:\w+)", p["KeyConditionExpression"])
            item = {names.get(name, name): values[value] for name, value in compared}
        elif action in ("DeleteItem", "GetItem", "PutItem", "UpdateItem"):
            item = p["Item"] if action == "PutItem" else p["Key"]
        else:
            raise NotImplementedError(f"Instances of the local cloud cannot use {action} of DynamoDB.")
        return {"dynamodb:leadingkeys": list(item[table.hash_key_attr].values())}

    def _ec2_resources(self, _: str, p: Parameters) -> Resources:
        backend = ec2.backend(self._world.account, self._world.region)
        ids = [p[key] for key in ("InstanceId", "VolumeId", "NetworkInterfaceId") if key in p]
        ids += [*p.get("InstanceIds", []), *p.get("VolumeIds", []), *p.get("Resources", [])]
        if "AttachmentId" in p:
            for eni in backend.enis.values():
                if eni.attachment_id == p["AttachmentId"]:
                    ids += [eni.id, eni.instance.id]
        if "VolumeId" in p and "InstanceId" not in p and "Device" not in p:
            volume = backend.volumes.get(p["VolumeId"])
            if volume and volume.attachment:
                ids.append(volume.attachment.instance.id)
        kinds = {"i": "instance", "vol": "volume", "eni": "network-interface"}
        resources = []
        for identifier in ids:
            found = {tag["key"]: tag["value"] for tag in backend.describe_tags({"resource-id": [identifier]})}
            kind = kinds.get(identifier.split("-")[0], "*")
            resources.append((self._arn("ec2", f"{kind}/{identifier}"), _tag_context("ec2", found)))
        return resources or _ANY

    def _group(self, _: str, p: Parameters) -> Resources:
        name = p.get("AutoScalingGroupName")
        if name is None and "InstanceId" in p:
            member = self._autoscaling.member(p["InstanceId"])
            name = member[0].name if member else None
        if name is None:
            return _ANY
        group = self._autoscaling.groups.get(name)
        if group is None:
            return [(self._arn("autoscaling", f"autoScalingGroup:none:autoScalingGroupName/{name}"), {})]
        found = {tag["Key"]: tag["Value"] for tag in group.tags}
        return [(group.arn, _tag_context("autoscaling", found) | _change_context(p))]


def _change_context(p: Parameters) -> dict[str, list[str]]:
    """What conditions see of how a group is changed."""
    said = {
        "autoscaling:launchconfigurationname": p.get("LaunchConfigurationName"),
        "autoscaling:minsize": p.get("MinSize"),
        "autoscaling:maxsize": p.get("MaxSize"),
        "autoscaling:vpczoneidentifiers": p.get("VPCZoneIdentifier"),
    }
    return {key: str(value).split(",") for key, value in said.items() if value is not None}


def _tag_context(service: str, tags: Mapping[str, str]) -> dict[str, list[str]]:
    return {
        f"{prefix}:resourcetag/{key}".lower(): [value]
        for key, value in tags.items()
        for prefix in ("aws", service)
    }


def _parameters(boto: str, request: Request) -> Parameters:
    """A request's parameters by the service's model."""
    model = get_service_model(boto)
    content_type = request.headers.get("Content-Type", "")
    url = urlparse(request.url)
    parser = PROTOCOL_PARSERS[determine_request_protocol(model, content_type)](
        model.operation_model(request.action), map_type=dict
    )
    values = {key: value[0] for key, value in parse_qs(url.query, keep_blank_values=True).items()}
    if content_type.startswith("application/x-www-form-urlencoded"):
        body = parse_qs(request.body.decode(), keep_blank_values=True)
        values |= {key: value[0] for key, value in body.items()}
    parsed = parser.parse(
        {
            "method": request.method,
            "values": MultiDict(values),
            "headers": Headers(dict(request.headers)),
            "body": request.body,
            "url_path": url.path,
            "url_params": {},
        }
    )
    return dict(parsed)


def _bucket_and_key(url: str) -> tuple[str, str]:
    parsed = urlparse(url)
    host, path = parsed.hostname or "", unquote(parsed.path.lstrip("/"))
    if match := re.fullmatch(r"(.+)\.s3(?:[.-][a-z0-9-]+)*\.amazonaws\.com", host):
        return match[1], path
    bucket, _, key = path.partition("/")
    return bucket, key


_OBJECT = {"tagging": "ObjectTagging", "acl": "ObjectAcl", "retention": "ObjectRetention"}
_BUCKET = {
    "acl": "BucketAcl",
    "cors": "BucketCORS",
    "encryption": "EncryptionConfiguration",
    "lifecycle": "LifecycleConfiguration",
    "location": "BucketLocation",
    "logging": "BucketLogging",
    "ownershipControls": "BucketOwnershipControls",
    "policy": "BucketPolicy",
    "publicAccessBlock": "BucketPublicAccessBlock",
    "tagging": "BucketTagging",
    "versioning": "BucketVersioning",
}
_VERBS = {"GET": "Get", "HEAD": "Get", "PUT": "Put", "DELETE": "Delete", "POST": "Put"}


def _s3_needs(request: Request) -> Iterator[tuple[str, str, dict[str, list[str]]]]:
    bucket, key = _bucket_and_key(request.url)
    query = parse_qs(urlparse(request.url).query, keep_blank_values=True)
    arn, verb = f"arn:aws:s3:::{bucket}", _VERBS.get(request.method, "Get")
    if not bucket:
        yield "s3:ListAllMyBuckets", "*", {}
    elif not key:
        context = {"s3:prefix": query["prefix"]} if "prefix" in query else {}
        yield from ((action, target, context) for action, target in _bucket_needs(request, query, arn, verb))
    else:
        yield from ((action, target, {}) for action, target in _object_needs(request, query, arn, key, verb))


def _bucket_needs(
    request: Request, query: Mapping[str, list[str]], arn: str, verb: str
) -> Iterator[tuple[str, str]]:
    named = [name for parameter, name in _BUCKET.items() if parameter in query]
    if "delete" in query:
        document = xmltodict.parse(request.body, force_list=("Object",))["Delete"]
        for entry in document["Object"]:
            yield f"s3:DeleteObject{'Version' if 'VersionId' in entry else ''}", f"{arn}/{entry['Key']}"
    elif named:
        yield f"s3:{verb}{named[0]}", arn
    elif "uploads" in query:
        yield "s3:ListBucketMultipartUploads", arn
    elif "versions" in query:
        yield "s3:ListBucketVersions", arn
    elif verb == "Get":
        yield "s3:ListBucket", arn
    else:
        yield f"s3:{'Create' if verb == 'Put' else verb}Bucket", arn


def _object_needs(
    request: Request, query: Mapping[str, list[str]], arn: str, key: str, verb: str
) -> Iterator[tuple[str, str]]:
    version = "Version" if "versionId" in query else ""
    named = [name for parameter, name in _OBJECT.items() if parameter in query]
    if named:
        yield f"s3:{verb}{named[0]}", f"{arn}/{key}"
    elif "uploadId" in query and verb in ("Get", "Delete"):
        action = "ListMultipartUploadParts" if verb == "Get" else "AbortMultipartUpload"
        yield f"s3:{action}", f"{arn}/{key}"
    else:
        yield f"s3:{verb}Object{version if verb != 'Put' else ''}", f"{arn}/{key}"
    if source := request.headers.get("X-Amz-Copy-Source"):
        yield "s3:GetObject", f"arn:aws:s3:::{unquote(source).split('?')[0].lstrip('/')}"
