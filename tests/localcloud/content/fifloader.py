"""Stands in for Fedora's loader: checks with --clean, loads with --load, by the loader it is told.

The genuine one checks by JSON Schema, which this one plays with one rule.
"""

import argparse
import json
import subprocess
from pathlib import Path
from typing import Any

parser = argparse.ArgumentParser()
parser.add_argument("--load", action="store_true")
parser.add_argument("--clean", action="store_true")
parser.add_argument("--loader", default="/usr/share/openqa/script/load_templates")
parser.add_argument("--host")
parser.add_argument("files", nargs="+")
options = parser.parse_args()

merged: dict[str, Any] = {}
for name in options.files:
    for table, entries in json.loads(Path(name).read_text()).items():
        merged.setdefault(table, {}).update(entries)
products, profiles = merged["Products"], merged["Profiles"]
templates = []
for suite, entry in merged["TestSuites"].items():
    for profile, prio in entry.pop("profiles").items():
        product = products[profiles[profile]["product"]]
        templates.append(
            {key: product[key] for key in ("arch", "distri", "flavor", "version")}
            | {"test_suite_name": suite, "machine_name": profiles[profile]["machine"]}
            | {"group_name": "converted", "prio": prio}
        )
out = {"JobTemplates": templates}
for table in ("Machines", "Products", "TestSuites"):
    out[table] = [
        {**entry, "name": name, "settings": [{"key": k, "value": v} for k, v in entry["settings"].items()]}
        for name, entry in merged[table].items()
    ]
if options.load:
    command = [options.loader, "--host", options.host, "--clean", "-"]
    subprocess.run(command, input=json.dumps(out), text=True, check=True)
