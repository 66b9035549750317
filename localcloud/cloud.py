"""Starts, finds and stops clouds.

A cloud is one set of namespaces under one first process: when that is killed, the kernel clears all of it.
A running cloud holds a lock on its state directory, which is how others find it.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import boto3

from images import cache
from localcloud import internet as way_out
from localcloud import prerequisites
from localcloud.aws.ports import INTERRUPT
from localcloud.machine import remove_cgroup
from settings.model import LOCAL_ACCOUNT, LOCAL_REGION

STATES = Path("/run/openqa-on-aws")

_KEY = "local"  # any will do
_NAME = re.compile(r"[a-z][a-z0-9-]{0,30}")
_NAMESPACES = (
    *("unshare", "--mount", "--propagation", "private", "--net"),
    *("--pid", "--fork", "--kill-child"),
)
_END_SECONDS = 30
# Where a cloud, or a machine while it starts, has file systems of its own.
_HIDDEN = ("/proc", "/run", "/sys", "/tmp")  # noqa: S108


class CloudError(Exception):
    """A cloud could not be started, found or stopped; the text is one sentence."""


@dataclass(frozen=True, kw_only=True)
class Settings:
    """What the launcher tells the first process (:mod:`localcloud.runtime`), as JSON on its command line.

    Attributes:
        work: An empty directory on a disk.
        cgroup: The cloud's cgroup as an absolute path inside the cgroup file system.
        region: The AWS region.
        account: The AWS account.
        api: File descriptor of the listening socket of the AWS API.
        web: File descriptor of the listening socket of the web UI.
        ready: File descriptor that gets a line of JSON with the authority's certificate once all is up.
        alive: File descriptor that yields a byte once the cloud may stay, or ends without one if it may not.
        internet: The cloud has a way out to the internet.
    """

    work: str
    cgroup: str
    region: str
    account: str
    api: int
    web: int
    ready: int
    alive: int
    internet: bool


@dataclass(frozen=True, kw_only=True)
class RunningCloud:
    """A cloud that runs.

    Attributes:
        name: Its name.
        pid: Its first process.
        api_port: The AWS API's port on 127.0.0.1.
        web_port: The web UI's port (HTTPS) on 127.0.0.1.
        internet: Its instances reach the internet.
    """

    name: str
    pid: int
    api_port: int
    web_port: int
    internet: bool = False

    @property
    def endpoint(self) -> str:
        """The AWS API's address, by the name that CloudFormation's template URLs need."""
        return f"http://localhost:{self.api_port}"

    @property
    def url(self) -> str:
        """The web UI's address."""
        return f"https://localhost:{self.web_port}"

    @property
    def certificate(self) -> Path:
        """The certificate of the local certificate authority, a PEM file."""
        return _state(self.name) / "ca.pem"

    @property
    def log(self) -> Path:
        """The file that the cloud logs to."""
        return _state(self.name) / "log"

    @property
    def work(self) -> Path:
        """The directory that its machines write to: disks, volumes, consoles."""
        return _work(self.name)

    def console(self, instance: str) -> Path:
        """The file with an instance's whole console, even if it was terminated.

        Args:
            instance: The instance's id.
        """
        return self.work / "consoles" / f"{instance}.log"

    def leader(self, instance: str) -> int | None:
        """The process id of an instance's systemd; None if it does not run.

        Args:
            instance: The instance's id.
        """
        try:
            text = (_cgroup(self.name) / instance / "payload/init.scope/cgroup.procs").read_text()
        except OSError:
            return None
        return int(text.split()[0]) if text.split() else None

    def client(self, service: str) -> Any:
        """A boto3 client of this cloud.

        Args:
            service: The AWS service.
        """
        return boto3.client(
            service,
            endpoint_url=self.endpoint,
            region_name=LOCAL_REGION,
            aws_access_key_id=_KEY,
            aws_secret_access_key=_KEY,
        )

    def interrupt(self, instance: str, *, rebalance: bool = False) -> None:
        """Give a spot instance two minutes' notice that EC2 reclaims it, and then terminate it.

        Args:
            instance: The instance's id.
            rebalance: Only recommend replacing it, as EC2 does when an interruption is likely.

        Raises:
            CloudError: It is not a running spot instance.
        """
        query = urllib.parse.urlencode({"instance": instance, "rebalance": str(rebalance).lower()})
        request = urllib.request.Request(f"{self.endpoint}{INTERRUPT}?{query}", method="POST")  # noqa: S310
        try:
            urllib.request.urlopen(request, timeout=30).close()  # noqa: S310  # our own http:// address
        except urllib.error.HTTPError as error:
            raise CloudError(error.read().decode()) from error

    def host_events(self) -> list[dict[str, Any]]:
        """The events in which hosts reported why they failed, the oldest first."""
        logs = self.client("logs")
        found = [
            json.loads(event["message"])
            for group in logs.describe_log_groups(logGroupNamePrefix="/aws/events/")["logGroups"]
            for page in logs.get_paginator("filter_log_events").paginate(logGroupName=group["logGroupName"])
            for event in page["events"]
        ]
        return sorted(found, key=lambda event: str(event["time"]))

    def add_image(self, root: Path, *, parameter: str | None = None) -> str:
        """Register a root file system as an AMI, once.

        Args:
            root: The root file system; its name identifies it.
            parameter: The SSM parameter to put the AMI's id in.

        Returns:
            The AMI's id.
        """
        ec2 = self.client("ec2")
        known = ec2.describe_images(Filters=[{"Name": "name", "Values": [root.name]}])["Images"]
        image = str(known[0]["ImageId"] if known else ec2.register_image(Name=root.name)["ImageId"])
        (self.work / "images" / image).write_text(str(root.resolve()))
        if parameter:
            self.client("ssm").put_parameter(Name=parameter, Value=image, Type="String", Overwrite=True)
        return image

    def environment(self) -> dict[str, str]:
        """The environment variables that make programs use this cloud as their AWS."""
        return {
            "AWS_ENDPOINT_URL": self.endpoint,
            "AWS_ACCESS_KEY_ID": _KEY,
            "AWS_SECRET_ACCESS_KEY": _KEY,
            "AWS_REGION": LOCAL_REGION,
            "AWS_DEFAULT_REGION": LOCAL_REGION,
            "AWS_EC2_METADATA_DISABLED": "true",
            "REQUESTS_CA_BUNDLE": str(self.certificate),
            "OPENQA_URL": self.url,
            **unproxied(),
        }


