"""Serves the embedded AWS API on sockets that are already open."""

from __future__ import annotations

import json
import logging
import os
import re
import socket as sockets
import ssl
import threading
import uuid
from collections.abc import Iterable, Mapping
from typing import Any, cast
from urllib.parse import parse_qs, urlparse
from xml.sax.saxutils import escape

from moto.core.base_backend import BackendDict
from moto.core.exceptions import ServiceException
from moto.s3.models import s3_backends
from werkzeug.serving import BaseWSGIServer, WSGIRequestHandler, make_server

import localcloud.aws.cloudformation.resources  # noqa: F401  (registers the types)
from localcloud.aws import balancing, commands, ec2, parameters, s3
from localcloud.aws.autoscaling.api import AutoScaling
from localcloud.aws.cloud import LocalCloud
from localcloud.aws.cloudformation.api import CloudFormation
from localcloud.aws.guard import Guard, Request
from localcloud.aws.ports import INTERRUPT, Cloud
from localcloud.aws.service import responder
from localcloud.aws.world import World

_LOG = logging.getLogger(__name__)
_CREDENTIAL = re.compile(r"Credential=([^/,\s]+)/\d{8}/([^/]+)/([^/]+)/aws4_request")
# Actions that change nothing the runtime looks at.
_QUIET = re.compile(r"^(Describe|Get|List|Head|Put|Filter|Lookup|CreateLogStream|RecordLifecycle)")


