"""``[[timetable]]`` in an environment file."""

from __future__ import annotations

from pathlib import Path

import pytest

import settings
from settings import SettingsError
from settings.timetable import Entry

LOCAL = (settings.ENVIRONMENTS / "local.toml").read_text()
AT = 'at = ["mon-fri 05:30", "sun 12:00"]\n'
POST = 'DISTRI = "sample"\nVERSION = "1"\nFLAVOR = "b"\nARCH = "x86_64"\nBUILD = "{date}"\n'
ENTRY = f"[[timetable]]\n{AT}[timetable.post]\n{POST}"


def each(line: str, *, keep: str | None = None) -> str:
    """The entry with some parameters that take several values, and not one any more."""
    name = line.partition(" ")[0]
    rest = [own for own in POST.splitlines() if name == keep or not own.startswith(f"{name} =")]
    return "\n".join([f"[[timetable]]\n{AT}each = {{ {line} }}\n[timetable.post]", *rest, ""])


def load(directory: Path, text: str) -> tuple[Entry, ...]:
    before, fleets, after = LOCAL.partition("[[fleets]]")
    (directory / "x.toml").write_text(f"{before}{text}\n{fleets}{after}")
    return settings.load("x", directory).timetable


def test_a_timetable(tmp_path: Path) -> None:
    (entry,) = load(tmp_path, ENTRY)
    assert entry.at == ("mon-fri 05:30", "sun 12:00")
    assert entry.post["BUILD"] == "{date}"
    assert load(tmp_path, "") == ()


@pytest.mark.parametrize(
    "build", ["{date}", "{year}-{month}-{day}", "{date}-{time}", "{year}.{month}.{day}.{time}"]
)
def test_builds_of_every_time_have_names_of_their_own(tmp_path: Path, build: str) -> None:
    assert load(tmp_path, ENTRY.replace("{date}", build))


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (ENTRY.replace(AT, ""), "timetable.1.at is missing"),
        (ENTRY.replace(AT, "at = []\n"), "a list of days and times in UTC"),
        (ENTRY.replace("05:30", "5:30"), 'timetable.1.at.1 = "mon-fri 5:30"'),
        (ENTRY.replace("05:30", "24:00"), "a list of days and times in UTC"),
        (ENTRY.replace("sun", "sunday"), 'timetable.1.at.2 = "sunday 12:00"'),
        (ENTRY.replace('FLAVOR = "b"\n', ""), "timetable.1.post.FLAVOR is missing"),
        (
            ENTRY.replace("{date}", "1"),
            "sample 1 b x86_64 1 for both 2024-01-01T05:30Z and 2024-01-02T05:30Z",
        ),
        (ENTRY.replace("{date}", "{year}{day}"), "so only the first would be scheduled"),
        (ENTRY.replace("{date}", "{month}{day}"), "for both 2024-01-01T05:30Z and 2025-01-01T05:30Z"),
        (ENTRY.replace("sun 12:00", "fri 12:00"), "for both 2024-01-05T05:30Z and 2024-01-05T12:00Z"),
        (ENTRY + ENTRY.replace("05:30", "06:30") + 'ISO = "b"\n', "timetable.2.post.BUILD"),
        (ENTRY.replace('"b"', '"a\\u0000b"'), "not printable in one line"),
        (ENTRY.replace('"b"', '"{week}"'), 'a time has no field "week"'),
        (ENTRY.replace('"b"', '"{week"'), 'no field in braces at "{week"'),
        (ENTRY.replace("at =", "when ="), "unknown key; allowed: post, each, at, only_new"),
        (ENTRY + 'iso = "a"\n', "openQA's settings in capitals"),
        (
            ENTRY.replace(AT, f"{AT}only_new = true\n"),
            "timetable.1.only_new = true: the build fetches nothing that could be new; allowed: false, or "
            "ISO_URL or the like in post",
        ),
        (
            each("ARCH = []"),
            "timetable.1.each.ARCH = []; allowed: a table: openQA's settings in capitals, and a",
        ),
        (each('ARCH = "x86_64"'), 'timetable.1.each.ARCH = "x86_64"; allowed: a table'),
        (each('ARCH = ["x86_64", ""]'), 'timetable.1.each.ARCH = "": openQA knows a build by it'),
        (each('ARCH = ["{a"]'), 'timetable.1.each.ARCH = "{a": no field in braces at "{a"'),
        (each('ARCH = ["{a}"]'), 'timetable.1.each.ARCH = "{a}": a time has no field "a"'),
        (
            each('ARCH = ["a", "a"]'),
            'timetable.1.each = {"ARCH": ["a", "a"]}: openQA would take several of these builds for one; '
            "allowed: values with which no two builds have the same DISTRI, VERSION, FLAVOR, ARCH, BUILD",
        ),
        (each('ISO = ["a", "b"]'), "timetable.1.each"),
        (each('FLAVOR = ["b"]', keep="FLAVOR"), 'timetable.1.post.FLAVOR = "b": it is in each too'),
        (each(f"ARCH = {[str(n) for n in range(101)]}"), "101 builds at once; allowed: up to 100"),
        (ENTRY + ENTRY, "timetable.2.post.BUILD"),
        (ENTRY + f'ISO = "{"x" * 10_000}"\n', "[schedule] and timetable, more than user data has room for"),
    ],
)
def test_refusals(tmp_path: Path, text: str, reason: str) -> None:
    with pytest.raises(SettingsError) as refusal:
        load(tmp_path, text)
    assert reason in str(refusal.value)


