"""This host: its document, its paths, and what AWS knows of it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from userdata.host import aws, document
from userdata.host.document import Document
from userdata.host.layout import Layout
from userdata.host.metadata import Metadata


@dataclass(frozen=True)
class Host:
    """An instance that knows itself.

    Attributes:
        document: what its launch template says.
        layout: where things are.
        instance: its id.
        instance_type: its type.
        address: its own private address (not the fixed interface's).
        client: makes a client for an AWS service's name.
    """

    document: Document
    layout: Layout
    instance: str
    instance_type: str
    address: str
    client: Callable[[str], Any]

    @property
    def name(self) -> str:
        """The host name.

        A worker's ends in its address: openQA keeps a row for every worker name for ever and addresses come
        back, so a fleet never has more names than its subnets have addresses.
        """
        if self.document.worker is None:
            return f"openqa-{self.document.environment}-{self.document.role}"
        return f"{self.document.worker.fleet}-{self.address.replace('.', '-')}"


def this_host(layout: Layout, metadata: Metadata) -> Host:
    """Reads the document and the instance metadata.

    Raises:
        HostError: one of them cannot be read.
    """
    read = document.load(layout.document)
    return Host(
        document=read,
        layout=layout,
        instance=metadata.get("instance-id"),
        instance_type=metadata.get("instance-type"),
        address=metadata.get("local-ipv4"),
        client=lambda service: aws.client(service, read.region),
    )
