"""The command line of the local cloud."""

from __future__ import annotations

import argparse
import os
import shlex
import sys
from collections.abc import Callable
from pathlib import Path

from botocore.exceptions import BotoCoreError, ClientError

from images import root
from images.errors import BuildError
from localcloud import cloud, deploy
from localcloud.cloud import CloudError, RunningCloud
from settings import ENVIRONMENTS, SettingsError


def main(arguments: list[str] | None = None) -> int:
    """Run one command.

    Args:
        arguments: The words after ``python -m localcloud``; None takes the process's own.

    Returns:
        The exit code: 0 done, 1 refused or failed.
    """
    options = _parser().parse_args(arguments)
    os.environ.update(cloud.unproxied())
    # Root starts a cloud, but every user may find it.
    os.umask(0o022)
    run: Callable[[argparse.Namespace], int] = options.run
    try:
        return run(options)
    except (CloudError, BuildError, SettingsError, OSError) as error:
        print(error, file=sys.stderr)
        return 1
    except (BotoCoreError, ClientError) as error:
        print(
            f"The local cloud {options.name!r} does not answer or has been stopped: {error}",
            file=sys.stderr,
        )
        return 1
    except KeyboardInterrupt:
        print("Interrupted.", file=sys.stderr)
        return 130


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m localcloud",
        description="A private AWS on this machine: an embedded AWS API, with small systemd machines as its "
        "EC2 instances. All of it lives in private namespaces and is gone after 'down'; none of it can be "
        "reached from outside this machine.",
    )
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")

    def add(name: str, run: Callable[[argparse.Namespace], int], text: str) -> argparse.ArgumentParser:
        command = commands.add_parser(name, help=text, description=f"{text[0].upper()}{text[1:]}.")
        command.add_argument("--name", default="local", help="the cloud's name (%(default)s)")
        command.set_defaults(run=run)
        return command

    starts = [
        add("up", _up, "start the cloud and wait until it is ready"),
        add("deploy", _deploy, "start the cloud, deploy an environment with the CDK CLI, run its sample job"),
    ]
    for command in starts:
        for option, default, purpose in (("--api-port", 4599, "AWS API"), ("--web-port", 8443, "web UI")):
            command.add_argument(
                option,
                type=_port,
                default=default,
                metavar="PORT",
                help=f"the {purpose}'s port on 127.0.0.1; 0 picks a free one (%(default)s)",
            )
        command.add_argument(
            "--internet",
            action="store_true",
            help="let instances reach the internet through this machine (otherwise nothing leaves the cloud)",
        )
    starts[1].add_argument("--no-smoke", dest="smoke", action="store_false", help="do not run the sample job")
    starts[1].add_argument(
        "environment",
        nargs="?",
        default="local",
        help="the environment to deploy, whose kind must be local (default: %(default)s)",
    )
    starts[1].add_argument(
        "--environments", type=Path, default=ENVIRONMENTS, metavar="DIRECTORY", help="where its file is"
    )
    add("down", _down, "stop the cloud and remove all of it")
    add("status", _status, "show what is running")
    add("env", _env, 'print shell exports for the AWS CLI and others: eval "$(python -m localcloud env)"')
    console = add("console", _console, "print an instance's console, even if it was terminated")
    console.add_argument("--follow", action="store_true", help="keep printing as it grows")
    shell = add("shell", _shell, "open a shell in an instance")
    interrupt = add("interrupt", _interrupt, "reclaim a spot instance: two minutes' notice, then termination")
    interrupt.add_argument("--rebalance", action="store_true", help="only recommend replacing it")
    for command in (console, shell, interrupt):
        command.add_argument("instance", help="the instance's id, as in 'status'")
    return parser


def _port(text: str) -> int:
    if not (text.isdecimal() and int(text) < 1 << 16):
        raise argparse.ArgumentTypeError(f"{text!r} is not a port: allowed are 0 to 65535")
    return int(text)


def _up(options: argparse.Namespace) -> int:
    found = cloud.find(options.name, internet=options.internet)
    if found is not None:
        print(f"The local cloud {found.name!r} is already running.")
        _tell(found)
        return 0
    with cloud.starting(
        options.name, api_port=options.api_port, web_port=options.web_port, internet=options.internet
    ) as started:
        started.add_image(root.golden_root(), parameter=deploy.IMAGE_PARAMETER)
        _tell(started)
    return 0


def _tell(found: RunningCloud) -> None:
    print(f"AWS API: {found.endpoint}\nweb UI, once deployed: {found.url}", flush=True)


def _deploy(options: argparse.Namespace) -> int:
    what = deploy.Options(
        environment=options.environment, environments=options.environments, smoke=options.smoke
    )
    return deploy.deploy(
        what,
        name=options.name,
        api_port=options.api_port,
        web_port=options.web_port,
        internet=options.internet,
    )


def _down(options: argparse.Namespace) -> int:
    stopped = cloud.stop(options.name)
    print(f"The local cloud {options.name!r} {'is gone' if stopped else 'was not running'}.")
    return 0


def _status(options: argparse.Namespace) -> int:
    found = _running(options.name)
    print(f"AWS API  {found.endpoint}\nweb UI   {found.url}\nlog      {found.log}")
    for reservation in found.client("ec2").describe_instances()["Reservations"]:
        for instance in reservation["Instances"]:
            tags = {tag["Key"]: tag["Value"] for tag in instance.get("Tags", [])}
            print(
                instance["InstanceId"],
                f"{instance['State']['Name']:<13}",
                f"{instance.get('PrivateIpAddress', ''):<15}",
                tags.get("aws:autoscaling:groupName", tags.get("Name", "")),
            )
    for event in found.host_events():
        detail = event["detail"]
        print(f"{event['time']} {event['detail-type']}: {detail['instance']}: {detail['reason']}")
    return 0


def _env(options: argparse.Namespace) -> int:
    variables = _running(options.name).environment()
    # Only once a cloud is known to run, because the caller's shell evaluates this.
    print("unset AWS_PROFILE AWS_SESSION_TOKEN")
    for name, value in variables.items():
        print(f"export {name}={shlex.quote(value)}")
    return 0


def _console(options: argparse.Namespace) -> int:
    path = _running(options.name).console(options.instance)
    if not path.exists():
        raise CloudError(f"{options.instance!r} is not an instance of the local cloud {options.name!r}.")
    os.execvp("tail", ["tail", "--lines=+1", *(["--follow"] if options.follow else []), str(path)])  # noqa: S606


def _shell(options: argparse.Namespace) -> int:
    leader = _running(options.name).leader(options.instance)
    if leader is None:
        raise CloudError(f"{options.instance!r} is not running in the local cloud {options.name!r}.")
    words = ["nsenter", f"--target={leader}", "--all", "--wdns=/root", "bash", "--login"]
    # The variables that `env` gave the caller's shell are of no use in an instance.
    own = {"HOME": "/root", "TERM": os.environ.get("TERM", "dumb")}
    os.execvpe("nsenter", words, own)  # noqa: S606


def _interrupt(options: argparse.Namespace) -> int:
    _running(options.name).interrupt(options.instance, rebalance=options.rebalance)
    return 0


def _running(name: str) -> RunningCloud:
    found = cloud.find(name)
    if found is None:
        raise CloudError(f"The local cloud {name!r} is not running: start it with 'python -m localcloud up'.")
    return found


if __name__ == "__main__":
    sys.exit(main())
