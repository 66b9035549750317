import os
import platform
import subprocess
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path

import pytest

from images import build, cache, recipe, root
from images.__main__ import main
from images.container import Bind
from images.debian import DebianRoot
from images.errors import BuildError
from images.recipe import Recipe

ARCHITECTURE = platform.machine()
ELSEWHERE = next(name for name in recipe.ARCHITECTURES if name != ARCHITECTURE)


class Podman:
    """Stands in for the builder: keeps the names of images and writes what is exported."""

    def __init__(self) -> None:
        self.commands: list[list[str]] = []
        self.images: set[str] = set()
        self.fails_at = ""

    def run(
        self, root: Path, command: Sequence[str], *, binds: Iterable[Bind] = (), log: Path | None = None
    ) -> None:
        self.commands.append(list(command))
        out = [bind.source for bind in binds if bind.target == "/out"]
        if command[:2] == ["podman", "build"]:
            self.images |= {arg.removeprefix("--tag=") for arg in command if arg.startswith("--tag=")}
        elif command[:3] == ["podman", "image", "exists"] and command[3] not in self.images:
            raise BuildError("no such image")
        for argument in command:
            _, is_output, name = argument.partition("/out/")
            if is_output:
                (out[0] / name).write_text("part of it")
        if self.fails_at in command:
            raise BuildError("it failed")

    def built(self) -> list[str]:
        tags = [a for command in self.commands for a in command if a.startswith("--tag=")]
        return [tag.removeprefix("--tag=localhost/openqa-").partition(":")[0] for tag in tags]


