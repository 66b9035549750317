"""Health checks of load balancer targets, by the Application Load Balancer's rules.

Reference: "Health checks for Application Load Balancer target groups" in AWS's user guide.
"""

from __future__ import annotations

import http.client
import threading
from dataclasses import dataclass, replace
from ipaddress import IPv4Address

from localcloud.aws.ports import HealthCheck, Target, TargetState


@dataclass(frozen=True, kw_only=True)
class Health:
    """What the checks of one target say so far.

    Attributes:
        state: The target's state.
        streak: Results in a row that contradict the state.
        description: Why it is not healthy.
    """

    state: TargetState = "initial"
    streak: int = 0
    description: str = "Target registration is in progress"

    def after(self, failure: str | None, check: HealthCheck) -> Health:
        """The health after one more check.

        The first success makes a new target healthy; later changes take as many results in a row as the
        target group says.

        Args:
            failure: Why the check failed; None if it passed.
            check: The target group's settings.
        """
        if failure is None:
            needed = 1 if self.state == "initial" else check.healthy
            return self._towards("healthy", needed, "")
        return self._towards("unhealthy", check.unhealthy, failure)

    def _towards(self, state: TargetState, needed: int, description: str) -> Health:
        if self.state == state:
            return replace(self, streak=0, description=description)
        if self.streak + 1 >= needed:
            return Health(state=state, description=description)
        return replace(self, streak=self.streak + 1)


def accepts(codes: str, status: int) -> bool:
    """Tell whether an HTTP status is a success.

    Args:
        codes: A matcher such as ``200``, ``200-299`` or ``200,302``.
        status: The status.
    """
    for part in codes.split(","):
        first, _, last = part.strip().partition("-")
        if int(first) <= status <= int(last or first):
            return True
    return False


def probe(check: HealthCheck, target: Target, source: IPv4Address) -> str | None:
    """Check one target once.

    Args:
        check: How.
        target: Whom.
        source: The load balancer's address.

    Returns:
        Why the check failed, in AWS's words; None if it passed.
    """
    port = target.port if check.port == "traffic-port" else int(check.port)
    connection = http.client.HTTPConnection(
        str(target.address), port, timeout=check.timeout, source_address=(str(source), 0)
    )
    try:
        connection.request("GET", check.path, headers={"User-Agent": "ELB-HealthChecker/2.0"})
        status = connection.getresponse().status
    except TimeoutError:
        return "Request timed out"
    except (OSError, http.client.HTTPException):
        return "Health checks failed"
    finally:
        connection.close()
    return None if accepts(check.codes, status) else f"Health checks failed with these codes: [{status}]"


class Checker:
    """Checks one target for as long as it runs, in a thread of its own.

    Args:
        check: How.
        target: Whom.
        source: The load balancer's address.
    """

    def __init__(self, check: HealthCheck, target: Target, source: IPv4Address) -> None:
        self.health = Health()
        self._stopped = threading.Event()
        threading.Thread(
            target=self._run, args=(check, target, source), daemon=True, name=f"health-{target.id}"
        ).start()

    def stop(self) -> None:
        """Stop checking."""
        self._stopped.set()

    def _run(self, check: HealthCheck, target: Target, source: IPv4Address) -> None:
        while not self._stopped.is_set():
            self.health = self.health.after(probe(check, target, source), check)
            self._stopped.wait(check.interval)
