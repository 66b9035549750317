"""Job templates by which a build of the sample has one job."""

from __future__ import annotations

import json

from tests.localcloud.deployed import SAMPLE, Deployment


def load_templates(made: Deployment, version: str) -> None:
    """Gives openQA what makes a job of each build of a version of the sample."""
    settings = json.loads((SAMPLE / "job.json").read_text())
    own = {key: settings[key] for key in ("BOOTFROM", "QEMUCPUS", "QEMURAM", "QEMUVGA")}
    machine = {"WORKER_CLASS": settings["WORKER_CLASS"]}
    product = {"distri": "sample", "version": version, "flavor": "cd", "arch": "x86_64"}

    def create(table: str, settings: dict[str, str], **values: str) -> None:
        made.openqa.request("POST", table, json={**values, "settings": settings})

    create("machines", machine, name=version, backend="qemu")
    create("test_suites", own, name=version)
    create("products", {}, name=version, **product)
    made.openqa.request("POST", "job_groups", data={"name": version})
    names = {"group_name": version, "machine_name": version, "test_suite_name": version, "prio": 50}
    made.openqa.request("POST", "job_templates", data=names | product)
