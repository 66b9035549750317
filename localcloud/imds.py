"""The instance metadata service, version 2, which knows instances by their source addresses.

Reference: the EC2 user guide, "Use the Instance Metadata Service to access instance metadata" and "Instance
metadata categories".
"""

from __future__ import annotations

import json
import re
import secrets
import socket
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from ipaddress import IPv4Address
from typing import Protocol, TypeAlias

from localcloud.addresses import METADATA, private_name
from localcloud.aws.ports import Credentials, Instance, Subnet

Tree: TypeAlias = "Mapping[str, Tree | str]"

_MAX_TOKEN_SECONDS = 21600
_VERSION = re.compile(r"latest|1\.0|20\d\d-\d\d-\d\d")
_ARCHITECTURE = re.compile(r"[a-z]+\d+[a-z]*g[a-z]*\.")  # Graviton types: a g after the generation


def metadata(
    instance: Instance,
    *,
    subnets: Mapping[str, Subnet],
    region: str,
    credentials: Credentials | None,
) -> Tree:
    """The tree below ``/latest/meta-data/``: directories are mappings, values are strings.

    Args:
        instance: Whose.
        subnets: The subnets of its interfaces, by id.
        region: Its region.
        credentials: Of its role; None without a role.
    """
    name = private_name(instance.address, region=region)
    primary = instance.interfaces[0]
    tree: dict[str, Tree | str] = {
        "ami-id": instance.image,
        "ami-launch-index": "0",
        "block-device-mapping": {"ami": "/dev/xvda", "root": "/dev/xvda"},
        "hostname": name,
        "instance-action": "none",
        "instance-id": instance.id,
        "instance-life-cycle": "spot" if instance.spot else "on-demand",
        "instance-type": instance.type,
        "local-hostname": name,
        "local-ipv4": str(instance.address),
        "mac": primary.mac,
        "network": {
            "interfaces": {
                "macs": {
                    interface.mac: {
                        "device-number": str(interface.index),
                        "interface-id": interface.id,
                        "local-hostname": private_name(interface.address, region=region),
                        "local-ipv4s": str(interface.address),
                        "mac": interface.mac,
                        "security-group-ids": "\n".join(interface.groups),
                        "subnet-id": interface.subnet,
                        "subnet-ipv4-cidr-block": str(subnets[interface.subnet].cidr),
                        "vpc-id": instance.vpc,
                    }
                    for interface in instance.interfaces
                    if interface.subnet in subnets
                }
            }
        },
        "placement": {"availability-zone": instance.zone, "region": region},
        "services": {"domain": "amazonaws.com", "partition": "aws"},
    }
    if instance.interruption:
        time = f"{instance.interruption:%Y-%m-%dT%H:%M:%SZ}"
        action = json.dumps({"action": "terminate", "time": time})
        tree["spot"] = {"instance-action": action, "termination-time": time}
    if instance.rebalance:
        notice = json.dumps({"noticeTime": f"{instance.rebalance:%Y-%m-%dT%H:%M:%SZ}"})
        tree["events"] = {"recommendations": {"rebalance": notice}}
    if instance.target_lifecycle_state:
        tree["autoscaling"] = {"target-lifecycle-state": instance.target_lifecycle_state}
    if instance.metadata.tags:
        tree["tags"] = {"instance": dict(instance.tags)}
    if instance.role and credentials:
        tree["iam"] = {
            "info": json.dumps({"Code": "Success", "InstanceProfileArn": instance.profile_arn}, indent=2),
            "security-credentials": {instance.role: _credentials(credentials)},
        }
    return tree


def identity(instance: Instance, *, region: str, account: str) -> str:
    """The instance identity document, JSON.

    Args:
        instance: Whose.
        region: Its region.
        account: Its owner.
    """
    document = {
        "accountId": account,
        "architecture": "arm64" if _ARCHITECTURE.match(instance.type) else "x86_64",
        "availabilityZone": instance.zone,
        "imageId": instance.image,
        "instanceId": instance.id,
        "instanceType": instance.type,
        "pendingTime": f"{instance.launched:%Y-%m-%dT%H:%M:%SZ}",
        "privateIp": str(instance.address),
        "region": region,
        "version": "2017-09-30",
    }
    return json.dumps(document, indent=2)


def look_up(tree: Tree, path: str) -> str | None:
    """The value at a path, or the listing of a directory; None where there is nothing.

    Args:
        tree: The tree.
        path: Names separated by slashes; empty ones do not count.
    """
    node: Tree | str = tree
    for name in filter(None, path.split("/")):
        if isinstance(node, str) or name not in node:
            return None
        node = node[name]
    if isinstance(node, str):
        return node
    return "\n".join(name if isinstance(value, str) else f"{name}/" for name, value in node.items())


@dataclass(frozen=True)
class Answer:
    """An HTTP answer."""

    status: int
    body: bytes = b""
    headers: tuple[tuple[str, str], ...] = ()


class Instances(Protocol):
    """The part of :class:`localcloud.aws.ports.Cloud` that the service asks."""

    def instances(self) -> tuple[Instance, ...]:
        """All instances."""

    def subnets(self) -> tuple[Subnet, ...]:
        """All subnets."""

    def credentials(self, instance: str) -> Credentials | None:
        """Credentials of an instance's role."""


