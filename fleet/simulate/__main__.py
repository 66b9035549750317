"""Play a workload against a policy: ``python -m fleet.simulate WORKLOAD --days N --seed S --policy NAME``."""

from __future__ import annotations

import argparse
import difflib
import json
import sys
from collections import defaultdict
from pathlib import Path

from fleet import catalogue, warm
from fleet.simulate import options, plot
from fleet.simulate.compare import IDEALS, SIMULATED, Place, bill, percentile, run, summary
from fleet.simulate.form import WorkloadError
from fleet.simulate.ideal import clairvoyant, floor, refusal
from fleet.simulate.progress import Progress, end_by_signals
from fleet.simulate.scenario import WEBUI
from fleet.simulate.workload import FEDORA, Post, generate
from fleet.warm import Warm

SAMPLE_SECONDS = 300.0


def main(arguments: list[str] | None = None) -> int:
    """Play, print, plot.

    Args:
        arguments: The command line's words; None takes the process's own.
    """
    parser = _parser()
    chosen = parser.parse_args(arguments)
    workload = FEDORA if chosen.workload == "fedora" else Path(chosen.workload)
    if not workload.is_file():
        parser.error(f"WORKLOAD {workload} is not a file; allowed are a workload file and the word fedora")
    times: defaultdict[str, list[Warm]] = defaultdict(list)
    for fleet, time in chosen.warm:
        times[fleet].append(time)
    place = Place(
        architecture=chosen.architecture,
        boot_seconds=chosen.boot,
        load=chosen.load,
        spot_mean_hours=chosen.spot_hours,
        warm=times,
        spare=dict(chosen.spare),
        webui=chosen.webui,
    )
    names = [fleet.name for fleet in place.scenario.fleets]
    for option, named in (("--warm", set(times)), ("--spare", set(place.spare))):
        if unknown := sorted(named - set(names)):
            parser.error(f"{option} names the fleet {unknown[0]}; allowed here are {', '.join(names)}")
    days, seed = chosen.days, chosen.seed
    try:
        posts = generate(
            workload=workload, days=days, seed=seed, load=place.load, architecture=place.architecture
        )
    except WorkloadError as error:
        parser.error(f"WORKLOAD {error}")
    if not posts:
        parser.error(f"WORKLOAD {workload}: no job arrives within {days:g} days")
    if refused := refusal(place.scenario, posts):
        parser.error(f"WORKLOAD {workload}: {refused}")
    answers: dict[str, dict[str, float]] = {}
    samples = {}
    for name in chosen.policy or ["ours"]:
        progress = Progress(name, days)
        if name in IDEALS:
            answers[name] = _ideal(name, place, posts, progress)
            continue
        sample = SAMPLE_SECONDS if chosen.plot else None
        outcome = run(name, place, posts, seed=seed, days=days, sample_seconds=sample, progress=progress)
        answers[name], samples[name] = summary(outcome, place), outcome.samples
        if outcome.unfinished:
            print(
                f"{name}: {outcome.unfinished} jobs had not ended when the simulation did; those that never "
                "had a worker are not in its waits",
                file=sys.stderr,
            )
    if chosen.json:
        print(json.dumps(answers, indent=2))
    else:
        for name, numbers in answers.items():
            print(f"{name}: " + ", ".join(f"{key} {value:g}" for key, value in numbers.items()))
    if chosen.plot:
        try:
            chosen.plot.write_text(plot.over_time(samples), encoding="utf-8")
        except OSError as error:
            print(f"{chosen.plot} cannot be written: {error.strerror}", file=sys.stderr)
            return 1
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m fleet.simulate", description="Simulate a load under one or more policies."
    )
    parser.add_argument("workload", help='fedora, or a workload file: docs/fleet.md, "Your own load"')
    parser.add_argument(
        "--days",
        type=options.number(0.01, options.MOST_DAYS),
        default=7.0,
        help="how many days to simulate (%(default)g)",
    )
    parser.add_argument("--seed", type=options.seed, default=1, help="another gives other days (%(default)s)")
    parser.add_argument(
        "--policy", action="append", choices=[*SIMULATED, *IDEALS], help="may be repeated (default: ours)"
    )
    parser.add_argument("--architecture", choices=["x86_64", "aarch64"], default="x86_64")
    parser.add_argument(
        "--boot",
        type=options.number(1, 86400),
        default=180.0,
        metavar="SECONDS",
        help="from launch to the first job; above 600 with metal types (%(default)g)",
    )
    parser.add_argument(
        "--load",
        type=options.whole(1, options.MOST_LOAD),
        default=1,
        help="multiply the workload's arrivals (%(default)s)",
    )
    parser.add_argument(
        "--spot-hours",
        # With less, jobs of an hour hardly ever end, and neither does the simulation.
        type=options.number(1, 10_000),
        metavar="HOURS",
        help="use spot hosts, at on-demand prices, with this mean time to an interruption",
    )
    parser.add_argument(
        "--warm",
        action="append",
        type=_warm,
        default=[],
        metavar="'FLEET TIME'",
        help="hosts to keep ready, such as 'plain-4 mon-sun 11:25-13:00 2'; may be repeated",
    )
    parser.add_argument(
        "--spare",
        action="append",
        type=_spare,
        default=[],
        metavar="'FLEET SHARE'",
        help="the share of spare slots to launch, such as 'plain-1 0.4'; may be repeated",
    )
    parser.add_argument(
        "--webui",
        type=_instance_type,
        default=WEBUI,
        metavar="TYPE",
        help="the instance type of the web UI's host, from which all fetch assets (%(default)s)",
    )
    parser.add_argument("--json", action="store_true", help="print the results as JSON")
    parser.add_argument(
        "--plot", type=options.file, metavar="FILE.svg", help="plot slots, queue and cost over time"
    )
    return parser


def _warm(text: str) -> tuple[str, Warm]:
    fleet, _, time = text.partition(" ")
    try:
        return fleet, warm.parse(time)
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"{error}, after the name of a fleet") from None


def _spare(text: str) -> tuple[str, float]:
    fleet, _, share = text.partition(" ")
    try:
        return fleet, options.number(0, 2)(share)
    except argparse.ArgumentTypeError as error:
        raise argparse.ArgumentTypeError(f"{error}, after the name of a fleet") from None


def _instance_type(text: str) -> str:
    if catalogue.find(text) is None:
        near = difflib.get_close_matches(text, catalogue.load(), n=4, cutoff=0)
        raise argparse.ArgumentTypeError(
            f"{text!r} is not a type in fleet/catalogue.toml, such as {', '.join(near)}"
        )
    return text


def _ideal(name: str, place: Place, posts: list[Post], progress: Progress) -> dict[str, float]:
    if name == "floor":
        return {"dollars": round(floor(place.scenario, posts), 2)}
    patience = place.boot_seconds if name.endswith("patient") else 0.0
    schedule = clairvoyant(place.scenario, posts, patience=patience, progress=progress)
    return {
        "dollars": round(schedule.dollars, 2),
        "wait_p95": round(percentile(schedule.waits, 0.95), 1),
        **bill(schedule.spans, place),
    }


if __name__ == "__main__":
    end_by_signals()
    sys.exit(main())
