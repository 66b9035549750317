"""Reading openQA: pages, garbage, slowness, and how long ten thousand jobs take."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlparse

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fleet import openqa_api
from fleet.openqa_api import ListedJob, ListedWorker, OpenQaApi, OpenQaError, parse_job, parse_worker

NOTHING: dict[str, list[int]] = {"Chained": [], "Parallel": [], "Directly chained": []}


def job(id: int, **changes: Any) -> dict[str, Any]:
    """A job as openQA lists it."""
    row = {
        "id": id,
        "state": "scheduled",
        "priority": 50,
        "blocked_by_id": None,
        "t_started": None,
        "t_finished": None,
        "settings": {"TEST": "base", "ARCH": "x86_64", "WORKER_CLASS": "qemu_x86_64,tap"},
        "parents": NOTHING,
        "children": NOTHING,
    }
    return row | changes


def worker(id: int, **changes: Any) -> dict[str, Any]:
    """A worker as openQA lists it."""
    row = {
        "id": id,
        "instance": 2,
        "status": "idle",
        "properties": {"WORKER_CLASS": f"qemu_x86_64,i-{id:08x}"},
    }
    return row | changes


Respond = Callable[[BaseHTTPRequestHandler], object]


@contextmanager
def serving(respond: Respond) -> Iterator[str]:
    """A server whose GETs a function answers."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            respond(self)

        def log_message(self, *_: object) -> None:
            pass

    class Server(ThreadingHTTPServer):
        daemon_threads = True

    server = Server(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        server.server_close()


def send(handler: BaseHTTPRequestHandler, body: bytes, *, status: int = 200) -> None:
    handler.send_response(status)
    handler.send_header("Content-Length", str(len(body)))
    handler.end_headers()
    handler.wfile.write(body)


def openqa(
    jobs: list[dict[str, Any]], workers: list[dict[str, Any]], asked: list[str] | None = None
) -> Respond:
    """Answers as lib/OpenQA/WebAPI/Controller/API/V1/{Job,Worker}.pm: newest jobs first, before, limit."""

    def respond(handler: BaseHTTPRequestHandler) -> None:
        url = urlparse(handler.path)
        query = {key: values[0] for key, values in parse_qs(url.query).items()}
        if asked is not None:
            asked.append(handler.path)
        limit = int(query["limit"])
        if url.path == "/api/v1/jobs":
            states = query["state"].split(",")
            before = int(query.get("before", 1 << 60))
            found = [row for row in jobs if row["state"] in states and row["id"] < before]
            if "result" in query:
                found = [row for row in found if row["result"] in query["result"].split(",")]
            found = sorted(found, key=lambda row: -row["id"])[:limit]
            rows = {"jobs": sorted(found, key=lambda row: str(row["id"]))}
        else:
            rows = {"workers": workers[:limit]}
        send(handler, json.dumps(rows).encode())

    return respond


def test_reads_all_pages(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:1")
    jobs = [job(id) for id in range(1, 96)] + [job(200, state="done")]
    workers = [worker(id) for id in range(1, 26)]
    asked: list[str] = []
    with serving(openqa(jobs, workers, asked)) as url:
        queue = OpenQaApi(url, page=10, clock=lambda: 1000.0).read()
    assert {found.id for found in queue.jobs} == set(range(1, 96))
    assert {found.id for found in queue.workers} == set(range(1, 26))
    assert queue.at == 1000.0
    assert len(asked) == 10 + 1, "workers are in no order, of which one could ask for pages"


def test_a_full_last_page_is_followed_by_an_empty_one() -> None:
    with serving(openqa([job(id) for id in range(1, 21)], [])) as url:
        assert len(OpenQaApi(url, page=10).read().jobs) == 20


def test_jobs_that_come_and_go_between_pages_are_neither_lost_nor_twice() -> None:
    jobs = [job(id) for id in range(1, 31)]
    plain = openqa(jobs, [])

    def respond(handler: BaseHTTPRequestHandler) -> None:
        plain(handler)
        if "before" not in handler.path:
            jobs.append(job(100))  # new, at the front
            jobs[-2]["state"] = "done"  # gone from the page just read

    with serving(respond) as url:
        found = [row.id for row in OpenQaApi(url, page=10).read().jobs]
    assert sorted(found) == list(range(1, 31))


def test_finished_jobs_are_one_page() -> None:
    ended = {"t_started": "2026-01-01T10:00:00", "t_finished": "2026-01-01T10:30:00"}
    results = ("passed", "softfailed", "failed")
    jobs = [job(id, state="done", result=results[id % 3], **ended) for id in range(1, 12)]
    broken = job(12, state="done", result="incomplete", **ended)
    with serving(openqa([*jobs, broken], [])) as url:
        found = OpenQaApi(url, page=10).finished()
    assert [row.finished - row.started for row in found if row.finished and row.started] == [1800.0] * 10
    assert broken["id"] not in [row.id for row in found], "it took what it took until it broke"


def test_what_a_job_tells() -> None:
    row = job(
        7,
        priority=40,
        state="running",
        assigned_worker_id=3,
        blocked_by_id=5,
        t_started="2026-01-01T00:00:00",
        parents={"Chained": [5], "Parallel": [6], "Directly chained": [4]},
        children={"Chained": [9], "Parallel": [8]},
    )
    assert parse_job(row) == ListedJob(
        id=7,
        scheduled=False,
        priority=40,
        classes=frozenset({"qemu_x86_64", "tap"}),
        kind=("base", "", "", "x86_64"),
        parallel=(6, 8),
        parents=(5, 4),
        blocked_by=5,
        worker=3,
        started=1767225600.0,
    )


@pytest.mark.parametrize(
    ("settings", "classes"),
    [
        ({"ARCH": "aarch64"}, {"qemu_aarch64"}),
        ({}, {"qemu_x86_64"}),
        # No worker has " tap": hosts that are launched for it would get no job.
        ({"WORKER_CLASS": "qemu_x86_64, tap"}, {"qemu_x86_64", " tap"}),
        ({"WORKER_CLASS": "qemu_x86_64,,tap"}, {"qemu_x86_64", "", "tap"}),
    ],
)
def test_classes_are_what_openqa_compares(settings: dict[str, str], classes: set[str]) -> None:
    assert parse_job(job(1, settings=settings)).classes == classes


def test_what_a_worker_tells() -> None:
    row = worker(3, status="running", jobid=9)
    assert parse_worker(row) == ListedWorker(id=3, instance="i-00000003", number=2, connected=True, job=9)
    assert not parse_worker(worker(3, status="dead", jobid=9)).connected
    broken = parse_worker(worker(3, status="broken"))
    assert (broken.connected, broken.broken) == (False, True)
    busy = parse_worker(worker(3, status="broken", jobid=9))
    assert (busy.connected, busy.broken) == (True, False)
    reserved = parse_worker(worker(3, status="reserved"))
    assert (reserved.connected, reserved.broken, reserved.job) == (True, False, -3)
    assert parse_worker(worker(3, properties={})).instance is None
    assert parse_worker(worker(3, properties={"WORKER_CLASS": "i-386,i-00000003-tap"})).instance is None


def test_people_may_make_a_priority_as_low_as_they_like() -> None:
    assert parse_job(job(1, priority=-10)).priority == -10


@pytest.mark.parametrize(
    "changes",
    [
        {"id": "7"},
        {"id": True},
        {"id": -1},
        {"state": "asleep"},
        {"state": None},
        {"priority": "high"},
        {"settings": None},
        {"settings": {"WORKER_CLASS": 5}},
        {"parents": None},
        {"parents": {"Parallel": ["x"]}},
        {"parents": {"Parallel": 5}},
        {"children": []},
        {"blocked_by_id": "5"},
        {"t_started": "yesterday"},
        {"t_started": 5},
        {"assigned_worker_id": 1.5},
    ],
)
def test_a_job_that_makes_no_sense(changes: dict[str, Any]) -> None:
    with pytest.raises(OpenQaError):
        parse_job(job(1) | changes)


@pytest.mark.parametrize(
    "changes",
    [
        {"id": None},
        {"status": None},
        {"status": "off"},
        {"properties": None},
        {"properties": {"WORKER_CLASS": 5}},
        {"jobid": "9"},
        {"instance": "2"},
    ],
)
def test_a_worker_that_makes_no_sense(changes: dict[str, Any]) -> None:
    with pytest.raises(OpenQaError):
        parse_worker(worker(1) | changes)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=8,
)


@given(JSON)
def test_no_json_is_taken_for_a_job_or_a_worker_by_accident(value: Any) -> None:
    for parse in (parse_job, parse_worker):
        with pytest.raises(OpenQaError):
            parse(value)


@pytest.mark.parametrize("field", list(job(1)))
@given(value=JSON)
def test_a_job_with_one_field_wrong_is_read_or_refused_in_one_way(field: str, value: Any) -> None:
    try:
        parse_job(job(1) | {field: value})
    except OpenQaError as error:
        assert "\n" not in str(error)


@pytest.mark.parametrize(
    ("body", "status", "words"),
    [
        (b'{"jobs": []', 200, "not JSON"),
        (b"<html>", 200, "not JSON"),
        (b"", 200, "not JSON"),
        (b"\xff\xfe", 200, "not JSON"),
        (b"[" * 100_000, 200, "not JSON"),
        (b"null", 200, "list of jobs is none"),
        (b'{"error": "busy"}', 200, "list of jobs is none"),
        (b'{"jobs": {}}', 200, "list of jobs is none"),
        (b'{"jobs": [1]}', 200, "makes no sense"),
        (b'{"jobs": []}', 500, "HTTP Error 500"),
        (b"", 502, "HTTP Error 502"),
    ],
)
def test_garbage(body: bytes, status: int, words: str) -> None:
    answering = serving(lambda handler: send(handler, body, status=status))
    with answering as url, pytest.raises(OpenQaError, match=words):
        OpenQaApi(url).read()


def test_nobody_there() -> None:
    with serving(lambda handler: None) as url:
        pass
    with pytest.raises(OpenQaError, match="does not answer"):
        OpenQaApi(url).read()


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (b'HTTP/1.0 200 OK\r\nContent-Length: 1000\r\n\r\n{"jobs": [', "not JSON"),
        (b'HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nc\r\n{"jobs": []}\r\n', "does not answer"),
        (b"SSH-2.0-OpenSSH_9.2\r\n", "does not answer"),
    ],
)
def test_half_an_answer_and_none_of_a_web_server(answer: bytes, words: str) -> None:
    with (
        serving(lambda handler: handler.wfile.write(answer)) as url,
        pytest.raises(OpenQaError, match=words),
    ):
        OpenQaApi(url).read()