class Service:
    """The service's answers, without the wire.

    Args:
        cloud: Where instances and their credentials come from.
        region: The region.
        account: The account.
        clock: Returns seconds, and never goes back.
    """

    def __init__(
        self, cloud: Instances, *, region: str, account: str, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._cloud = cloud
        self._region = region
        self._account = account
        self._clock = clock
        self._tokens: dict[str, tuple[str, float]] = {}  # token → instance, when it expires
        self._lock = threading.Lock()

    def answer(self, method: str, path: str, headers: Mapping[str, str], source: IPv4Address) -> Answer:
        """Answer one request.

        Args:
            method: GET, HEAD or PUT.
            path: The request's path.
            headers: Its headers, names in lower case.
            source: Who asks.
        """
        instance = self._instance(source)
        if instance is None or not instance.metadata.enabled:
            return Answer(403)
        path = path.partition("?")[0]
        if method == "PUT":
            return self._new_token(instance, headers) if path == "/latest/api/token" else Answer(405)
        if not self._allowed(instance, headers):
            return Answer(401)
        body = self._content(instance, path)
        return Answer(404) if body is None else Answer(200, body)

    def _instance(self, source: IPv4Address) -> Instance | None:
        for instance in self._cloud.instances():
            if any(interface.address == source for interface in instance.interfaces):
                return instance
        return None

    def _new_token(self, instance: Instance, headers: Mapping[str, str]) -> Answer:
        if "x-forwarded-for" in headers:
            return Answer(403)
        lifetime = headers.get("x-aws-ec2-metadata-token-ttl-seconds", "")
        if not lifetime.isascii() or not lifetime.isdigit() or not 1 <= int(lifetime) <= _MAX_TOKEN_SECONDS:
            return Answer(400)
        token, now = secrets.token_urlsafe(42), self._clock()
        with self._lock:
            self._tokens = {known: entry for known, entry in self._tokens.items() if entry[1] > now}
            self._tokens[token] = (instance.id, now + int(lifetime))
        return Answer(200, token.encode(), (("X-Aws-Ec2-Metadata-Token-Ttl-Seconds", lifetime),))

    def _allowed(self, instance: Instance, headers: Mapping[str, str]) -> bool:
        token = headers.get("x-aws-ec2-metadata-token")
        if token is None:
            # cloud-init asks for a token only where the firmware says that this is AWS.
            cloud_init = headers.get("user-agent", "").startswith("Cloud-Init/")
            return cloud_init or not instance.metadata.token_required
        owner, expires = self._tokens.get(token, ("", 0.0))
        return owner == instance.id and expires > self._clock()

    def _content(self, instance: Instance, path: str) -> bytes | None:
        version, _, rest = path.strip("/").partition("/")
        if not version:
            return b"1.0\n2021-03-23\nlatest"
        if not _VERSION.fullmatch(version):
            return None
        kind, _, rest = rest.partition("/")
        if kind == "user-data" and not rest:
            return instance.user_data or None
        text: str | None = None
        if not kind:
            text = "dynamic\nmeta-data\nuser-data"
        elif kind == "meta-data":
            text = look_up(self._metadata(instance), rest)
        elif kind == "dynamic":
            document = identity(instance, region=self._region, account=self._account)
            text = look_up({"instance-identity": {"document": document}}, rest)
        return None if text is None else text.encode()

    def _metadata(self, instance: Instance) -> Tree:
        return metadata(
            instance,
            subnets={subnet.id: subnet for subnet in self._cloud.subnets()},
            region=self._region,
            credentials=self._cloud.credentials(instance.id),
        )


def serve(service: Service, *, address: IPv4Address = METADATA, port: int = 80) -> ThreadingHTTPServer:
    """Answer on the metadata address, in threads of this process.

    Replies have a time to live of one hop, so that whatever a machine forwards to (containers, guests) gets
    none; the network's rules raise it for instances whose options allow more.

    Raises:
        OSError: The address is not available.
    """

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        server_version = "EC2ws"
        sys_version = ""

        def do_GET(self) -> None:
            headers = {name.lower(): value for name, value in self.headers.items()}
            answer = service.answer(self.command, self.path, headers, IPv4Address(self.client_address[0]))
            self.send_response(answer.status)
            self.send_header("Content-Type", "text/plain")
            self.send_header("Content-Length", str(len(answer.body)))
            for name, value in answer.headers:
                self.send_header(name, value)
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(answer.body)

        do_PUT = do_HEAD = do_GET  # noqa: N815

        def log_message(self, *_: object) -> None:
            pass

    class Server(ThreadingHTTPServer):
        daemon_threads = True
        request_queue_size = 64

        def server_bind(self) -> None:
            self.socket.setsockopt(socket.IPPROTO_IP, socket.IP_TTL, 1)
            super().server_bind()

    server = Server((str(address), port), Handler)
    threading.Thread(target=server.serve_forever, daemon=True, name="imds").start()
    return server


def _credentials(credentials: Credentials) -> str:
    document = {
        "Code": "Success",
        "LastUpdated": f"{credentials.expires:%Y-%m-%dT00:00:00Z}",
        "Type": "AWS-HMAC",
        "AccessKeyId": credentials.access_key,
        "SecretAccessKey": credentials.secret_key,
        "Token": credentials.token,
        "Expiration": f"{credentials.expires:%Y-%m-%dT%H:%M:%SZ}",
    }
    return json.dumps(document, indent=2)
