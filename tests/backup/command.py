"""``python -m userdata.host`` for a host without instance metadata, whose document is given."""

from __future__ import annotations

import sys
from pathlib import Path

from userdata.host import __main__ as main
from userdata.host import aws, document
from userdata.host.host import Host
from userdata.host.layout import Layout


def this_host(layout: Layout, metadata: object) -> Host:
    """Returns the host of the document that the environment names."""
    read = document.load(Path("/run/host.json"))
    return Host(
        document=read,
        layout=layout,
        instance="i-0123456789abcdef0",
        instance_type="t3.small",
        address="10.99.1.40",
        client=lambda service: aws.client(service, read.region),
    )


if __name__ == "__main__":
    vars(main)["this_host"] = this_host
    sys.exit(main.main(sys.argv[1:], Layout()))
