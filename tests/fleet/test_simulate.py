"""The simulator: its world keeps its own rules, and the policies in it do as they should."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from random import Random
from typing import Any

import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from fleet.model import Decision, Fleet, Seen
from fleet.openqa_scheduler import Free, Job, assign, units
from fleet.rules import Rules
from fleet.simulate.__main__ import main
from fleet.simulate.compare import IDEALS, SIMULATED, Place, policy
from fleet.simulate.ideal import clairvoyant, floor
from fleet.simulate.parts import parts
from fleet.simulate.policies import Policy, count_based, ours
from fleet.simulate.scenario import WEBUI, WEBUI_BYTES_PER_SECOND, Drought, Scenario, scenario
from fleet.simulate.workload import DAY, HOUR, Post, Task, generate
from fleet.simulate.world import SHUTDOWN_SECONDS, play
from fleet.warm import parse
from settings import load

PLAIN = frozenset({"qemu_x86_64"})
TAP = frozenset({"qemu_x86_64", "tap"})


def test_openqa_gives_a_plain_job_a_tap_worker_and_never_the_other_way() -> None:
    free = [
        Free(host="a", classes=TAP, slots=1, one_host=True),
        Free(host="b", classes=PLAIN, slots=1, one_host=True),
    ]
    jobs = [Job(id=1, classes=TAP), Job(id=2, classes=PLAIN)]
    for seed in range(20):
        hosts = {unit.jobs[0].id: places for unit, places in assign(units(jobs), free, Random(seed))}
        assert hosts == {1: ("a",), 2: ("b",)}
    assert assign(units([Job(id=1, classes=PLAIN)]), free[:1], Random(0))[0][1] == ("a",)


def test_openqa_starts_a_cluster_whole_and_on_one_host_where_asked() -> None:
    cluster = units([Job(id=n, classes=TAP, cluster=1) for n in range(3)])
    split = [Free(host=name, classes=TAP, slots=2, one_host=True) for name in "ab"]
    assert assign(cluster, split, Random(0)) == []
    spread = [Free(host=name, classes=TAP, slots=2, one_host=False) for name in "ab"]
    assert len(assign(cluster, spread, Random(0))[0][1]) == 3
    whole = [*split, Free(host="c", classes=TAP, slots=3, one_host=True)]
    assert assign(cluster, whole, Random(0))[0][1] == ("c", "c", "c")


def test_openqa_serves_by_priority_then_id() -> None:
    jobs = [
        Job(id=1, classes=PLAIN, priority=50),
        Job(id=3, classes=PLAIN, priority=10),
        Job(id=2, classes=PLAIN, priority=10),
    ]
    free = [Free(host="a", classes=PLAIN, slots=2, one_host=True)]
    assert [unit.jobs[0].id for unit, _ in assign(units(jobs), free, Random(0))] == [2, 3]


def test_the_workload_is_fedora_s() -> None:
    posts = generate(days=28, seed=5)
    per_day = sum(len(post.tasks) for post in posts) / 28
    # Public job ids grew by 1900 to 2900 a day in the years before; a failed run is a job there, too.
    assert 2000 < per_day < 3500
    assert generate(days=2, seed=5) == generate(days=2, seed=5) != generate(days=2, seed=6)
    apart = [
        len([task for post in generate(days=7, seed=5, architecture=a) for task in post.tasks])
        for a in ("x86_64", "aarch64")
    ]
    assert sum(apart) == len([task for post in generate(days=7, seed=5) for task in post.tasks])


def one_job(seconds: float) -> list[Post]:
    task = Task(
        id=1,
        classes=PLAIN,
        priority=50,
        cluster=None,
        parents=(),
        seconds=seconds,
        fails_after=None,
        expected_seconds=seconds,
        assets=(("iso", 1.25e9),),
    )
    return [Post(100.0, (task,))]


def bare(**more: Any) -> Scenario:
    fleet = Fleet(name="f", classes=PLAIN, slots=1, price=3.6, boot_seconds=180, max=5)
    exact = {"webui_bytes_per_second": 390e6, "boot_scatter": 0, "failure_share": 0}
    return Scenario(fleets=(fleet,), types={"f": "m8i-flex.4xlarge"}, **(exact | more))


def test_one_job_by_hand() -> None:
    outcome = play(bare(), one_job(600), ours(Rules(spare=0)), seed=1)
    # Seen at 102 s, up at 282 s, 10 s of fetching at 125 MB/s, 600 s of work.
    assert outcome.waits == [182]
    assert (outcome.setups, outcome.fetched) == ([10], 1.25e9)
    (span,) = outcome.spans
    assert (span.begin, span.up, span.busy, span.held, span.fetching) == (102, 282, 610, 610, 10)
    begin, end = span.begin, span.end
    # Idle at 892 s: it lingers, is seen, drains and shuts down.
    assert 892 + SHUTDOWN_SECONDS < end < 892 + 180
    assert abs(outcome.dollars - (end - begin) * 3.6 / 3600) < 1e-9


def test_the_simulated_web_ui_is_productions() -> None:
    webui = load("production").webui
    assert webui.instance_type == WEBUI
    assert webui.volume_mibps * 2**20 == WEBUI_BYTES_PER_SECOND


def test_nobody_fetches_faster_than_the_web_uis_host_sends() -> None:
    place = Place(architecture="x86_64", boot_seconds=90, webui="t3.medium")
    link = place.scenario.webui_bytes_per_second
    assert link == 0.256e9 / 8
    outcome = play(bare(webui_bytes_per_second=link), one_job(600), ours(Rules(spare=0)), seed=1)
    assert outcome.setups == [pytest.approx(1.25e9 / link)]


@pytest.mark.parametrize(("asset", "setups"), [("iso", [10, 10]), ("other", [10, 20])])
def test_jobs_of_a_host_wait_for_its_assets_and_share_its_rate(asset: str, setups: list[float]) -> None:
    large = Fleet(name="f", classes=PLAIN, slots=2, price=3.6, boot_seconds=180, max=1)
    (post,) = one_job(600)
    both = (post.tasks[0], replace(post.tasks[0], id=2, assets=((asset, 1.25e9),)))
    posts, world = [Post(100.0, both)], replace(bare(), fleets=(large,))
    assert play(world, posts, ours(Rules(spare=0)), seed=1).setups == setups
    (span,) = clairvoyant(world, posts, patience=0).spans
    assert span.fetching == sum(setups)


def test_a_short_life_costs_a_minute() -> None:
    quick = Scenario(
        fleets=(Fleet(name="f", classes=PLAIN, slots=1, price=3.6, boot_seconds=1, max=5),),
        types={"f": "m8i-flex.4xlarge"},
        webui_bytes_per_second=390e6,
        failure_share=0,
    )
    assert abs(play(quick, one_job(1), ours(Rules(spare=0)), seed=1).dollars - 0.06) < 1e-9


def test_hosts_that_fail_and_spot_interruptions_only_cost_time() -> None:
    world = scenario(architecture="x86_64", boot_seconds=180, metal=False)
    rough = replace(world, failure_share=0.1, spot_mean_hours=2.0)
    outcome = play(rough, generate(days=0.7, seed=3, architecture="x86_64"), ours(), seed=3)
    assert outcome.interrupted > 0
    assert outcome.killed == 0
    assert outcome.unfinished == 0


def test_an_interrupted_cluster_begins_again_whole_and_on_one_host() -> None:
    large = Fleet(name="f", classes=PLAIN, slots=2, price=3.6, boot_seconds=180, max=5)
    world = replace(bare(spot_mean_hours=1.0), fleets=(large,))
    (post,) = one_job(1800)
    members = tuple(replace(post.tasks[0], id=n, cluster=1, seconds=900.0 * n) for n in (1, 2))
    interrupted = 0
    for seed in range(1, 11):
        begun: dict[int, set[tuple[float, str]]] = {1: set(), 2: set()}

        def note(seen: Seen, begun: dict[int, set[tuple[float, str]]] = begun) -> Decision:
            for host in seen.hosts:
                for running in host.running:
                    begun[running.job].add((running.since, host.id))
            return ours().decide(seen)

        outcome = play(world, [Post(100.0, members)], Policy(decide=note, interval=2.0), seed=seed)
        assert outcome.unfinished == 0
        assert begun[1] == begun[2]
        interrupted += outcome.interrupted
    assert interrupted > 0


def test_a_job_that_was_interrupted_still_fails_and_runs_again() -> None:
    world = bare(spot_mean_hours=1.0)
    (post,) = one_job(1800)
    fails = replace(post.tasks[0], fails_after=900.0)
    for seed in range(1, 11):
        outcome = play(world, [Post(100.0, (fails,))], ours(), seed=seed)
        assert sum(span.held for span in outcome.spans) >= 2700


def seen_by(world: Scenario, posts: list[Post]) -> list[Seen]:
    """Play, and return all that the policy saw."""
    sights: list[Seen] = []

    def note(seen: Seen) -> Decision:
        sights.append(seen)
        return ours(Rules(spare=0)).decide(seen)

    assert play(world, posts, Policy(decide=note, interval=5.0), seed=1, until=3 * DAY).killed == 0
    return sights


def test_the_policy_sees_launches_that_failed_and_tries_ever_less_often() -> None:
    broken = replace(bare(), failure_share=1.0)
    fleets = [seen.fleets[0] for seen in seen_by(broken, one_job(600))]
    assert max(fleet.failures for fleet in fleets) >= 5
    failed = sorted({fleet.last_failure for fleet in fleets if fleet.last_failure is not None})
    pauses = [later - earlier for earlier, later in pairwise(failed)]
    # Up to the third failure it tries at once; then it rests for five minutes, then twice as long.
    assert pauses[1] < 400 < pauses[2] < pauses[3]
    assert min(fleet.failures for fleet in [seen.fleets[0] for seen in seen_by(bare(), one_job(600))]) == 0


def test_without_capacity_the_next_fleet_is_taken_until_there_is_some() -> None:
    dear = Fleet(name="dear", classes=PLAIN, slots=1, price=9.0, boot_seconds=180, max=5)
    world = bare(droughts=(Drought(fleet="f", begin=0.0, end=2000.0),))
    world = replace(world, fleets=(*world.fleets, dear), types={**world.types, "dear": "m8i-flex.4xlarge"})
    later = replace(one_job(600)[0].tasks[0], id=2)
    outcome = play(world, [*one_job(600), Post(5000.0, (later,))], ours(Rules(spare=0)), seed=1)
    assert [span.fleet for span in outcome.spans] == ["dear", "f"]


def test_hosts_are_warm_at_the_times_that_the_operator_sets() -> None:
    world = bare(warm={"f": [parse("tue 06:00-07:00 2")]})
    begin = DAY + 6 * HOUR
    (job,) = one_job(600)
    later = replace(job.tasks[0], id=2)
    outcome = play(world, [job, Post(begin, (later,))], ours(Rules(spare=0)), seed=1)
    assert outcome.waits[0] == 182  # on Monday at 100 s nothing is warm
    assert outcome.waits[1] < 10
    warm = [span for span in outcome.spans if span.begin > HOUR]
    assert [span.fleet for span in warm] == ["f", "f"]
    # Up when it is six; gone when it is seven.
    assert all(begin - 60 < span.up <= begin for span in warm)
    assert all(begin + HOUR <= span.end < begin + HOUR + 60 for span in warm)


def test_warm_hosts_are_paid_for_the_days_that_are_played_and_no_longer() -> None:
    world = bare(warm={"f": [parse("mon-sun 00:00-00:00 1")]})
    for warm_until in (HOUR, 6 * HOUR):  # the job ends long before both
        outcome = play(world, one_job(600), ours(Rules(spare=0)), seed=1, warm_until=warm_until, until=DAY)
        (span,) = outcome.spans
        assert warm_until <= span.end < warm_until + 60


def test_fleets_launch_to_spare_what_the_operator_sets() -> None:
    place = Place(architecture="x86_64", boot_seconds=90, spare={"plain-1": 0.4})
    assert {fleet.name: fleet.spare for fleet in place.scenario.fleets if fleet.spare is not None} == {
        "plain-1": 0.4
    }


@pytest.mark.parametrize(
    ("option", "value", "said"),
    [
        (
            "--warm",
            "plain-48 noon 1",
            "'noon 1' is not a time such as 'mon-fri 06:00-20:00 2', after the name of a fleet",
        ),
        (
            "--warm",
            "plain-7 mon 11:00-12:00 1",
            "--warm names the fleet plain-7; allowed here are plain-24, plain-48,",
        ),
        ("--spare", "plain-7 1", "--spare names the fleet plain-7; allowed here are plain-24, plain-48,"),
        ("--spare", "plain-48 3", "--spare: '3' is not a number from 0 to 2, after the name of a fleet"),
        ("--spare", "plain-48", "--spare: '' is not a number from 0 to 2, after the name of a fleet"),
    ],
)
def test_what_a_fleet_of_the_simulator_cannot_be_told(
    option: str, value: str, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as raised:
        main(["fedora", "--boot", "1200", option, value])
    assert raised.value.code == 2
    assert said in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("--days 0", "--days: '0' is not a number from 0.01 to 92"),
        ("--days=-1", "--days: '-1' is not a number from 0.01 to 92"),
        ("--days nan", "--days: 'nan' is not a number from"),
        ("--days inf", "--days: 'inf' is not a number from"),
        ("--days week", "--days: 'week' is not a number from"),
        ("--seed 0", "--seed: '0' is not a whole number from 1 to 1000000000"),
        ("--seed 1.5", "--seed: '1.5' is not a whole number from"),
        ("--load 0", "--load: '0' is not a whole number from 1 to 10"),
        ("--boot 0", "--boot: '0' is not a number from 1 to 86400"),
        ("--spot-hours 0", "--spot-hours: '0' is not a number from 1 to 10000"),
        ("--policy clairvoyant,", "invalid choice: 'clairvoyant,' (choose from"),
        ("--plot /nope/x.svg", "--plot: '/nope' is not a folder in which files may be written"),
        ("--plot /", "--plot: '/' is a folder; allowed is a file"),
        (
            "--webui m7i.2xlage",
            "--webui: 'm7i.2xlage' is not a type in fleet/catalogue.toml, such as m7i.2xlarge,",
        ),
    ],
)
def test_words_that_are_refused_before_the_run(
    words: str, said: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("fleet.simulate.__main__.generate", None)
    with pytest.raises(SystemExit) as raised:
        main(["fedora", *words.split()])
    assert raised.value.code == 2
    assert said in capsys.readouterr().err


def refused(workload: Path, capsys: pytest.CaptureFixture[str]) -> str:
    with pytest.raises(SystemExit) as raised:
        main([str(workload), "--days=2"])
    assert raised.value.code == 2
    return capsys.readouterr().err.partition("error: WORKLOAD ")[2]


@pytest.mark.parametrize(
    ("text", "reason"),
    [("root:x:0", "is not JSON: Expecting value"), ('{"triggers": {}}', "arrivals is missing")],
)
def test_a_file_that_is_no_workload_is_refused(
    text: str, reason: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    workload = tmp_path / "workload.json"
    workload.write_text(text)
    assert reason in refused(workload, capsys)


def documented() -> Any:
    """The workload file that docs/fleet.md shows."""
    page = (Path(__file__).parents[2] / "docs" / "fleet.md").read_text()
    return json.loads(page.partition("```json\n")[2].partition("```")[0])


def test_the_documented_workload_is_played(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    workload = tmp_path / "workload.json"
    workload.write_text(json.dumps(documented()))
    names = [*SIMULATED, *IDEALS]
    assert main([str(workload), "--days=2", "--json", *(f"--policy={name}" for name in names)]) == 0
    answers = json.loads(capsys.readouterr().out)
    assert answers["ours"]["unfinished"] == answers["count-based"]["unfinished"] == 0
    assert 0 < answers["floor"]["dollars"] <= answers["clairvoyant"]["dollars"]


ROWS = ("triggers", "snapshot-x86_64")
COMPOSE = ("arrivals", "composes", 0)


@pytest.mark.parametrize(
    ("place", "value", "said"),
    [
        (("arrivals", "updates_per_day"), -1, "arrivals.updates_per_day = -1: it should be greater than or"),
        (
            ("arrivals", "updates_per_day"),
            float("nan"),
            "arrivals.updates_per_day = NaN: it should be a finite",
        ),
        (("arrivals", "updates_per_day"), 5, "arrivals.update_mix: all are 0, but there are updates_per_day"),
        (("arrivals", "updates"), 5, "arrivals.updates is not a key of its table"),
        (("arrivals", "retry_share"), 8, "arrivals.retry_share = 8: it should be less than or equal to 1"),
        (("arrivals", "update_hour_weights_utc"), [1], "_utc = [1]: it should have at least 24 items"),
        (("arrivals", "update_mix"), {"core": 1}, 'update_mix names "core"; allowed: none, there are none'),
        ((*COMPOSE, "start_utc"), ["25:00"], 'start_utc.0 = "25:00": it should be a time such as 05:15'),
        (
            (*COMPOSE, "per_day"),
            3,
            "composes.0.per_day = 3: it starts at most once at each time of start_utc",
        ),
        ((*COMPOSE, "triggers"), ["x"], 'composes.0.triggers names "x"; allowed: snapshot-x86_64'),
        (("flavors_of_group", "core"), ["kde"], 'group.core names "kde": no update has updates-kde'),
        ((*ROWS, 0, 4), 0, "snapshot-x86_64.0.minutes = 0: it should be greater than 0"),
        ((*ROWS, 0, 2), [], "snapshot-x86_64.0.classes = []: it should have at least 1 item"),
        ((*ROWS, 0, 5), [9], "snapshot-x86_64.0.start after = 9: it should be another row, from 0 to 3"),
        ((*ROWS, 0, 5), [1], "triggers.snapshot-x86_64: the rows 0, 1 wait for each other"),
        ((*ROWS, 2, 5), [3], "triggers.snapshot-x86_64: the rows 2 wait for each other"),
        ((*ROWS, 0, 2), ["qemu_s390x"], "no fleet can run jobs of the classes qemu_s390x; there are these"),
        (("arrivals", "composes"), [], "no job arrives within 2 days"),
        (("triggers",), {"snapshot-ppc64le": []}, 'names "snapshot-x86_64"; allowed: snapshot-ppc64le'),
    ],
)
def test_what_a_workload_must_not_be(
    place: tuple[str | int, ...],
    value: object,
    said: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    workload = tmp_path / "workload.json"
    document = documented()
    table = document
    for key in place[:-1]:
        table = table[key]
    table[place[-1]] = value
    workload.write_text(json.dumps(document))
    assert said in refused(workload, capsys)


def test_a_workload_of_another_architecture_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    workload = tmp_path / "workload.json"
    workload.write_text(json.dumps(documented()).replace("-x86_64", "-ppc64le"))
    assert "has no trigger that ends in -x86_64; its triggers: snapshot-ppc64le" in refused(workload, capsys)


def test_a_plot_that_cannot_be_written_costs_no_numbers(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["fedora", "--days=0.05", "--plot=/dev/full"]) == 1
    told = capsys.readouterr()
    assert told.out.startswith("ours: dollars ")
    assert told.err == "/dev/full cannot be written: No space left on device\n"


def test_all_policies_and_a_plot(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    plot = tmp_path / "x.svg"
    names = [*SIMULATED, *IDEALS]
    words = ["fedora", "--days=0.3", "--json", f"--plot={plot}"]
    assert main([*words, *(f"--policy={name}" for name in names)]) == 0
    answers = json.loads(capsys.readouterr().out)
    assert list(answers) == names
    assert answers["clairvoyant"]["wait_p95"] == 0 < answers["clairvoyant-patient"]["wait_p95"] <= 180
    assert plot.read_text().startswith("<svg")


def test_jobs_that_never_ended_are_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Fedora's own fleet plays no longer than the days: what came last is cut off."""
    workload = tmp_path / "workload.json"
    document = documented()
    document["arrivals"]["composes"][0]["start_utc"] = ["20:30"]
    workload.write_text(json.dumps(document))
    assert main([str(workload), "--days=1", "--json", "--policy=static", "--policy=ours"]) == 0
    told = capsys.readouterr()
    count = json.loads(told.out)["static"]["unfinished"]
    assert count > 0
    assert told.err == (
        f"static: {count} jobs had not ended when the simulation did; those that never had a worker are not "
        "in its waits\n"
    )


