"""How fast hosts get a large asset when all fetch it at once: ``python -m bench.fetch``.

Deploys the local environment with a fleet of several hosts, lays an asset of random bytes among the web UI's
fixed ones, and has 1, 2, 4, … of them fetch it at the same time over the VPC. Then many fetches at the same
time, in turn (fleet/turnstile.py) and, in the same run, all at once, with the web UI's network limited
to what most hosts of eight vCPUs have. Web UI and hosts share this machine's processors here, which they do
not on AWS, so the figures to look at are the ratios.
"""

from __future__ import annotations

import argparse
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from statistics import mean, median

from bench.deployment_helpers import ENVIRONMENT, deployed, hosts, inside, until, webui
from fleet.simulate.options import whole
from localcloud.cloud import RunningCloud

ASSET = "bench.raw"
FOLDER = "/srv/data/openqa/share/factory/hdd/fixed"
GBPS = 3.125  # m7i.2xlarge: fleet/catalogue.toml
LIMIT = (
    "for link in /sys/class/net/ens*; do tc qdisc replace dev ${link##*/} root "
    f"tbf rate {GBPS}gbit burst 4mb latency 100ms; done"
)
SERVICE = "openqa-turnstile.service"
URL = f"http://webui.{ENVIRONMENT}.openqa.internal/assets/hdd/fixed/{ASSET}"


def main(arguments: list[str] | None = None) -> int:
    """Measures and prints.

    Args:
        arguments: the command line's words; None takes the process's own.
    """
    parser = argparse.ArgumentParser(prog="python -m bench.fetch", description=(__doc__ or "").split(":")[0])
    parser.add_argument("--hosts", type=whole(1, 16), default=4, help="how many hosts at most (%(default)s)")
    parser.add_argument("--mib", type=whole(1, 16384), default=1024, help="the asset's size (%(default)s)")
    parser.add_argument(
        "--fetches", type=whole(1, 1000), default=24, help="how many fetches in the second part (%(default)s)"
    )
    options = parser.parse_args(arguments)
    with deployed({"min = 1": f"min = {options.hosts}", "max = 2": f"max = {options.hosts}"}) as running:
        until(lambda: list(hosts(running).values()).count("InService") == options.hosts)
        lay_asset(running, options.mib)
        fetching = sorted(hosts(running))
        fetch(running, fetching[0])  # warms up: the asset is in memory for the first measurement, too
        print(f"{options.mib} MiB, MiB/s\n{'hosts':>5} {'each':>8} {'all':>8}  all/one host")
        alone = 0.0
        count = 1
        while count <= options.hosts:
            started = time.monotonic()
            with ThreadPoolExecutor(count) as pool:
                seconds = list(pool.map(lambda host: fetch(running, host), fetching[:count]))
            together = count * options.mib / (time.monotonic() - started)
            alone = alone or together
            each = options.mib / median(seconds)
            print(f"{count:5} {each:8.0f} {together:8.0f}  {together / alone:12.2f}", flush=True)
            count *= 2
        spread = [fetching[number % len(fetching)] for number in range(options.fetches)]
        inside(running, webui(running), LIMIT)
        print(f"{options.fetches} fetches at the same time over {GBPS} Gbit/s, seconds")
        print(f"{'':11} {'mean':>8} {'last':>8}")
        for way, act in (("in turn", "start"), ("all at once", "stop")):
            inside(running, webui(running), f"systemctl {act} openqa-turnstile.socket {SERVICE}")
            with ThreadPoolExecutor(len(spread)) as pool:
                seconds = list(pool.map(lambda host: fetch(running, host), spread))
            print(f"{way:11} {mean(seconds):8.1f} {max(seconds):8.1f}", flush=True)
    return 0


def lay_asset(running: RunningCloud, mib: int) -> None:
    """Makes the asset on the web UI host.

    Args:
        running: the cloud.
        mib: its size.
    """
    inside(
        running,
        webui(running),
        f"head -c {mib}M /dev/urandom >{FOLDER}/{ASSET}; chmod a+r {FOLDER}/{ASSET}",
    )


def fetch(running: RunningCloud, host: str) -> float:
    """Has a host fetch the asset, and returns the seconds that it took."""
    return float(
        inside(running, host, f"curl --silent --fail --output /dev/null --write-out '%{{time_total}}' {URL}")
    )


if __name__ == "__main__":
    sys.exit(main())
