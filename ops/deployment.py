"""A deployed environment as the operator sees it: the outputs of its stacks, and its openQA."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Literal
from urllib.parse import urlsplit

import boto3
import requests
from botocore.exceptions import BotoCoreError, ClientError
from openqa_client.client import OpenQA_Client
from openqa_client.exceptions import ConnectionError as Unreachable
from openqa_client.exceptions import OpenQAClientError, RequestError
from requests.adapters import HTTPAdapter

from settings import Environment, naming

# For a first connection to openQA.
CONNECT_SECONDS = 10.0


class DeploymentError(Exception):
    """The deployment prevents a command from doing its work; the text is one sentence."""


class _AnswerError(BotoCoreError):  # type: ignore[misc]
    """The answer is not what AWS sent."""

    fmt = "{why}"


def client(environment: Environment, service: str) -> Any:
    """Returns a client of one of AWS's services in the environment's region.

    Its calls raise botocore's errors even where botocore would take a proxy's page for an answer.

    Raises:
        DeploymentError: the shell's settings are invalid, such as an AWS_ENDPOINT_URL that is no address.
    """
    try:
        made = boto3.client(service, region_name=environment.region)
    except (BotoCoreError, ValueError) as error:
        raise DeploymentError(f"cannot use AWS's {service} with the shell's settings: {error}") from error
    made.meta.events.register("before-parse", _check_sender)
    return made


def _check_sender(response_dict: dict[str, Any], **_: object) -> None:
    """Refuses an answer that was cut off, or is not AWS's: AWS's have an id in a header or in their XML."""
    headers, body = response_dict["headers"], response_dict["body"]
    has_id = any(name in headers for name in ("x-amzn-requestid", "x-amz-request-id"))
    if not (has_id or (isinstance(body, bytes) and b"equestId>" in body)):
        if response_dict["status_code"] < 500:
            raise _AnswerError(why="the answer is not from AWS, but from a proxy, say")
        response_dict["body"] = b""  # botocore then retries by the status alone
    elif isinstance(body, bytes) and len(body) < int(headers.get("content-length", 0)):
        raise _AnswerError(why="the answer was cut off")


@contextmanager
def asking_aws_to(what: str, *, hints: Mapping[str, str] | None = None) -> Iterator[None]:
    """Turns AWS's errors in a block into one sentence.

    Args:
        what: what the block does, for the error: ``write the secret openqa/dev/sign-in``.
        hints: advice, by the part of AWS's own text that it is for.

    Raises:
        DeploymentError: AWS refuses or does not answer.
    """
    try:
        yield
    except (BotoCoreError, ClientError) as error:
        text = str(error)
        helpful = [f"; {hint}" for part, hint in (hints or {}).items() if part in text]
        raise DeploymentError(f"cannot {what}: {text}{''.join(helpful)}") from error


def check_account(environment: Environment, account: str) -> None:
    """Refuses credentials of another account, which may have an environment of this name, too.

    Args:
        environment: whose.
        account: what the shell's credentials belong to.

    Raises:
        DeploymentError: it is not the environment's.
    """
    if account != environment.account:
        raise DeploymentError(
            f"the shell's credentials belong to account {account}, but {environment.name} is in account "
            f"{environment.account}: nothing was done"
        )


def tagged(environment: Environment) -> list[dict[str, Any]]:
    """Returns the filters by which AWS finds what has the environment's tags."""
    return [{"Name": f"tag:{key}", "Values": [value]} for key, value in naming.tags(environment).items()]


def deployed_groups(environment: Environment) -> list[dict[str, Any]]:
    """Reads the environment's Auto Scaling groups, also those that its file no longer names.

    Returns:
        As AWS describes them; one that is being deleted has a ``Status``.

    Raises:
        DeploymentError: AWS refuses or does not answer.
    """
    pages = (
        client(environment, "autoscaling")
        .get_paginator("describe_auto_scaling_groups")
        .paginate(Filters=tagged(environment))
    )
    with asking_aws_to(f"read {environment.name}'s Auto Scaling groups"):
        return [group for page in pages for group in page["AutoScalingGroups"]]