@pytest.fixture(autouse=True)
def podman(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Podman:
    fake = Podman()
    monkeypatch.setenv("OPENQA_CACHE", str(tmp_path))
    monkeypatch.setattr(build, "run", fake.run)
    monkeypatch.setattr(DebianRoot, "make", lambda self: self.path)
    return fake


def files(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.rglob("*") if path.is_file() and path.suffix != ".lock")


def test_all_is_built_and_layers_are_shared(podman: Podman) -> None:
    archives = build.build("debian", ARCHITECTURE)
    assert list(archives) == [*recipe.IMAGES, *recipe.ARTIFACTS]
    assert all(path.exists() for path in archives.values())
    assert sorted(podman.built()) == sorted(recipe.PARENTS.keys() - set(recipe.ON_DEMAND))


def test_an_image_is_built_after_what_it_is_built_on(podman: Podman) -> None:
    build.archive(Recipe("webui", "debian", ARCHITECTURE))
    assert podman.built() == ["base", "openqa", "webui"]


def test_what_is_built_is_not_built_again(podman: Podman) -> None:
    first = build.archive(Recipe("proxy", "debian", ARCHITECTURE))
    podman.commands.clear()
    assert build.archive(Recipe("proxy", "debian", ARCHITECTURE)) == first
    assert podman.commands == []


@pytest.mark.parametrize("name", ["proxy", "sample"])
def test_archive_prints_the_path_and_nothing_else(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["archive", name]) == 0
    printed = capsys.readouterr()
    assert printed.out == f"{build.archive_path(Recipe(name, 'debian', ARCHITECTURE))}\n"
    assert name in printed.err


def test_archive_of_what_is_built_says_no_more_than_the_path() -> None:
    path = build.archive(Recipe("proxy", "debian", ARCHITECTURE))
    done = subprocess.run(
        [sys.executable, "-m", "images", "archive", "proxy"], capture_output=True, text=True, check=True
    )
    assert done.stdout == f"{path}\n"
    assert done.stderr == ""


@pytest.mark.parametrize(("name", "fails_at"), [("proxy", "save"), ("sample", "/build/build.sh")])
def test_a_failed_build_leaves_nothing_and_says_so_in_one_line(
    name: str, fails_at: str, podman: Podman, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    podman.fails_at = fails_at
    assert main(["archive", name]) == 1
    printed = capsys.readouterr()
    assert printed.out == ""
    assert printed.err.splitlines()[-1] == "it failed"
    assert files(tmp_path) == []


def test_nothing_is_built_for_another_architecture(
    podman: Podman, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["archive", "worker", "--arch", ELSEWHERE]) == 1
    assert f"cannot build worker for {ELSEWHERE} on {ARCHITECTURE}" in capsys.readouterr().err
    assert podman.commands == []


def test_how_to_build_it_there_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["archive", "worker", "--arch", ELSEWHERE, "--package=b", "--package=a"]) == 1
    words = f"archive worker --os debian --arch {ELSEWHERE} --package=b --package=a"
    assert f"run sudo .venv/bin/python -m images {words}, and" in capsys.readouterr().err


def test_how_to_build_all_of_it_there_is_told_at_once(
    podman: Podman, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["build", "--arch", ELSEWHERE]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert f"cannot build images for {ELSEWHERE} on {ARCHITECTURE}" in line
    assert f"run sudo .venv/bin/python -m images build --os debian --arch {ELSEWHERE}, and" in line
    assert line.endswith(f"to {tmp_path}/images/debian-{ELSEWHERE}")
    assert podman.commands == []


def test_what_was_copied_from_there_is_taken() -> None:
    for name in recipe.IMAGES + recipe.ARTIFACTS:
        path = build.archive_path(Recipe(name, "debian", ELSEWHERE))
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    assert main(["build", "--arch", ELSEWHERE]) == 0


def test_what_is_fedoras_on_every_host_is_built_on_fedora(
    podman: Podman, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["archive", "consumer"]) == 0
    assert "/images/fedora-" in capsys.readouterr().out
    assert ["podman", "pull", "fedora:44"] in podman.commands


def test_packages_are_put_on_top_of_what_all_workers_have(podman: Podman) -> None:
    plain = build.archive(Recipe("worker", "debian", ARCHITECTURE))
    podman.commands.clear()
    more = build.archive(Recipe("worker", "debian", ARCHITECTURE, ("libone-perl", "libtwo-perl")))
    assert more != plain
    assert podman.built() == ["worker"]
    (command,) = [command for command in podman.commands if command[:2] == ["podman", "build"]]
    assert "--build-arg=PACKAGES=libone-perl libtwo-perl" in command


def test_fedora_starts_from_a_pulled_image(podman: Podman) -> None:
    build.archive(Recipe("proxy", "fedora", ARCHITECTURE))
    assert ["podman", "pull", "fedora:44"] in podman.commands
    base = next(command for command in podman.commands if command[:2] == ["podman", "build"])
    assert "--build-arg=BASE=fedora:44" in base


def test_what_cannot_be_pulled_is_named(podman: Podman, capsys: pytest.CaptureFixture[str]) -> None:
    podman.fails_at = "pull"
    assert main(["archive", "proxy", "--os", "fedora"]) == 1
    assert "cannot pull fedora:44, the base of fedora images" in capsys.readouterr().err


def test_list_tells_what_is_built(capsys: pytest.CaptureFixture[str]) -> None:
    build.archive(Recipe("proxy", "debian", ARCHITECTURE))
    capsys.readouterr()
    assert main(["list"]) == 0
    lines = dict(line.split(maxsplit=1) for line in capsys.readouterr().out.splitlines())
    assert list(lines) == [*recipe.IMAGES, *recipe.ARTIFACTS, *recipe.ON_DEMAND]
    assert "to build" in lines["webui"]
    assert "on demand" in lines["consumer"]
    assert "to build" not in lines["proxy"]


def test_clean_keeps_what_the_recipes_name(tmp_path: Path) -> None:
    kept = build.archive(Recipe("proxy", "debian", ARCHITECTURE))
    roots = [build.BUILDER.path, build.CONTAINER.path, root.BASE.path, root.plain_path(), root.golden_path()]
    old = [kept.with_name("proxy-0000000000000000.oci.tar"), roots[0].with_name("builder-0000000000000000")]
    for path in (*roots, *old):
        path.mkdir(parents=True)
    assert main(["clean"]) == 0
    assert all(path.exists() for path in (kept, *roots))
    assert not any(path.exists() for path in old)
    assert not (tmp_path / "storage").exists()


def test_an_ended_clean_leaves_no_half_of_anything_under_its_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    old = tmp_path / "roots" / "golden-0000000000000000"
    old.mkdir(parents=True)

    def begin(path: Path) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(cache, "remove", begin)
    assert main(["clean"]) == 130
    assert not old.exists()


def test_all_may_read_the_cache_whatever_the_umask(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENQA_CACHE", str(tmp_path / "cache"))
    before = os.umask(0o077)
    try:
        assert main(["clean"]) == 0
    finally:
        os.umask(before)
    assert (tmp_path / "cache").stat().st_mode & 0o777 == 0o755


def test_a_cache_that_cannot_be_is_told_in_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("OPENQA_CACHE", str(tmp_path / "file"))
    assert main(["clean"]) == 1
    assert capsys.readouterr().err == f"[Errno 17] File exists: '{tmp_path / 'file'}'\n"


@pytest.mark.parametrize("command", ["", "build", "archive", "golden", "list", "clean"])
def test_every_command_explains_itself(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main([*command.split(), "--help"])
    assert ended.value.code == 0
    assert "usage: python -m images" in capsys.readouterr().out
