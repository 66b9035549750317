"""The instance metadata service, version 2 only."""

from __future__ import annotations

import time
import urllib.error
import urllib.request
from collections.abc import Callable
from http.client import HTTPException

from userdata.host.errors import HostError

ENDPOINT = "http://169.254.169.254"
_TOKEN_SECONDS = 21600
_ATTEMPTS = 10


class Metadata:
    """Reads the instance metadata, with a session token that is renewed when it is refused.

    Args:
        endpoint: the service's URL.
        sleep: waits between attempts; takes seconds.
    """

    def __init__(self, endpoint: str = ENDPOINT, sleep: Callable[[float], None] = time.sleep) -> None:
        self._endpoint = endpoint
        self._sleep = sleep
        self._token = ""

    def find(self, path: str) -> str | None:
        """Returns what ``latest/meta-data/PATH`` holds, or None if it does not exist.

        Raises:
            HostError: the service did not answer after several attempts.
        """
        reason = ""
        for attempt in range(_ATTEMPTS):
            if attempt:
                self._sleep(1)
            try:
                if not self._token:
                    self._token = self._request(
                        "PUT",
                        "latest/api/token",
                        {"X-aws-ec2-metadata-token-ttl-seconds": str(_TOKEN_SECONDS)},
                    )
                return self._request(
                    "GET", f"latest/meta-data/{path}", {"X-aws-ec2-metadata-token": self._token}
                )
            except urllib.error.HTTPError as error:
                if error.code == 404:
                    return None
                if error.code == 401:
                    self._token = ""
                reason = f"HTTP {error.code}"
            except (OSError, HTTPException) as error:
                reason = str(error)
        raise HostError(f"instance metadata: {path} cannot be read: {reason}")

    def get(self, path: str) -> str:
        """Returns what ``latest/meta-data/PATH`` holds.

        Raises:
            HostError: it does not exist, or the service did not answer.
        """
        value = self.find(path)
        if value is None:
            raise HostError(f"instance metadata: there is no {path}")
        return value

    def _request(self, method: str, path: str, headers: dict[str, str]) -> str:
        request = urllib.request.Request(  # noqa: S310  # a fixed http:// address
            f"{self._endpoint}/{path}", method=method, headers=headers
        )
        # No proxy, whatever the environment says: the address is link-local.
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        with opener.open(request, timeout=2) as response:
            body: bytes = response.read()
        return body.decode()
