"""A git repository and its working tree, handled in a container by a user who owns nothing else."""

from __future__ import annotations

from dataclasses import dataclass

from userdata.host import users
from userdata.host.commands import CommandError, run
from userdata.host.errors import HostError

# It has git and openQA's tools; the user can read no configuration there, and hence no key.
CONTAINER = "openqa-gru"
INSIDE = "/var/lib/openqa/content"
# Without a group, root's would be used. git takes a file for changed if its owner or group differs.
USER = f"{users.TESTS}:{users.TESTS}"
_CONFIG = "/etc/openqa-administrator"
# The user who may read the administrator's key, which is there.
ADMINISTRATOR = f"{users.ADMINISTRATOR}:{users.ADMINISTRATOR}"

_SECONDS = 3600
# A server that packs a large repository sends almost nothing meanwhile (git's keepalives, 5 bytes in 5 s).
_SILENCE_SECONDS = 600
_CANDIDATE = "refs/openqa/candidate"
_LOADED = "refs/openqa/loaded"


def inside(*words: str, user: str = USER, folder: str = INSIDE, seconds: int = 300) -> str:
    """Runs a command in the container and returns what it printed.

    Args:
        words: the command.
        user: who runs it.
        folder: where.
        seconds: when it is killed.

    Raises:
        CommandError: it failed; with its last line.
    """
    return run(
        [
            *("podman", "exec", f"--user={user}", f"--workdir={folder}"),
            # A home where only root may write: what openQA's own user left in another would be run here.
            *("--env=HOME=/", "--env=LC_ALL=C.UTF-8", "--env=PYTHONDONTWRITEBYTECODE=1"),
            *("--env=GIT_TERMINAL_PROMPT=0", f"--env=OPENQA_CONFIG={_CONFIG}", CONTAINER),
            *("timeout", "--kill-after=10", str(seconds)),
            *words,
        ],
        seconds=seconds + 60,
    )


@dataclass(frozen=True)
class Repository:
    """Where tests, needles or job templates come from.

    Attributes:
        name: ``tests``, ``needles`` or ``templates``: its working tree's folder.
        address: the repository's.
        ref: the ref to follow.
    """

    name: str
    address: str
    ref: str

    @property
    def tree(self) -> str:
        """The working tree, in the container."""
        return f"{INSIDE}/{self.name}"

    def fetch(self) -> str:
        """Fetches the ref and returns its commit. The working tree stays as it is.

        Raises:
            HostError: the repository does not answer, or has no such ref.
        """
        inside("git", "init", "--quiet", "--bare", f"{self.name}.git")
        # Left by a git that was killed, maybe on another host: nobody else works here.
        inside("find", f"{self.name}.git", "-name", "*.lock", "-delete")
        # No hooks, no helpers: only the repository's data.
        self._git(
            *("-c", "protocol.allow=never", "-c", "protocol.https.allow=always"),
            *("-c", "protocol.http.allow=always", "-c", "http.lowSpeedLimit=1000"),
            *("-c", f"http.lowSpeedTime={_SILENCE_SECONDS}", "fetch", "--quiet", "--no-tags"),
            *(self.address, f"+{self.ref}:{_CANDIDATE}"),
        )
        return self._git("rev-parse", "--verify", f"{_CANDIDATE}^{{commit}}").strip()

    def follows(self, new: str, old: str) -> bool:
        """Returns whether a new commit has the old one in its history."""
        return self._git("rev-list", "--count", f"{new}..{old}").strip() == "0"

    def check_out(self, commit: str) -> None:
        """Checks a commit out into the working tree; unchanged files are not touched.

        Raises:
            HostError: it failed.
        """
        self._git("checkout", "--quiet", "--force", "--detach", commit)
        self._git("clean", "--quiet", "-ffdx")

    def keep(self, commit: str) -> None:
        """Keeps a commit from being garbage-collected."""
        self._git("update-ref", _LOADED, commit)

    def _git(self, *words: str) -> str:
        try:
            return inside(
                *("git", f"--git-dir={self.name}.git", f"--work-tree={self.tree}"),
                # Releases are hard links, which change each file's ctime: git would rewrite the file.
                *("-c", "core.trustctime=false"),
                # Single objects and refs, too: empty ones, after a power failure, would break every fetch.
                *("-c", "core.fsync=all"),
                *("-c", "core.hooksPath=/dev/null", "-c", "advice.detachedHead=false", *words),
                seconds=_SECONDS,
            )
        except CommandError as error:
            raise HostError(f"{self.name} from {self.address} at {self.ref}: {error.reason}") from error