class Server:
    """The running embedded AWS.

    Attributes:
        world: What its services share.
        cloudformation: The CloudFormation service.
        autoscaling: The Auto Scaling service.
        cloud: What the runtime sees of it.
    """

    def __init__(self, *, region: str, account: str) -> None:
        # moto takes these from the environment.
        os.environ.update(MOTO_ACCOUNT_ID=account)
        os.environ.update(MOTO_IAM_LOAD_MANAGED_POLICIES="true", MOTO_EC2_LOAD_DEFAULT_AMIS="false")
        # A new server is a new AWS.
        for services in BackendDict._instances:  # type: ignore[misc]
            services.clear()
        s3_backends.bucket_accounts.clear()
        self.world = World(region=region, account=account)
        self.cloudformation = CloudFormation(self.world)
        self._servers: list[BaseWSGIServer] = []
        self._stopped = False
        self.autoscaling = AutoScaling(self.world)
        _install("cloudformation", self.cloudformation)
        _install("autoscaling", self.autoscaling)
        ec2.install()
        s3.install()
        balancing.install()
        parameters.install()
        run_command = commands.RunCommand(self.world)
        commands.install(run_command)
        self.cloud: Cloud = LocalCloud(self.world, self.autoscaling, run_command)
        self._guard = Guard(self.world, self.autoscaling)
        threading.Thread(target=self._tick, daemon=True, name="auto-scaling").start()

    def serve(self, socket: sockets.socket, *, context: ssl.SSLContext | None = None) -> None:
        """Answer on one more listening socket, in threads of this process.

        Args:
            socket: A bound TCP socket; the caller may close it afterwards.
            context: Ends TLS on it.
        """
        host, port = socket.getsockname()[:2]
        socket.listen(128)
        server = make_server(
            host,
            port,
            cast(Any, self._answer),
            threaded=True,
            request_handler=_Handler,
            fd=socket.fileno(),
        )
        if context is not None:
            # Each connection's thread does its TLS handshake, so a client that stalls holds up no other.
            server.socket = context.wrap_socket(
                server.socket, server_side=True, do_handshake_on_connect=False
            )
            server.ssl_context = context
        self._servers.append(server)
        threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True, name="aws-api").start()

    def _tick(self) -> None:
        """Let time pass for the Auto Scaling groups: at every change, and once a second."""
        while not self._stopped:
            with self.world.changed:
                now = self.world.clock()
                if ec2.backend(self.world.account, self.world.region).step(now):
                    self.world.touch()
                self.autoscaling.step(now)
                self.world.changed.wait(1)

    def client(self, service: str) -> Any:
        """A boto3 client of this AWS, for use inside this process."""
        return self.world.client(service)

    def stop(self) -> None:
        """Stop answering."""
        self._stopped = True
        for server in self._servers:
            server.shutdown()
            server.server_close()

    def _answer(self, environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        headers = _headers(environ)
        # Read before anything is locked: a slow sender must not hold up the others.
        if environ.get("wsgi.input_terminated"):
            body = environ["wsgi.input"].read()
        else:
            body = environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH") or 0))
        url = _url(environ, headers)
        action = _action(environ, headers, body)
        try:
            status, answered, content = self._respond(environ["REQUEST_METHOD"], action, url, headers, body)
        except Exception as error:  # never answer with a 5xx, which SDKs retry
            if not isinstance(error, NotImplementedError):
                _LOG.exception("%s %s", action, url)
            message = str(error) or type(error).__name__
            status, answered, content = _refusal(url, headers, 400, "UnsupportedByLocalCloud", message)
        if not _QUIET.match(action):
            self.world.touch()
        return _send(environ["REQUEST_METHOD"], status, answered, content, start_response)

    def _respond(
        self, method: str, action: str, url: str, headers: Mapping[str, str], body: bytes
    ) -> tuple[int, Mapping[str, Any], bytes]:
        inside = _is_of_aws(headers)
        if urlparse(url).path == INTERRUPT and not inside:
            return self._interrupt(url)
        if action == "LookupEvents":  # the CLI asks for it after a failed deployment
            return 200, {"Content-Type": "application/x-amz-json-1.1"}, b'{"Events": []}'
        access_key, service = _signature(url, headers)
        request = Request(
            service=service,
            action=action,
            method=method,
            url=url,
            headers=headers,
            body=body,
            access_key=access_key,
            inside=inside,
        )
        with self.world.changed:
            why = self._guard.refusal(request)
            if why is not None:
                return _denial(url, headers, why)
            status, answered, content = self.world.request(method, url, headers, body)
            if status == 404 and self._guard.hides(request):
                return _denial(url, headers, "Access Denied")
        if status >= 500:
            raise NotImplementedError(content.decode(errors="replace")[:500])
        return status, answered, content

    def _interrupt(self, url: str) -> tuple[int, Mapping[str, Any], bytes]:
        """Give a spot instance notice: AWS has no call for that, as its spare capacity decides."""
        asked = {key: values[0] for key, values in parse_qs(urlparse(url).query).items()}
        with self.world.changed:
            try:
                ec2.backend(self.world.account, self.world.region).announce(
                    asked["instance"], self.world.clock(), rebalance=asked.get("rebalance") == "true"
                )
            except ServiceException as error:
                return 400, {"Content-Type": "text/plain"}, str(error.message).encode()
            self.world.touch()
        return 200, {"Content-Type": "text/plain"}, b""


class _Handler(WSGIRequestHandler):
    protocol_version = "HTTP/1.1"
    timeout = 60  # seconds of silence

    def log_request(self, code: Any = "-", size: Any = "-") -> None:
        """Keep silent."""


def _install(service: str, handler: object) -> None:
    """Put our service in the place of moto's."""
    import importlib

    urls: Any = importlib.import_module(f"moto.{service}.urls")
    urls.url_paths = {"{0}/$": responder(service, handler).dispatch}


def _headers(environ: Mapping[str, Any]) -> dict[str, str]:
    headers = {
        key[5:].replace("_", "-").title(): value for key, value in environ.items() if key.startswith("HTTP_")
    }
    for key in ("CONTENT_TYPE", "CONTENT_LENGTH"):
        if environ.get(key):
            headers[key.replace("_", "-").title()] = environ[key]
    headers.pop("Transfer-Encoding", None)
    return headers


def _is_of_aws(headers: Mapping[str, str]) -> bool:
    """Whether a request came by one of AWS's names, which only instances resolve to this server."""
    return headers.get("Host", "").split(":")[0].endswith(".amazonaws.com")


def _url(environ: Mapping[str, Any], headers: Mapping[str, str]) -> str:
    """The request's URL as on AWS: by its Host if that is AWS's, else by the scope of its signature."""
    host = headers["Host"].split(":")[0] if _is_of_aws(headers) else _host(environ, headers)
    raw = environ.get("REQUEST_URI") or environ.get("RAW_URI") or "/"
    return f"https://{host}{raw if raw.startswith('/') else '/'}"


def _host(environ: Mapping[str, Any], headers: Mapping[str, str]) -> str:
    query = parse_qs(environ.get("QUERY_STRING", ""))
    scope = headers.get("Authorization", "") or f"Credential={query.get('X-Amz-Credential', [''])[0]}"
    match = _CREDENTIAL.search(scope)
    region, service = (match[2], match[3]) if match else ("us-east-1", "s3")
    bucket = re.fullmatch(r"(.+)\.s3\.localhost|(.+)\.localhost", headers.get("Host", "").split(":")[0])
    if service == "s3" and bucket:
        return f"{bucket[1] or bucket[2]}.s3.{region}.amazonaws.com"
    return f"{service}.{region}.amazonaws.com"


def _action(environ: Mapping[str, Any], headers: Mapping[str, str], body: bytes) -> str:
    if target := headers.get("X-Amz-Target"):
        return target.split(".")[-1]
    if headers.get("Content-Type", "").startswith("application/x-www-form-urlencoded"):
        return parse_qs(body.decode(errors="replace")).get("Action", [""])[0]
    if match := re.search(r"/operation/(\w+)$", environ.get("PATH_INFO", "")):
        return match[1]
    # The REST services: nothing but Route 53 matters to the runtime.
    return (
        "Get"
        if environ["REQUEST_METHOD"] in ("GET", "HEAD") or ".s3." in headers.get("Host", "")
        else "Change"
    )


def _signature(url: str, headers: Mapping[str, str]) -> tuple[str | None, str]:
    """Access key and signing name of a request; an unsigned one is S3's."""
    query = parse_qs(urlparse(url).query)
    scope = headers.get("Authorization", "") or f"Credential={query.get('X-Amz-Credential', [''])[0]}"
    match = _CREDENTIAL.search(scope)
    return (match[1], match[3]) if match else (None, "s3")


def _denial(url: str, headers: Mapping[str, str], message: str) -> tuple[int, dict[str, str], bytes]:
    if "//ec2." in url:
        code = "UnauthorizedOperation"
    else:
        code = "AccessDeniedException" if "X-Amz-Target" in headers else "AccessDenied"
    return _refusal(url, headers, 403, code, message)


def _refusal(
    url: str, headers: Mapping[str, str], status: int, code: str, message: str
) -> tuple[int, dict[str, str], bytes]:
    """An error that every SDK understands and does not retry."""
    kind = headers.get("Content-Type", "")
    s3 = ".s3." in url or "//s3." in url
    if not (kind.startswith("application/x-www-form-urlencoded") or s3 or "//route53." in url):
        body = json.dumps({"__type": code, "message": message})
        return (
            status,
            {"Content-Type": "application/x-amz-json-1.1", "X-Amzn-ErrorType": code},
            body.encode(),
        )
    error = f"<Code>{code}</Code><Message>{escape(message)}</Message>"
    if "//ec2." in url:
        body = f"<Response><Errors><Error>{error}</Error></Errors><RequestID>local</RequestID></Response>"
    elif s3:
        body = f"<Error>{error}</Error>"
    else:
        body = f"<ErrorResponse><Error><Type>Sender</Type>{error}</Error></ErrorResponse>"
    return status, {"Content-Type": "application/xml"}, body.encode()


def _send(
    method: str, status: int, headers: Mapping[str, Any], body: bytes, start_response: Any
) -> Iterable[bytes]:
    sent = {key.lower(): str(value) for key, value in headers.items()}
    for key in ("date", "server", "status"):
        sent.pop(key, None)
    if method == "HEAD":
        body = b""
        sent.setdefault("content-length", "0")
    elif status not in (204, 304):
        sent["content-length"] = str(len(body))
    sent.setdefault("x-amzn-requestid", str(uuid.uuid4()))  # as AWS's answers have
    start_response(f"{status} {'OK' if status < 400 else 'Error'}", list(sent.items()))
    return [body]


def start(*, socket: sockets.socket, region: str, account: str) -> Server:
    """Start the embedded AWS.

    Args:
        socket: A bound TCP socket on which the API is served in the clear.
        region: The one region.
        account: The one account's number.

    Returns:
        The running server; there can be only one in a process.
    """
    server = Server(region=region, account=account)
    server.serve(socket)
    return server
