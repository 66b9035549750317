"""How long synthesis takes, compared with the least that it could take: ``python -m bench.synth [ENV]``.

Three programs take turns, each a whole process, all with the same flags and validation:

- ``app.py`` with the environment;
- an app with no stack at all: what Python, Node and the CDK need to start;
- an app that reads the same templates and writes them again (``CfnInclude``): the floor for this output.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median

ROOT = Path(__file__).parent.parent
GOAL = 2.0  # times the floor


def main(arguments: list[str] | None = None) -> int:
    """Measures and prints; returns 1 where the goal is missed.

    Args:
        arguments: the command line's words; None takes the process's own.
    """
    # Not at the top: this module is also the empty app, which should import as little as possible.
    import settings
    from fleet.simulate.options import whole

    parser = argparse.ArgumentParser(prog="python -m bench.synth", description=(__doc__ or "").split(":")[0])
    parser.add_argument(
        "environment", nargs="?", default="production", metavar="ENV", help="the environment (%(default)s)"
    )
    parser.add_argument(
        "--runs", type=whole(1, 100), default=7, help="runs of each, besides one to warm up (%(default)s)"
    )
    parser.add_argument("--validate", action="store_true", help="run all validation, as cdk synth does")
    options = parser.parse_args(arguments)
    try:
        settings.load(options.environment)
    except settings.SettingsError as error:
        raise SystemExit(str(error)) from None
    with tempfile.TemporaryDirectory() as directory:
        output = Path(directory)
        this = [sys.executable, __file__]
        programs = {
            "app": ([sys.executable, "app.py"], output / "app"),
            "empty app": ([*this, "--empty"], output / "empty"),
            "same templates again": ([*this, "--again", str(output / "app")], output / "again"),
        }
        seconds: dict[str, list[float]] = {name: [] for name in programs}
        for turn in range(options.runs + 1):
            print(f"turn {turn} of {options.runs}" if turn else "warming up", file=sys.stderr, flush=True)
            for name, (command, place) in programs.items():
                taken = _seconds(command, place, options.environment, validate=options.validate)
                if turn:
                    seconds[name].append(taken)
    medians = {name: median(values) for name, values in seconds.items()}
    with_validation = "with" if options.validate else "without"
    print(f"{options.environment}, {with_validation} validation, medians of {options.runs} runs:")
    for name, value in medians.items():
        print(f"  {name:22} {value:5.2f} s   app takes {medians['app'] / value:4.2f} times that")
    missed = medians["app"] > GOAL * medians["same templates again"]
    print(f"goal: at most {GOAL} times the same templates again: {'missed' if missed else 'met'}")
    return int(missed)


def _seconds(command: list[str], output: Path, environment: str, *, validate: bool) -> float:
    context = {**json.loads((ROOT / "cdk.json").read_text())["context"], "env": environment}
    output.mkdir(exist_ok=True)
    variables = {
        **os.environ,
        "PYTHONPATH": str(ROOT),
        "CDK_CONTEXT_JSON": json.dumps(context),
        "CDK_OUTDIR": str(output),
        "CDK_VALIDATION": "true" if validate else "false",
    }
    begin = time.monotonic()
    subprocess.run(command, cwd=ROOT, env=variables, check=True, stdout=subprocess.DEVNULL)
    return time.monotonic() - begin


def _empty() -> None:
    import aws_cdk as cdk

    cdk.App(analytics_reporting=False).synth()


def _again(directory: Path) -> None:
    import aws_cdk as cdk
    from aws_cdk import cloudformation_include

    app = cdk.App(analytics_reporting=False)
    for file in sorted(directory.glob("*.template.json")):
        synthesizer = cdk.DefaultStackSynthesizer(generate_bootstrap_version_rule=False)
        stack = cdk.Stack(app, file.name.removesuffix(".template.json"), synthesizer=synthesizer)
        cloudformation_include.CfnInclude(stack, "Template", template_file=str(file))
    app.synth()


if __name__ == "__main__":
    match sys.argv[1:]:
        case ["--empty"]:
            _empty()
        case ["--again", directory]:
            _again(Path(directory))
        case _:
            sys.exit(main())