def test_a_long_run_tells_how_far_it_is(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("fleet.simulate.progress.EVERY_SECONDS", 0.0)
    assert main(["fedora", "--days=0.3", "--policy=ours", "--policy=clairvoyant"]) == 0
    told = capsys.readouterr()
    assert "\nours: day 0.2 of 0.3\n" in told.err
    assert "\nclairvoyant: schedule 11 of 11, day 0.2 of 0.3\n" in told.err
    assert [line.split(":")[0] for line in told.out.splitlines()] == ["ours", "clairvoyant"]


def begun(*, days: str) -> subprocess.Popen[str]:
    words = [sys.executable, "-m", "fleet.simulate", "fedora", "--days", days]
    return subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def test_a_run_ends_without_a_word_when_its_reader_is_gone() -> None:
    with begun(days="0.1") as run:
        assert run.stdout
        assert run.stderr
        run.stdout.close()
        assert run.stderr.read() == ""
    assert run.returncode == -signal.SIGPIPE


def test_a_run_ends_without_a_word_at_ctrl_c() -> None:
    with begun(days="92") as run:
        assert run.stderr
        assert "ours: day" in run.stderr.readline()
        run.send_signal(signal.SIGINT)
        assert "Traceback" not in run.stderr.read()
    assert run.returncode == -signal.SIGINT


def test_the_parts_of_a_bill_make_up_the_whole() -> None:
    world = scenario(architecture="x86_64", boot_seconds=180, metal=False)
    fleets = {fleet.name: fleet for fleet in world.fleets}
    posts = generate(days=0.3, seed=4, architecture="x86_64")
    outcome = play(world, posts, ours(), seed=4)
    ideal = clairvoyant(world, posts, patience=0)
    for spans, dollars in ((outcome.spans, outcome.dollars), (ideal.spans, ideal.dollars)):
        bill = parts(spans, fleets)
        assert abs(sum(bill.values()) - dollars) < 1e-6 * dollars
        assert min(bill.values()) >= -1e-9
        assert bill["work"] > 0.4 * dollars


@st.composite
def small_loads(draw: st.DrawFn) -> list[Post]:
    """A few posts of single jobs and clusters, each of which may come after some before it."""
    posts: list[Post] = []
    ids = iter(range(1, 1000))
    for _ in range(draw(st.integers(1, 3))):
        tasks: list[Task] = []
        for size in draw(st.lists(st.sampled_from((1, 1, 2, 3)), min_size=1, max_size=4)):
            before = [task.id for task in tasks]
            members = [next(ids) for _ in range(size)]
            classes = TAP if size > 1 else draw(st.sampled_from((PLAIN, TAP)))
            for member in members:
                seconds = draw(st.floats(60, 5000))
                assets = draw(st.dictionaries(st.sampled_from("abc"), st.floats(1e8, 3e9), max_size=2))
                task = Task(
                    id=member,
                    classes=classes,
                    priority=draw(st.integers(1, 60)),
                    cluster=members[0] if size > 1 else None,
                    parents=tuple(draw(st.sets(st.sampled_from(before), max_size=2))) if before else (),
                    seconds=seconds,
                    fails_after=draw(st.sampled_from((None, seconds / 2))) if size == 1 else None,
                    expected_seconds=draw(st.floats(60, 5000)),
                    assets=tuple(assets.items()),
                )
                tasks.append(task)
        posts.append(Post(draw(st.floats(0, 20_000)), tuple(tasks)))
    return sorted(posts, key=lambda post: post.time)


@settings(max_examples=20, deadline=None, phases=[Phase.explicit, Phase.reuse, Phase.generate])
@given(small_loads(), st.sampled_from(SIMULATED), st.sampled_from((180.0, 1200.0)), st.booleans())
def test_every_policy_runs_all_jobs_by_openqa_s_rules_and_pays_for_them(
    posts: list[Post], name: str, boot: float, spot: bool
) -> None:
    place = Place(architecture="x86_64", boot_seconds=boot, spot_mean_hours=2.0 if spot else None)
    fleets = {fleet.name: fleet for fleet in place.scenario.fleets}
    tasks = {task.id: task for post in posts for task in post.tasks}
    begun: dict[int, dict[float, str]] = {job: {} for job in tasks}
    chosen = policy(name, place)

    def note(seen: Seen) -> Decision:
        for host in seen.hosts:
            assert len(host.running) <= fleets[host.fleet].slots
            for running in host.running:
                assert tasks[running.job].classes <= fleets[host.fleet].classes
                begun[running.job][running.since] = host.id
        return chosen.decide(seen)

    noted = Policy(decide=note, interval=chosen.interval)
    outcome = play(place.scenario, posts, noted, seed=1, until=2 * DAY)
    assert outcome == play(place.scenario, posts, chosen, seed=1, until=2 * DAY)
    assert outcome.unfinished == outcome.killed == 0
    bill = parts(outcome.spans, fleets)
    assert sum(bill.values()) == pytest.approx(outcome.dollars)
    assert min(bill.values()) > -1e-9
    least = floor(place.scenario, posts)
    assert outcome.dollars >= least
    worked = sum(span.held - span.fetching for span in outcome.spans)
    runs = sum(task.seconds + (task.fails_after or 0) for task in tasks.values())
    assert worked >= runs - 1e-3
    for post in posts:
        for task in post.tasks:
            assert min(begun[task.id]) >= post.time
            if task.cluster is not None:
                assert begun[task.id] == begun[task.cluster]
    if spot:
        return
    assert worked == pytest.approx(runs)
    assert len(outcome.waits) == sum(1 + (task.fails_after is not None) for task in tasks.values())
    for task in tasks.values():
        for parent in task.parents:
            assert min(begun[task.id]) >= max(begun[parent]) + tasks[parent].seconds - 1e-6
    for patience in (0.0, boot):
        ideal = clairvoyant(place.scenario, posts, patience=patience)
        assert ideal.dollars >= least
        assert max(ideal.waits) <= patience
        assert len(ideal.waits) == len(outcome.waits)


def test_ours_costs_less_than_counting_and_kills_nothing() -> None:
    world = scenario(architecture="x86_64", boot_seconds=180, metal=False)
    posts = generate(days=1, seed=11, architecture="x86_64")
    mine = play(world, posts, ours(), seed=11)
    chosen = {frozenset(): "plain-1", frozenset({"tap"}): "tap-8", frozenset({"tap2"}): "tap2-4"}
    count = play(world, posts, count_based(chosen), seed=11, until=3 * DAY)
    assert mine.unfinished == count.unfinished == mine.killed == count.killed == 0
    assert mine.dollars < 0.85 * count.dollars
    assert max(mine.waits) < 1800
    assert floor(world, posts) < clairvoyant(world, posts, patience=0).dollars < mine.dollars