def test_silence(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(openqa_api, "_SILENCE", 0.3)
    with serving(lambda handler: time.sleep(3)) as url, pytest.raises(OpenQaError, match="timed out"):
        OpenQaApi(url).read()


def test_a_byte_now_and_then() -> None:
    def respond(handler: BaseHTTPRequestHandler) -> None:
        handler.send_response(200)
        handler.send_header("Content-Length", "1000000")
        handler.end_headers()
        for _ in range(200):
            handler.wfile.write(b" ")
            handler.wfile.flush()
            time.sleep(0.05)

    began = time.monotonic()
    with serving(respond) as url, pytest.raises(OpenQaError, match="more than 1 s"):
        OpenQaApi(url, seconds=1.0).read()
    assert time.monotonic() - began < 3


def test_pages_that_never_end() -> None:
    def respond(handler: BaseHTTPRequestHandler) -> None:
        send(handler, json.dumps({"jobs": [job(id) for id in range(1, 11)]}).encode())

    with serving(respond) as url, pytest.raises(OpenQaError, match="does not end"):
        OpenQaApi(url, page=10).read()


@pytest.mark.parametrize(
    ("most", "what"), [("MOST", "list of jobs"), ("WORKERS", "list of workers"), ("_MOST_BYTES", "answer")]
)
def test_more_than_a_queue_can_have_is_none(monkeypatch: pytest.MonkeyPatch, most: str, what: str) -> None:
    jobs, workers = [job(id) for id in range(1, 31)], [worker(id) for id in range(1, 31)]
    with serving(openqa(jobs, workers)) as url:
        api = OpenQaApi(url, page=10)
        assert len(api.read().jobs) == 30
        monkeypatch.setattr(openqa_api, most, 15)
        with pytest.raises(OpenQaError, match=f"openQA's {what} does not end"):
            api.read()


def test_ten_thousand_jobs_are_read_in_seconds() -> None:
    settings = {f"SETTING_{i}": "a value such as jobs have fifty of" for i in range(50)}
    settings |= {"WORKER_CLASS": "qemu_x86_64", "TEST": "base"}
    pages = {
        before: json.dumps({"jobs": [job(id, settings=settings) for id in range(before - 1000, before)]})
        for before in range(1001, 10_002, 1000)
    }

    def respond(handler: BaseHTTPRequestHandler) -> None:
        query = parse_qs(urlparse(handler.path).query)
        if "/workers" in handler.path:
            send(handler, b'{"workers": []}')
        else:
            body = pages.get(int(query.get("before", ["10001"])[0]), '{"jobs": []}')
            send(handler, body.encode())

    with serving(respond) as url:
        began = time.process_time()
        queue = OpenQaApi(url).read()
        took = time.process_time() - began
    assert len(queue.jobs) == 10_000
    assert took < 5