def unproxied() -> dict[str, str]:
    """The environment variables that keep programs from asking a proxy for what is on this machine."""
    known = ",".join(filter(None, (os.environ.get(name) for name in ("no_proxy", "NO_PROXY"))))
    hosts = ",".join(dict.fromkeys([*filter(None, known.split(",")), "localhost"]))
    return {"no_proxy": hosts, "NO_PROXY": hosts}


def find(name: str, *, internet: bool = False) -> RunningCloud | None:
    """The running cloud of this name, once it is ready; None if there is none. Needs no root.

    Args:
        name: The cloud's name.
        internet: Its instances must reach the internet.

    Raises:
        CloudError: The name is not allowed, or its cloud lacks the internet.
    """
    _check_name(name)
    while (cloud := _living(name)) is not None and not cloud.certificate.exists():
        time.sleep(0.05)
    if internet and cloud is not None and not cloud.internet:
        raise CloudError(
            f"The local cloud {name!r} runs without the internet: "
            f"stop it first with 'python -m localcloud down --name {name}'."
        )
    return cloud


def _living(name: str) -> RunningCloud | None:
    """The cloud of this name, ready or not."""
    try:
        with (_state(name) / "lock").open() as lock:
            fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        with contextlib.suppress(OSError):
            return RunningCloud(**json.loads((_state(name) / "state.json").read_text()))
    except FileNotFoundError:
        pass
    return None


def start(name: str, *, api_port: int, web_port: int, internet: bool = False) -> RunningCloud:
    """Start a cloud and wait until it is ready. It goes away if this process ends before that.

    Args:
        name: The cloud's name.
        api_port: The AWS API's port on 127.0.0.1; 0 picks a free one.
        web_port: The web UI's port on 127.0.0.1; 0 picks a free one.
        internet: Instances reach the internet through this machine.

    Raises:
        CloudError: It could not be started.
    """
    with starting(name, api_port=api_port, web_port=web_port, internet=internet) as cloud:
        return cloud