@pytest.mark.parametrize(
    "second",
    [
        ENTRY.replace('"b"', '"c"'),
        ENTRY.replace("mon-fri 05:30", "sat 05:30")
        .replace('"sun 12:00"', '"sat 12:00"')
        .replace("{date}", "{date}-{time}"),
        ENTRY.replace('FLAVOR = "b"', 'FLAVOR = "{date}"').replace('BUILD = "{date}"', 'BUILD = "1"'),
    ],
)
def test_builds_of_several_entries(tmp_path: Path, second: str) -> None:
    assert len(load(tmp_path, ENTRY + second)) == 2


def test_only_what_is_new(tmp_path: Path) -> None:
    (entry,) = load(tmp_path, ENTRY.replace(AT, f"{AT}only_new = true\n") + FETCHING)
    assert entry.only_new


def test_a_build_for_each_value(tmp_path: Path) -> None:
    text = each('ARCH = ["x86_64", "aarch64"]') + 'ISO = "{ARCH}-{date}.iso"\n'
    (entry,) = load(tmp_path, text)
    rest = {"DISTRI": "sample", "VERSION": "1", "FLAVOR": "b", "BUILD": "{date}"}
    assert entry.posts == [
        {**rest, "ISO": "x86_64-{date}.iso", "ARCH": "x86_64"},
        {**rest, "ISO": "aarch64-{date}.iso", "ARCH": "aarch64"},
    ]
    (line,) = warnings(tmp_path, text, (), loader="openqa")
    assert line.startswith('x: timetable.1.each.ARCH = "aarch64": no fleet has qemu_aarch64')
    assert len(warnings(tmp_path, text.replace("aarch64", "aarch32"), (), loader="scenarios")) == 2


FETCHING = 'ISO_URL = "https://cd.example.org/{date}.iso"\n'


def warnings(directory: Path, text: str, domains: tuple[str, ...], **changes: object) -> tuple[str, ...]:
    load(directory, text)
    made = settings.load("x", directory)
    content = made.content.model_copy(update={"download_domains": domains, **changes})
    return settings.warnings(made.model_copy(update={"content": content}))


def test_fetches_that_openqa_refuses_are_told(tmp_path: Path) -> None:
    nowhere, elsewhere = (
        [line for line in warnings(tmp_path, ENTRY + FETCHING, domains) if "ISO_URL" in line]
        for domains in ((), ("example.com", "d.example.org"))
    )
    begin = 'x: timetable.1.post.ISO_URL = "https://cd.example.org/{date}.iso": openQA may fetch from'
    end = "and refuses the whole build; wanted: content.download_domains"
    assert nowhere == [f"{begin} nowhere, {end}"]
    assert elsewhere == [f"{begin} example.com, d.example.org and below only, {end}"]
    for domain in ("example.org", "cd.example.org"):
        assert "ISO_URL" not in str(warnings(tmp_path, ENTRY + FETCHING, (domain,)))


@pytest.mark.parametrize(("port", "told"), [(":8080", True), ("", False), (":443", False)])
def test_fetches_from_ports_that_the_host_does_not_reach_are_told(
    tmp_path: Path, port: str, told: bool
) -> None:
    fetching = f'ISO_URL = "https://cd.example.org{port}/{{date}}:8080.iso"\n'
    lines = [line for line in warnings(tmp_path, ENTRY + fetching, ("example.org",)) if "ISO_URL" in line]
    end = (
        "the web UI's host cannot reach port 8080, and the build's jobs fail; "
        "wanted: an address without a port"
    )
    assert [line.partition('.iso": ')[2] for line in lines] == [end] * told


