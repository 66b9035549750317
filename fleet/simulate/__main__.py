"""Play a workload against a policy: ``python -m fleet.simulate WORKLOAD --days N --seed S --policy NAME``."""

from __future__ import annotations

import argparse
import json
import sys
from collections import defaultdict
from pathlib import Path

from fleet import schedule
from fleet.schedule import Warm
from fleet.simulate import plot
from fleet.simulate.compare import IDEALS, SIMULATED, Place, bill, percentile, run, summary
from fleet.simulate.ideal import clairvoyant, floor
from fleet.simulate.workload import FEDORA, Post, generate

SAMPLE_SECONDS = 300.0


def main() -> int:
    """Play, print, plot."""
    parser = argparse.ArgumentParser(
        prog="python -m fleet.simulate", description="Play a load against policies."
    )
    parser.add_argument("workload", help="a workload file, or fedora")
    parser.add_argument("--days", type=float, default=7.0)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument(
        "--policy", action="append", choices=[*SIMULATED, *IDEALS], help="again for more than one"
    )
    parser.add_argument("--architecture", choices=["x86_64", "aarch64"], default="x86_64")
    parser.add_argument("--boot", type=float, default=180.0, metavar="SECONDS", help="above 600: metal types")
    parser.add_argument("--load", type=int, default=1, help="so many times the workload's arrivals")
    parser.add_argument(
        "--spot-hours", type=float, metavar="HOURS", help="spot hosts: mean time to an interruption"
    )
    parser.add_argument(
        "--warm",
        action="append",
        type=_warm,
        default=[],
        metavar="'FLEET TIME'",
        help="hosts to keep, such as 'plain-48 mon-sun 11:25-13:00 2'; again for more than one",
    )
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--plot", type=Path, metavar="FILE.svg", help="slots, queue and cost over time")
    arguments = parser.parse_args()
    workload = FEDORA if arguments.workload == "fedora" else Path(arguments.workload)
    if not workload.is_file():
        parser.error(f"WORKLOAD {workload} is no file; allowed are a workload file and the word fedora")
    warm: defaultdict[str, list[Warm]] = defaultdict(list)
    for fleet, times in arguments.warm:
        warm[fleet].append(times)
    place = Place(
        architecture=arguments.architecture,
        boot_seconds=arguments.boot,
        load=arguments.load,
        spot_mean_hours=arguments.spot_hours,
        warm=warm,
    )
    names = [fleet.name for fleet in place.scenario.fleets]
    if unknown := sorted(set(warm) - set(names)):
        parser.error(f"--warm names the fleet {unknown[0]}; allowed here are {', '.join(names)}")
    posts = generate(
        workload=workload,
        days=arguments.days,
        seed=arguments.seed,
        load=place.load,
        architecture=place.architecture,
    )
    answers: dict[str, dict[str, float]] = {}
    samples = {}
    for name in arguments.policy or ["ours"]:
        if name in IDEALS:
            answers[name] = _ideal(name, place, posts)
            continue
        sample = SAMPLE_SECONDS if arguments.plot else None
        outcome = run(name, place, posts, seed=arguments.seed, days=arguments.days, sample_seconds=sample)
        answers[name], samples[name] = summary(outcome, place), outcome.samples
    if arguments.plot:
        arguments.plot.write_text(plot.over_time(samples), encoding="utf-8")
    if arguments.json:
        print(json.dumps(answers, indent=2))
    else:
        for name, numbers in answers.items():
            print(f"{name}: " + ", ".join(f"{key} {value:g}" for key, value in numbers.items()))
    return 0


def _warm(text: str) -> tuple[str, Warm]:
    fleet, _, time = text.partition(" ")
    try:
        return fleet, schedule.parse(time)
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"{error}, after the name of a fleet") from None


def _ideal(name: str, place: Place, posts: list[Post]) -> dict[str, float]:
    if name == "floor":
        return {"dollars": round(floor(place.scenario, posts), 2)}
    patience = place.boot_seconds if name.endswith("patient") else 0.0
    schedule = clairvoyant(place.scenario, posts, patience=patience)
    return {
        "dollars": round(schedule.dollars, 2),
        "wait_p95": round(percentile(schedule.waits, 0.95), 1),
        **bill(schedule.spans, place),
    }


if __name__ == "__main__":
    sys.exit(main())
