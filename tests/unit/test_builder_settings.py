"""Builders of disk images in environment files: what is refused, in one line each."""

from __future__ import annotations

from pathlib import Path

import pytest

from settings import SettingsError, load, warnings
from tests.unit.test_settings import BASE

SAMPLE = """
[[builders]]
architecture = "x86_64"
instance_types = ["m8i.large"]
virtualization = "nested"
program = "sample"
"""
CREATEHDDS = (
    SAMPLE.replace('"sample"', '"createhdds"') + 'git = "https://git.example.org/createhdds"\nref = "main"\n'
)
FEDORA = BASE.replace('kind = "dev"', 'kind = "dev"\nos = "fedora"')
KEY = "here.toml: builders.x86_64."


def write(directory: Path, text: str) -> Path:
    (directory / "here.toml").write_text(text)
    return directory


def refusals(directory: Path, text: str) -> list[str]:
    with pytest.raises(SettingsError) as caught:
        load("here", write(directory, text))
    return [line.removeprefix(f"{directory}/") for line in str(caught.value).splitlines()]


@pytest.mark.parametrize(
    ("base", "before", "after", "expected"),
    [
        (
            BASE,
            'program = "sample"',
            'program = "other"',
            'program = "other"; allowed: "createhdds" or "sample"',
        ),
        (BASE, 'program = "sample"\n', "", 'program is missing; allowed: "createhdds" or "sample"'),
        (BASE, "m8i.large", "m8i.tiny", 'instance_types = "m8i.tiny": unknown instance type'),
        (
            BASE,
            '"m8i.large"',
            '"m8i.large", "m8i.large"',
            '"m8i.large": listed twice; allowed: each type once',
        ),
        (BASE, "m8i.large", "m5.metal", 'a metal type, but virtualization = "nested"'),
        (BASE, "m8i.large", "t3.medium", '"t3.medium": no nested virtualization'),
        (BASE, "m8i.large", "m7g.metal", "is aarch64, but the builder's is x86_64"),
        (BASE, '"nested"', '"metal"', 'not a metal type, but virtualization = "metal"'),
        (BASE, "[[builders]]", "[[builders]]\nhours = 48", "hours = 48; allowed: a whole number of hours"),
        (
            BASE,
            "[[builders]]",
            f'[[builders]]\nref = "{"x" * 501}"',
            "one line of text of up to 500 characters",
        ),
        (BASE, "[[builders]]", f'[[builders]]\nimage = "/{"x" * 1011}"', "and has up to 1011 characters"),
        (
            BASE,
            "[[builders]]",
            f'[[builders]]\ngit = "https://{"x" * 500}"',
            "an https:// address of up to 500 characters",
        ),
        (BASE, "[[builders]]", "[[builders]]\nnumber = 2", "number = 2: unknown key"),
    ],
)
def test_refusals(tmp_path: Path, base: str, before: str, after: str, expected: str) -> None:
    assert before in SAMPLE
    (line, *_) = refusals(tmp_path, base + SAMPLE.replace(before, after))
    assert line.startswith(KEY)
    assert expected in line


@pytest.mark.parametrize(
    "cron",
    [
        *("30 3 * * *", "0 */6 * * *", "0 4 1,15 * *", "15 2 * 1-6 0,6", "59 23 31 12 7", "* * * * *"),
        *("0 0 29 2 *", "0 0 28-31 2 *", "0 0 31 2,3 *", "0 0 31 2 1", "*/59 */23 */31 */12 */7"),
    ],
)
def test_a_schedule(tmp_path: Path, cron: str) -> None:
    environment = load("here", write(tmp_path, f'{BASE}{SAMPLE}schedule = "{cron}"\n'))
    assert environment.builders[0].schedule == cron