@contextlib.contextmanager
def starting(name: str, *, api_port: int, web_port: int, internet: bool = False) -> Iterator[RunningCloud]:
    """Start a cloud for a block that uses it; once the block has ended without an error, the cloud stays.

    It goes away if the block raises, or if this process ends before the block does.

    Args:
        name: The cloud's name.
        api_port: The AWS API's port on 127.0.0.1; 0 picks a free one.
        web_port: The web UI's port on 127.0.0.1; 0 picks a free one.
        internet: Instances reach the internet through this machine.

    Raises:
        CloudError: It could not be started.
    """
    _check_name(name)
    if reason := prerequisites.missing():
        raise CloudError(reason)
    if any(cache.root().resolve().is_relative_to(hidden) for hidden in _HIDDEN):
        raise CloudError(
            f"The local cloud cannot keep its files in {cache.root()}: set OPENQA_CACHE to a folder "
            f"that is not below {', '.join(_HIDDEN)}."
        )
    # The cloud watches the reading end: a byte means that it may stay, an end without one that it may not.
    alive, staying = os.pipe()
    with os.fdopen(staying, "wb", buffering=0) as stay:
        try:
            cloud = _launch(name, api_port=api_port, web_port=web_port, alive=alive, internet=internet)
        finally:
            os.close(alive)
        try:
            yield cloud
        except BaseException:
            stop(name)
            raise
        with contextlib.suppress(BrokenPipeError):  # the cloud has ended in the meantime
            stay.write(b"k")


def _launch(name: str, *, api_port: int, web_port: int, alive: int, internet: bool) -> RunningCloud:
    if find(name) is not None:
        raise CloudError(f"The local cloud {name!r} is already running.")
    with _ended(name) as lock, contextlib.ExitStack() as stack:
        api = stack.enter_context(_listen(api_port, "AWS API", "--api-port"))
        web = stack.enter_context(_listen(web_port, "web UI", "--web-port"))
        (_state(name) / "work").symlink_to(_own_work(name))
        _work(name).mkdir(parents=True, mode=0o700)
        ready, telling = os.pipe()
        gone, holding = os.pipe()
        settings = Settings(
            work=str(_work(name)),
            cgroup=f"/{_cgroup(name).relative_to(_cgroup_mount())}",
            region=LOCAL_REGION,
            account=LOCAL_ACCOUNT,
            api=api.fileno(),
            web=web.fileno(),
            ready=telling,
            alive=alive,
            internet=internet,
        )
        log = stack.enter_context((_state(name) / "log").open("wb"))
        process = subprocess.Popen(
            [*_NAMESPACES, sys.executable, "-m", "localcloud.runtime", json.dumps(asdict(settings))],
            cwd=Path(__file__).parent.parent,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
            # Machines have users of their own, who must be able to read what is made here: their roots, say.
            umask=0o022,
            pass_fds=(lock, settings.api, settings.web, telling, alive, holding),
        )
        os.close(telling)
        os.close(holding)
        cloud = RunningCloud(
            name=name,
            pid=process.pid,
            api_port=api.getsockname()[1],
            web_port=web.getsockname()[1],
            internet=internet,
        )
        _write_state(cloud)
        with os.fdopen(gone, "rb"):
            if internet:
                _connect(process.pid, gone)
        with os.fdopen(ready, "rb") as answer:
            # Up to a line's end, not the file's: other processes than the writer hold the pipe open, too.
            told = answer.readline()
        if not told:
            process.wait()
            lines = cloud.log.read_text(errors="replace").splitlines()
            last = next((line for line in reversed(lines) if line.strip()), "it left no message")
            raise CloudError(f"The local cloud did not start: {last.strip()}")
        cloud.certificate.write_text(json.loads(told)["certificate"])
        return cloud


def _connect(pid: int, gone: int) -> None:
    try:
        way_out.connect(pid, gone=gone)
    except way_out.InternetError as error:
        os.kill(pid, signal.SIGKILL)
        raise CloudError(str(error)) from None


