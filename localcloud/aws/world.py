"""What all parts of the embedded AWS share: one lock, one clock, one change counter, in-process calls."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Any

import boto3
from botocore.awsrequest import AWSPreparedRequest, AWSResponse
from botocore.compat import HTTPHeaders
from botocore.config import Config
from moto.core.botocore_stubber import BotocoreStubber, MockRawResponse


def _now() -> datetime:
    return datetime.now(UTC)


class World:
    """The state that the services share.

    moto is not thread-safe, so everything that touches its state holds ``changed`` (a condition on the one
    lock); waiting on the condition lets the other threads in.

    Args:
        region: The one region.
        account: The one account's number.
        clock: Tells the time; tests pass their own.

    Attributes:
        short_zones: Availability zones in which EC2 has no host for a group; at first, none.
    """

    def __init__(self, *, region: str, account: str, clock: Callable[[], datetime] = _now) -> None:
        self.region = region
        self.account = account
        self.clock = clock
        self.changed = threading.Condition(threading.RLock())
        self.version = 0
        self.short_zones: set[str] = set()
        self._clients: dict[str, Any] = {}
        self._moto = BotocoreStubber()
        # Any credentials do: what arrives in-process is trusted.
        self._session = boto3.Session(
            aws_access_key_id="embedded",
            aws_secret_access_key="embedded",  # noqa: S106
            region_name=region,
        )

    def touch(self) -> None:
        """Tell all who wait that something changed."""
        with self.changed:
            self.version += 1
            self.changed.notify_all()

    def request(
        self, method: str, url: str, headers: Mapping[str, str], body: bytes
    ) -> tuple[int, Mapping[str, Any], bytes]:
        """Let moto answer one request.

        Args:
            method: The HTTP method.
            url: The URL as on AWS, its path still percent-encoded.
            headers: The request's headers.
            body: The request's body.

        Returns:
            Status, headers and body of the answer.

        Raises:
            NotImplementedError: moto does not know the service or the call.
        """
        canonical = HTTPHeaders()
        for key, value in headers.items():
            canonical[key] = value
        request = AWSPreparedRequest(method, url, canonical, body, False)
        with self.changed:
            answer = self._moto.process_request(request)
        if answer is None or (answer[0], answer[2]) == (404, "Not yet implemented"):
            raise NotImplementedError(f"{url.split('?')[0]} is not part of the local cloud.")
        status, answered, content = answer
        return int(status), answered, content.encode() if isinstance(content, str) else content

    def client(self, service: str) -> Any:
        """A boto3 client whose requests are answered in this process, without a socket."""
        with self.changed:
            if service not in self._clients:
                config = Config(
                    ignore_configured_endpoint_urls=True,
                    retries={"total_max_attempts": 1},
                    s3={"addressing_style": "virtual"},
                )
                client = self._session.client(service, config=config)
                client.meta.events.register_first(f"before-send.{service}.*", self._answer)
                self._clients[service] = client
            return self._clients[service]

    def _answer(self, request: AWSPreparedRequest, **_: Any) -> AWSResponse:
        body = request.body
        if not isinstance(body, bytes):
            body = body.read() if hasattr(body, "read") else (body or "").encode()
        status, headers, content = self.request(request.method, request.url, request.headers, body)
        return AWSResponse(request.url, status, headers, MockRawResponse(content))