def stack_outputs(environment: Environment, part: str) -> dict[str, str]:
    """Reads the outputs of one of an environment's stacks.

    Args:
        environment: whose.
        part: the stack, such as ``webui``.

    Returns:
        Output key to value; looking up a missing key also raises DeploymentError.

    Raises:
        DeploymentError: there is no such stack, the shell's credentials belong to another account than the
            environment's, or AWS does not answer.
    """
    stack = naming.stack(environment, part)
    hint = "deploy it first, or check that the shell's credentials belong to that account"
    with asking_aws_to(
        f"read the stack {stack} in account {environment.account}, {environment.region}",
        hints={"does not exist": hint},
    ):
        found = client(environment, "cloudformation").describe_stacks(StackName=stack)["Stacks"][0]
    check_account(environment, found["StackId"].split(":")[4])
    outputs = {output["OutputKey"]: output["OutputValue"] for output in found.get("Outputs", [])}
    return _Outputs(stack, outputs)


class _Outputs(dict[str, str]):
    """A stack's outputs. A stack that is being created, or that failed, has none yet."""

    def __init__(self, stack: str, outputs: dict[str, str]) -> None:
        super().__init__(outputs)
        self._stack = stack

    def __missing__(self, key: str) -> str:
        raise DeploymentError(f"the stack {self._stack} has no output {key}: complete its deployment first")


class _Patience(HTTPAdapter):
    """Waits at most `CONNECT_SECONDS` for a connection; the system would wait for minutes."""

    def send(self, request: requests.PreparedRequest, *args: Any, **arguments: Any) -> requests.Response:
        return super().send(request, *args, **{**arguments, "timeout": (CONNECT_SECONDS, None)})


class OpenQa:
    """openQA's REST API with the deployment's own API key."""

    def __init__(self, *, url: str, key: str, secret: str) -> None:
        self.url = url.rstrip("/")
        self._client = OpenQA_Client(server=self.url, wait=5)
        self._client.session.headers["X-API-Key"] = key
        self._client.apisecret = secret
        self._client.session.mount(f"{urlsplit(self.url).scheme}://", _Patience())

    def request(self, method: Literal["GET", "POST"], path: str, **arguments: Any) -> Any:
        """Sends one request to ``/api/v1/PATH``.

        Args:
            method: HTTP method.
            path: below ``/api/v1/``.
            arguments: ``params``, ``data`` or ``json``, as in the requests library.

        Returns:
            The answer, parsed.

        Raises:
            DeploymentError: openQA does not answer or refuses.
        """
        # openQA may have acted on a request without answering: sent again, it would act twice.
        retries = 3 if method == "GET" else 0
        try:
            return self._client.openqa_request(method, path, retries=retries, **arguments)
        except (OpenQAClientError, requests.RequestException, ValueError) as error:  # such as a host a..b
            raise DeploymentError(
                f"openQA at {self.url}: {method} {path} failed: {_reason(error, method)}"
            ) from error


@contextmanager
def understood(openqa: OpenQa) -> Iterator[None]:
    """Guards a block that reads openQA's answers: another service may have given them.

    Raises:
        DeploymentError: they do not have openQA's form.
    """
    try:
        yield
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise DeploymentError(
            f"{openqa.url} does not answer as openQA does ({error!r}): check that this is its address"
        ) from error


def _reason(error: Exception, method: str) -> str:
    """Says why a request failed, without pages of HTML, and whether openQA may still have acted on it."""
    if isinstance(error, Unreachable) and isinstance(error.err, requests.ConnectTimeout):
        return f"no connection within {CONNECT_SECONDS:g} s; only the ranges in trusted are let in"
    again = "" if method == "GET" else "; before you try again, check whether it was done"
    if not isinstance(error, RequestError):
        return f"{error}{again}"
    text = " ".join(error.text.split())
    said = f": {text[:500]}" if text and text[0] != "<" else ""
    return f"it answered {error.status_code}{said}{again}"


def connect(environment: Environment, *, url: str | None = None) -> OpenQa:
    """Opens the API of a deployed openQA with the key that the deployment generated.

    Args:
        environment: the settings.
        url: where the web UI answers; None: the address in the stack's outputs.

    Returns:
        The API.

    Raises:
        DeploymentError: the environment is not deployed, or its key cannot be read.
    """
    outputs = stack_outputs(environment, "webui")
    manager = client(environment, "secretsmanager")
    with asking_aws_to(f"read the API key of {environment.name}"):
        text = manager.get_secret_value(SecretId=outputs["ApiKeySecretArn"]).get("SecretString")
    if text is None:
        raise DeploymentError(f"the API key of {environment.name} is not text: its secret holds bytes")
    # The secret holds 32 hexadecimal digits: the key, then the key's secret, of 16 each.
    return OpenQa(url=url or outputs["Url"], key=text[:16], secret=text[16:])