@pytest.mark.parametrize(
    ("fetching", "asset", "told"),
    [
        ('ISO_URL = "https://cd.example.org/{date}/a.iso"', "ISO", '"a.iso"'),
        ('ISO_URL = "https://cd.example.org/a.iso?of={date}"', "ISO", '"a.iso"'),
        ('ISO_URL = "https://cd.example.org/{date}.iso"\nISO = "b.iso"', "ISO", '"b.iso"'),
        ('HDD_1_DECOMPRESS_URL = "https://cd.example.org/a.gz"', "HDD_1", '"a.gz"'),
        ('ISO_URL = "https://cd.example.org/a.iso"\nISO = "{date}.iso"', "", ""),
        ('HDD_1_DECOMPRESS_URL = "https://cd.example.org/a.gz"\nHDD_1 = "{date}.img"', "", ""),
        ('MIRROR_URL = "https://cd.example.org/a"', "", ""),
    ],
)
def test_fetches_of_what_openqa_has_since_the_first_build_are_told(
    tmp_path: Path, fetching: str, asset: str, told: str
) -> None:
    lines = warnings(tmp_path, f"{ENTRY}{fetching}\n", ("example.org",), loader="openqa")
    end = f"{told} is that of every build; wanted: {asset} with a {{field}} that differs for each"
    assert [line.partition("it has already, and ")[2] for line in lines] == [end] * bool(told)


@pytest.mark.parametrize(
    ("fetching", "told"),
    [
        ('ISO_URL = "https://cd.example.org/{ARCH}/{date}.iso"', ["aarch64"]),
        ('ISO_URL = "https://cd.example.org/{ARCH}/{date}.iso"\nISO = "{ARCH}-{date}.iso"', []),
        ('ISO_URL = "https://cd.example.org/{date}.iso"', []),
    ],
)
def test_fetches_of_which_builds_at_once_would_share_the_first_are_told(
    tmp_path: Path, fetching: str, told: list[str]
) -> None:
    text = each('ARCH = ["x86_64", "aarch64"]') + f"{fetching}\n"
    lines = [line for line in warnings(tmp_path, text, ("example.org",), loader="openqa") if "_URL" in line]
    assert lines == [
        f'x: timetable.1.post.ISO_URL = "https://cd.example.org/{arch}/{{date}}.iso": openQA fetches no file '
        'whose name it has already, and "{date}.iso" is that of another build at the same time; wanted: ISO '
        "with a {field} that differs for each"
        for arch in told
    ]


def test_builds_of_which_openqa_makes_no_jobs_are_told(tmp_path: Path) -> None:
    (line,) = warnings(tmp_path, ENTRY, ())
    assert "timetable.1.post has no SCENARIO_DEFINITIONS_YAML_FILE" in line
    assert line.endswith("wanted: /var/lib/openqa/share/tests/sample/ and the file's name")
    assert warnings(tmp_path, ENTRY + 'SCENARIO_DEFINITIONS_YAML_FILE = "/a.yaml"\n', ()) == ()
    assert warnings(tmp_path, ENTRY, (), loader="openqa") == ()


@pytest.mark.parametrize("distri", ["sample", "fedora", "{date}"])
def test_builds_of_tests_that_are_there_are_not_told(tmp_path: Path, distri: str) -> None:
    text = ENTRY.replace('"sample"', f'"{distri}"')
    assert warnings(tmp_path, text, (), loader="openqa", distri="fedora") == ()


def test_builds_of_tests_that_are_not_there_are_told(tmp_path: Path) -> None:
    text = ENTRY.replace('"sample"', '"fedroa"')
    (line,) = warnings(tmp_path, text, (), loader="openqa", distri="fedora")
    assert line.startswith(
        'x: timetable.1.post.DISTRI = "fedroa": openQA has tests only of fedora and sample,'
    )
    brought = text + 'CASEDIR = "https://example.org/tests.git"\n'
    assert warnings(tmp_path, brought, (), loader="openqa", distri="fedora") == ()
    more = {"distri": "fedora", "more_distris": ("fedroa",)}
    assert warnings(tmp_path, text, (), loader="openqa", **more) == ()


def test_builds_that_no_host_takes_are_told(tmp_path: Path) -> None:
    (line,) = warnings(tmp_path, ENTRY.replace("x86_64", "ppc64le"), (), loader="openqa")
    assert line.startswith(
        'x: timetable.1.post.ARCH = "ppc64le": no fleet has qemu_ppc64le, which jobs ask for'
    )
    assert warnings(tmp_path, ENTRY.replace("x86_64", "{date}"), (), loader="openqa") == ()