def stop(name: str) -> bool:
    """Stop a cloud and remove all of it.

    Args:
        name: The cloud's name.

    Returns:
        Whether one was running.

    Raises:
        CloudError: It did not end.
    """
    _check_root()
    _check_name(name)
    cloud = _living(name)
    if cloud is not None:
        with contextlib.suppress(ProcessLookupError):
            os.kill(cloud.pid, signal.SIGKILL)
    with _ended(name):
        shutil.rmtree(_state(name))
    return cloud is not None


def _check_name(name: str) -> None:
    if not _NAME.fullmatch(name):
        raise CloudError(
            f"{name!r} cannot name a local cloud: allowed are up to 31 lower-case letters, digits and "
            "hyphens, beginning with a letter."
        )


def _check_root() -> None:
    if os.geteuid() != 0:
        raise CloudError("The local cloud needs root: run it with sudo.")


def _state(name: str) -> Path:
    return STATES / name


def _work(name: str) -> Path:
    """Where a cloud writes: in the cache of whoever started it, which need not be the caller's."""
    link = _state(name) / "work"
    return link.readlink() if link.is_symlink() else _own_work(name)


def _own_work(name: str) -> Path:
    return cache.root() / "clouds" / name


def _cgroup_mount() -> Path:
    """Where control groups version 2 are mounted, in whatever layout the machine has."""
    for line in Path("/proc/self/mounts").read_text().splitlines():
        _, target, kind, *_ = line.split()
        if kind == "cgroup2":
            return Path(target)
    raise CloudError("The local cloud needs control groups version 2, which are not mounted here.")


def _cgroup(name: str) -> Path:
    return _cgroup_mount() / "openqa-on-aws" / name


def _populated(name: str) -> bool:
    try:
        return "populated 1" in (_cgroup(name) / "cgroup.events").read_text()
    except OSError:
        return False


def _clean(name: str) -> None:
    """Remove what a cloud that no longer runs left behind."""
    remove_cgroup(_cgroup(name))
    with contextlib.suppress(OSError):
        _cgroup(name).parent.rmdir()  # unless another cloud has its own there
    for work in {_work(name), _own_work(name)}:
        cache.remove(work)
    for file in ("state.json", "ca.pem", "log", "work"):
        (_state(name) / file).unlink(missing_ok=True)


@contextlib.contextmanager
def _ended(name: str) -> Iterator[int]:
    """Wait for the end of a cloud, remove what it left behind and take its lock.

    A killed cloud has ended once its machines have; one whose launcher was killed ends once it has loaded far
    enough to notice.
    """
    deadline = time.monotonic() + _END_SECONDS
    while time.monotonic() < deadline:
        with _lock(name) as lock:
            if lock is not None and not _populated(name):
                _clean(name)
                yield lock
                return
        time.sleep(0.05)
    raise CloudError(
        f"The local cloud {name!r} is being started elsewhere, or did not end within {_END_SECONDS} seconds."
    )


@contextlib.contextmanager
def _lock(name: str) -> Iterator[int | None]:
    """Take the cloud's lock: its file descriptor, or None if a running cloud holds it.

    A process that inherits the descriptor keeps the lock.
    """
    path = _state(name) / "lock"
    while True:
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        except FileNotFoundError:
            continue  # the directory was removed in between
        try:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                yield None
                return
            if _is(path, descriptor):
                yield descriptor
                return
        finally:
            os.close(descriptor)


def _is(path: Path, descriptor: int) -> bool:
    """Tell whether an open file is still the one at the path."""
    try:
        return os.path.samestat(path.stat(), os.fstat(descriptor))
    except FileNotFoundError:
        return False


def _listen(port: int, purpose: str, option: str) -> socket.socket:
    try:
        return socket.create_server(("127.0.0.1", port), backlog=128)
    except OSError as error:
        raise CloudError(
            f"Port {port} for the {purpose} is not free: choose another one, "
            f"as in 'python -m localcloud deploy {option} PORT'."
        ) from error


def _write_state(cloud: RunningCloud) -> None:
    new = _state(cloud.name) / "state.new"
    new.write_text(json.dumps(asdict(cloud)))
    new.rename(_state(cloud.name) / "state.json")
