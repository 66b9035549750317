"""What sets up a machine: the Makefile and the scripts of ``tools/``."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[2]


def test_a_registry_out_of_reach_is_told(tmp_path: Path) -> None:
    for name in ("Makefile", "package.json", "package-lock.json"):
        shutil.copy(REPOSITORY / name, tmp_path)
    (tmp_path / ".venv").symlink_to(REPOSITORY / ".venv")
    options = {"registry": "http://127.0.0.1:1", "cache": str(tmp_path / "cache"), "fetch_retries": "0"}
    done = subprocess.run(
        ["make", "--old-file=.venv/.complete", "node_modules/.complete"],
        cwd=tmp_path,
        env=os.environ | {f"npm_config_{name}": value for name, value in options.items()},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2
    assert "request to http://127.0.0.1:1/aws-cdk failed" in done.stderr


def test_what_is_deleted_is_what_was_named() -> None:
    said = subprocess.run(
        [
            # Its own directory is told of within another make.
            *("make", "--no-print-directory", "--dry-run", "--old-file=setup", "destroy"),
            *("ENV=mine", "ENVIRONMENTS=/files", "DELEGATION=removed"),
        ],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        check=True,
    ).stdout.replace("\\\n", "")
    assert [line.split() for line in said.splitlines()] == [
        [
            *(".venv/bin/python", "-m", "ops", "--env", "mine", "--environments", "/files", "remove"),
            *("--yes-delete-results-and-backups", "--delegation-removed"),
        ],
        ["cdk", "destroy", "--all", "--force", "-c", "env=mine", "-c", "environments=/files"],
    ]


# Plays a sudo that keeps of its environment what it is told to.
SUDO = """#!/bin/bash
kept=(PATH="$PATH" SUDO=yes)
for name in $(tr , " " <<<"${1#--preserve-env=}"); do kept+=("$name=${!name-}"); done
shift
exec env --ignore-environment "${kept[@]}" "$@"
"""
PROXIES = ("http_proxy", "https_proxy", "no_proxy", "HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY")


def test_what_runs_by_sudo_uses_the_same_proxies(tmp_path: Path) -> None:
    for name, script in (
        ("id", "#!/bin/sh\necho 1000\n"),
        ("sudo", SUDO),
        ("tools/prerequisites.sh", "#!/bin/sh\nenv\n"),
    ):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(script)
        (tmp_path / name).chmod(0o755)
    shutil.copy(REPOSITORY / "Makefile", tmp_path)
    proxies = {name: f"of-{name}" for name in PROXIES}
    said = subprocess.run(
        ["make", "--old-file=setup", "machine"],
        cwd=tmp_path,
        env=os.environ | {"PATH": f"{tmp_path}:{os.environ['PATH']}", **proxies},
        capture_output=True,
        text=True,
        check=True,
    ).stdout.splitlines()
    assert "SUDO=yes" in said
    assert {f"{name}={value}" for name, value in proxies.items()} <= set(said)


# Plays a package manager that has nothing, and notes what may start while it installs.
APT = """#!/bin/sh
[ "$1" = install ] || exit 0
"$POLICY" any start
echo "$?" >>"$POLICY.answers"
[ -z "$KILLED" ] || kill -KILL "$PPID"
"""


@pytest.fixture
def policy(tmp_path: Path) -> Path:
    """Where the script puts its policy, in a folder with the programs that it runs."""
    for name, script in (
        ("apt-get", APT),
        ("dpkg-query", ""),
        ("systemctl", ""),
        ("sudo", '#!/bin/sh\nshift\nexec "$@"\n'),
    ):
        (tmp_path / name).write_text(script or "#!/bin/sh\n")
        (tmp_path / name).chmod(0o755)
    script = (REPOSITORY / "tools/prerequisites.sh").read_text()
    policy = tmp_path / "policy-rc.d"
    (tmp_path / "prerequisites.sh").write_text(script.replace("/usr/sbin/policy-rc.d", str(policy)))
    return policy


def install(policy: Path, **environment: str) -> int:
    path = f"{policy.parent}:{os.environ['PATH']}"
    return subprocess.run(
        ["bash", str(policy.parent / "prerequisites.sh"), "machine"],
        env=os.environ | {"PATH": path, "POLICY": str(policy), **environment},
        check=False,
    ).returncode


def test_services_may_start_again_after_an_installation_that_was_killed(policy: Path) -> None:
    assert install(policy, KILLED="1") == -signal.SIGKILL
    assert subprocess.run([policy], check=False).returncode == 0
    assert install(policy) == 0
    assert Path(f"{policy}.answers").read_text().split() == ["101", "101"]
    assert not policy.exists()


def test_a_policy_of_the_machines_own_stays(policy: Path) -> None:
    policy.write_text("#!/bin/sh\nexit 104\n")
    policy.chmod(0o755)
    assert install(policy) == 0
    assert policy.read_text() == "#!/bin/sh\nexit 104\n"
