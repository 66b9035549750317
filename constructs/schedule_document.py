"""What the web UI's host is told of the messages that schedule jobs."""

from __future__ import annotations

from constructs.role_document import Document

from settings import Environment, messages


def schedule_document(environment: Environment) -> Document:
    """Returns the document's part on messages; nothing where none are consumed."""
    schedule = environment.schedule
    if schedule is None:
        return {}
    return {
        "schedule": {
            "program": schedule.program,
            "broker": schedule.broker,
            "queue": messages.queue(
                schedule, account=environment.account, region=environment.region, name=environment.name
            ),
            "exchange": messages.EXCHANGE,
            "archive": schedule.archive,
            "rules": [rule.model_dump(mode="json") for rule in schedule.rules],
        }
    }