@pytest.mark.parametrize(
    "cron",
    [
        "",
        "daily",
        "30 3 * *",
        "60 3 * * *",
        "0 24 * * *",
        "0 0 0 * *",
        "0 0 * 13 *",
        "0 0 * * 8",
        "a b c d e",
        *("0 0 30 2 *", "0 0 31 2,4,6,9,11 *", "0 0 31 2 */2"),
        *("*/0 * * * *", "*/60 * * * *", "* */24 * * *", "* * */32 * *", "*/99 * * * *"),
        *("0 10-3 * * *", "0 1,10-3 * * *", "0 0 5-60 * *", "100 * * * *", "٣ * * * *"),
        *("0 0 */2-3 * *", "0 0 * *,1 *"),
    ],
)
def test_no_schedule(tmp_path: Path, cron: str) -> None:
    (line,) = refusals(tmp_path, f'{BASE}{SAMPLE}schedule = "{cron}"\n')
    assert line.startswith(f"{KEY}schedule = ")
    assert "five fields of numbers" in line


def test_two_for_one_architecture(tmp_path: Path) -> None:
    (line,) = refusals(tmp_path, BASE + SAMPLE + SAMPLE)
    assert 'builders.architecture = "x86_64": two builders have this architecture' in line


def test_createhdds_needs_fedora_kvm_and_an_address(tmp_path: Path) -> None:
    assert load("here", write(tmp_path, FEDORA + CREATEHDDS)).builders[0].kvm
    (line,) = refusals(tmp_path, BASE + CREATEHDDS)
    assert 'program = "createhdds": it needs packages that debian does not have' in line
    (line,) = refusals(tmp_path, FEDORA + CREATEHDDS.replace('"nested"', '"none"'))
    assert 'virtualization = "none": createhdds installs systems in guests, which needs KVM' in line
    lines = refusals(tmp_path, FEDORA + SAMPLE.replace('"sample"', '"createhdds"'))
    assert [line.split(";")[0] for line in lines] == [f"{KEY}git is missing", f"{KEY}ref is missing"]


def test_a_system_of_its_own_comes_with_an_image(tmp_path: Path) -> None:
    own = BASE + CREATEHDDS + 'os = "fedora"\n'
    (line,) = refusals(tmp_path, own)
    assert line == f"{KEY}image is missing: other hosts run debian; allowed: an AMI of fedora"
    environment = load("here", write(tmp_path, f'{own}image = "ami-12345678"\n'))
    (builder,) = environment.builders
    assert (environment.os_of(builder), environment.image_of(builder)) == ("fedora", "ami-12345678")


def test_without_one_it_is_as_the_others(tmp_path: Path) -> None:
    environment = load("here", write(tmp_path, BASE + SAMPLE))
    (builder,) = environment.builders
    assert environment.os_of(builder) == environment.os
    assert environment.image_of(builder) == environment.image.x86_64


def test_an_image_of_another_system_is_told(tmp_path: Path) -> None:
    own = CREATEHDDS + 'os = "fedora"\nimage = "/aws/service/debian/release/13/latest/amd64"\n'
    (line,) = warnings(load("here", write(tmp_path, BASE + own)))
    assert line == (
        'here: builders.x86_64.image = "/aws/service/debian/release/13/latest/amd64": Debian\'s, but '
        'os = "fedora"; wanted: an image of fedora'
    )


def test_aarch64_needs_an_image(tmp_path: Path) -> None:
    text = (
        SAMPLE.replace('"x86_64"', '"aarch64"')
        .replace("m8i.large", "m7g.metal")
        .replace('"nested"', '"metal"')
    )
    (line,) = refusals(tmp_path, BASE + text)
    assert 'builders.aarch64.architecture = "aarch64": image.aarch64 is not set' in line


def test_a_builder_counts_against_the_quota(tmp_path: Path) -> None:
    assert load("here", write(tmp_path, "vcpu_quota = 118\n" + BASE + SAMPLE))
    (line,) = refusals(tmp_path, "vcpu_quota = 117\n" + BASE + SAMPLE)
    assert "vcpu_quota = 117" in line
