"""What the web UI host's document holds about the messages and the timetable that schedule jobs."""

from __future__ import annotations

from constructs.host_document import Document

from settings import Environment, messages


def schedule_document(environment: Environment) -> Document:
    """Returns the document's parts on messages and on the timetable, if the environment has them."""
    return {**_messages(environment), **_timetable(environment)}


def _timetable(environment: Environment) -> Document:
    if not environment.timetable:
        return {}
    return {"timetable": [entry.model_dump(mode="json") for entry in environment.timetable]}


def _messages(environment: Environment) -> Document:
    schedule = environment.schedule
    if schedule is None:
        return {}
    return {
        "schedule": {
            "program": schedule.program,
            "broker": schedule.broker,
            "queue": _queue(environment, schedule, "scheduler"),
            "exchange": schedule.exchange,
            "archive": schedule.archive,
            "rules": [rule.model_dump(mode="json") for rule in schedule.rules],
            "architectures": _architectures(environment, schedule),
            "reports": {
                name: {"to": target, "queue": _queue(environment, schedule, name)}
                for name, target in schedule.reports.items()
            },
        }
    }


def _architectures(environment: Environment, schedule: messages.Schedule) -> list[str]:
    """Those that builds are scheduled for. Rules name theirs: no changed fleet replaces that host."""
    if schedule.program == "rules":
        return []
    return sorted({fleet.architecture for fleet in environment.fleets if fleet.max})


def _queue(environment: Environment, schedule: messages.Schedule, purpose: str) -> str:
    return messages.queue(
        schedule,
        account=environment.account,
        region=environment.region,
        name=environment.name,
        purpose=purpose,
    )
