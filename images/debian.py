"""Debian root file systems, made by mmdebstrap from signed packages and kept in the cache."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from images import cache, recipe
from images.container import execute, log_path

# A host has a name of its own; enter.sh shows the machine's resolver in the place of systemd-resolved's file.
_FINISH = 'rm -f "$1/etc/hostname"; ln -sf ../run/systemd/resolve/stub-resolv.conf "$1/etc/resolv.conf"'


@dataclass(frozen=True, kw_only=True)
class DebianRoot:
    """A root with the required packages and those given, without recommended ones."""

    name: str  # what it is for
    packages: tuple[str, ...]

    @property
    def path(self) -> Path:
        """Where it is, once made."""
        content = (recipe.DISTRIBUTIONS["debian"], recipe.PACKAGES_AS_OF, _FINISH, *sorted(self.packages))
        return cache.root() / "roots" / f"{self.name}-{recipe.digest(text.encode() for text in content)}"

    def make(self) -> Path:
        """Returns its path, after making it on first use: about half a minute.

        Raises:
            BuildError: mmdebstrap failed.
        """
        if not self.path.exists():
            with cache.step(f"root {self.name}"), cache.workspace() as folder:
                command = ["mmdebstrap", "--variant=minbase", f"--include={','.join(self.packages)}"]
                command += ["--format=directory", f"--customize-hook={_FINISH}"]
                command += [recipe.DISTRIBUTIONS["debian"], str(folder / "root")]
                execute(command, log=log_path(f"root-{self.name}"))
                cache.publish(folder / "root", self.path)
        return self.path
