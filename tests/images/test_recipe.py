import os
import re
import shutil
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from images import recipe
from images.recipe import Recipe

NAMES = (*recipe.PARENTS, *recipe.ARTIFACTS)


@pytest.fixture
def userdata(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    copy = tmp_path / "userdata"
    shutil.copytree(Path(recipe.__file__).parent.parent / "userdata", copy)
    monkeypatch.setattr(recipe, "_USERDATA", copy)
    return copy


def hashes(os_: str = "debian", architecture: str = "x86_64") -> dict[str, str]:
    return {name: Recipe(name, os_, architecture).hash for name in NAMES}


def changed(change: Callable[[], object]) -> set[str]:
    before = hashes()
    change()
    after = hashes()
    return {name for name in NAMES if before[name] != after[name]}


def test_a_hash_is_stable_and_a_legal_tag() -> None:
    assert hashes() == hashes()
    for text in hashes().values():
        assert len(text) == 16
        assert set(text) <= set("0123456789abcdef")


def test_no_two_recipes_share_a_hash() -> None:
    assert len(set(hashes().values())) == len(NAMES)


def test_what_comes_from_git_is_named_by_all_of_its_hash() -> None:
    """A tag may be named like the beginning of one, and git would take that."""
    said = (Recipe("consumer", "fedora", "x86_64").sources / "Containerfile").read_text()
    assert re.search(r"^ARG COMMIT=[0-9a-f]{40}$", said, re.MULTILINE)


@pytest.mark.parametrize("name", ["database", "webui", "proxy", "worker", "sample"])
def test_a_changed_file_changes_its_own_recipe_only(name: str, userdata: Path) -> None:
    file = next(path for path in sorted(Recipe(name, "debian", "x86_64").sources.iterdir()) if path.is_file())
    assert changed(lambda: file.write_text(file.read_text() + "\n")) == {name}


def test_a_changed_layer_changes_all_that_is_built_on_it(userdata: Path) -> None:
    file = userdata / "containers/openqa/Containerfile"
    assert changed(lambda: file.write_text("FROM scratch\n")) == {"openqa", "webui", "worker"}
    file = userdata / "containers/base/Containerfile"
    assert changed(lambda: file.write_text("FROM scratch\n")) == {*recipe.PARENTS}


@pytest.mark.parametrize(
    "change",
    [
        lambda folder: (folder / "new").write_text(""),
        lambda folder: (folder / "Containerfile").rename(folder / "Dockerfile"),
        lambda folder: (folder / "Containerfile").chmod(0o755),
        lambda folder: (folder / "Containerfile").unlink(),
    ],
    ids=["added", "renamed", "executable", "removed"],
)
def test_files_names_and_modes_count(change: Callable[[Path], object], userdata: Path) -> None:
    assert changed(lambda: change(userdata / "containers/proxy")) == {"proxy"}


def test_dates_do_not_count(userdata: Path) -> None:
    file = userdata / "containers/proxy/Containerfile"
    assert changed(lambda: os.utime(file, (0, 0))) == set()


def test_other_user_data_does_not_count(userdata: Path) -> None:
    def change() -> None:
        (userdata / "bootstrap.sh").write_text("")
        (userdata / "content/sample/tests/boot.pm").write_text("")

    assert changed(change) == set()


def test_what_moves_from_one_file_to_the_next_counts(userdata: Path) -> None:
    folder = userdata / "containers/proxy"
    (folder / "a").write_text("one")
    (folder / "b").write_text("two")

    def change() -> None:
        (folder / "a").write_text("onet")
        (folder / "b").write_text("wo")

    assert changed(change) == {"proxy"}


def test_the_date_of_the_packages_changes_everything(monkeypatch: pytest.MonkeyPatch) -> None:
    assert changed(lambda: monkeypatch.setattr(recipe, "PACKAGES_AS_OF", "2000-01-01")) == set(NAMES)


def test_images_differ_by_system_and_architecture_but_artifacts_do_not() -> None:
    for other in (hashes(os_="fedora"), hashes(architecture="aarch64")):
        assert {name for name in NAMES if other[name] == hashes()[name]} == set(recipe.ARTIFACTS)


def test_a_changed_distribution_changes_its_images(monkeypatch: pytest.MonkeyPatch) -> None:
    distributions = {**recipe.DISTRIBUTIONS, "debian": "forky"}
    assert changed(lambda: monkeypatch.setattr(recipe, "DISTRIBUTIONS", distributions)) == {*recipe.PARENTS}


def test_names() -> None:
    webui = Recipe("webui", "debian", "x86_64")
    assert webui.reference == f"localhost/openqa-webui:{webui.hash}"
    assert webui.archive_name == f"webui-{webui.hash}.oci.tar"
    assert Recipe("sample", "debian", "x86_64").archive_name.endswith(".iso")


def test_packages_make_another_image_in_whatever_order() -> None:
    def made(*packages: str) -> str:
        return Recipe("worker", "debian", "x86_64", packages).hash

    assert len({made(), made("a"), made("b"), made("a", "b"), made("ab")}) == 5
    assert made("a", "b") == made("b", "a")


def test_only_workers_take_packages() -> None:
    with pytest.raises(ValueError, match="webui takes no packages: only worker does"):
        Recipe("webui", "debian", "x86_64", ("a",))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("browser", "debian", "x86_64"), "'browser': allowed are .*webui, worker, consumer, sample"),
        (("webui", "plan9", "x86_64"), "'plan9': allowed are debian, fedora"),
        (("webui", "debian", "m68k"), "'m68k': allowed are x86_64, aarch64"),
    ],
)
def test_what_is_unknown_is_refused(arguments: tuple[str, str, str], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Recipe(*arguments)


def test_every_recipe_has_its_folder() -> None:
    for name in recipe.PARENTS:
        assert "ARG BASE" in (Recipe(name, "debian", "x86_64").sources / "Containerfile").read_text()
    for name in recipe.ARTIFACTS:
        assert os.access(Recipe(name, "debian", "x86_64").sources / "build.sh", os.X_OK)


def test_hashing_is_fast() -> None:
    start = time.process_time()
    hashes()
    assert time.process_time() - start < 0.05 * len(NAMES)
