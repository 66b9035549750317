"""Fixed assets in the bucket, over a real mount: what is sent, what comes back, what is refused."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.backup.bare_host import BUCKET, BareHost, running
from tests.prerequisites import missing
from tests.userdata import machine

pytestmark = pytest.mark.backup

FIXED = "/srv/data/openqa/share/factory/hdd/fixed"
OBJECTS = "find /srv/backups/openqa/assets -type f ! -name '*.json' | sort"


@pytest.fixture(scope="module")
def host() -> Iterator[BareHost]:
    """A web UI host with an empty bucket."""
    if os.geteuid() != 0 or not Path("/dev/fuse").exists():
        missing("a mount needs root and /dev/fuse")
    with running(Path("/"), "webui") as made:
        lose_the_volume(made)
        yield made


def lose_the_volume(host: BareHost) -> None:
    host.output(f"rm -rf /srv/data/*; mkdir -p {FIXED} {FIXED}/../../tmp; chown -R 601:601 /srv/data/openqa")


def objects(host: BareHost) -> list[str]:
    # Listings of the mount may be a second old.
    time.sleep(1.1)
    return host.output(OBJECTS).split()


def sums(host: BareHost) -> str:
    return host.output(f"cd {FIXED}/../..; find */fixed -type f -exec sha256sum {{}} + | sort -k 2")


def inventories(host: BareHost) -> list[str]:
    time.sleep(1.1)
    return host.output("ls /srv/backups/openqa/inventories/*").split()


def spoil(host: BareHost, path: str) -> None:
    """Turns an object's last bytes over; and back, the second time."""
    key = "webui" + path.removeprefix("/srv/backups")
    host.python(
        "import boto3\n"
        f"found = boto3.resource('s3').Object({BUCKET!r}, {key!r})\n"
        "body = found.get()['Body'].read()\n"
        "found.put(Body=body[:-9] + bytes(byte ^ 255 for byte in body[-9:]))\n"
        "print('null')"
    )


def test_an_empty_bucket_has_nothing_to_restore(host: BareHost) -> None:
    refused = host.host("assets restore")
    assert refused.returncode == 1
    assert "the backup bucket holds no assets of this environment" in refused.stderr


def test_what_is_new_is_sent_and_what_is_not_is_not(host: BareHost) -> None:
    host.output(f"head -c 9M /dev/urandom >{FIXED}/one.raw; head -c 1M /dev/urandom >{FIXED}/two.qcow2")
    assert "2 fixed assets" in host.does("assets keep")
    first = objects(host)
    assert len(first) == 2
    assert host.does("assets keep") == ""
    # The same content under another name, or touched, is there already.
    host.output(
        f"cp {FIXED}/two.qcow2 {FIXED}/three.qcow2; touch {FIXED}/one.raw; ln -s one.raw {FIXED}/link.raw"
    )
    assert "3 fixed assets" in host.does("assets keep")
    assert objects(host) == first
    host.output(f"head -c 2M /dev/urandom >{FIXED}/two.qcow2")
    host.does("assets keep")
    assert len(objects(host)) == 3


def test_openqas_configuration_is_kept_without_secrets(host: BareHost) -> None:
    kept = json.loads(host.output(f"cat {inventories(host)[-1]}"))["configuration"]
    assert "[global]" in kept["openqa.ini"]
    assert set(kept) > {"nginx.conf", "database.ini"}
    secrets = {*machine.HIDDEN, *json.loads(machine.SIGN_IN).values()}
    assert not [secret for secret in secrets if secret in "".join(kept.values())]


def test_a_new_volume_gets_them_back_before_anything_is_backed_up(host: BareHost) -> None:
    expected, before = sums(host), inventories(host)
    lose_the_volume(host)
    # What a new host lays there itself stays.
    host.output(f"echo other >{FIXED}/three.qcow2")
    shown = host.does("assets keep")
    assert "hdd/fixed/three.qcow2 is there already" in shown
    assert host.output(f"cat {FIXED}/three.qcow2") == "other"
    assert host.output(f"stat --format=%u {FIXED}/one.raw") == "601"
    host.does("assets restore")
    assert host.output(f"cat {FIXED}/three.qcow2") == "other"
    # To go back, an earlier inventory must be the newest; two of the same second have no order.
    time.sleep(1.1)
    host.output(f"rm {FIXED}/three.qcow2; cp {FIXED}/two.qcow2 {FIXED}/four.raw")
    host.does("assets keep")
    host.output(f"rm {FIXED}/four.raw")
    host.does("assets restore")
    assert host.output(f"cmp {FIXED}/two.qcow2 {FIXED}/four.raw") == ""
    assert len(inventories(host)) == len(before) + 2
    assert [line for line in expected.splitlines() if "three" not in line] == [
        line for line in sums(host).splitlines() if "four" not in line
    ]


def test_a_damaged_asset_is_refused_by_name(host: BareHost) -> None:
    (attempt,) = [path for path in objects(host) if host.output(f"stat --format=%s {path}") == str(9 << 20)]
    spoil(host, attempt)
    expected = sums(host)
    lose_the_volume(host)
    time.sleep(1.1)
    refused = host.host("assets keep")
    assert refused.returncode == 1
    assert attempt in refused.stderr
    assert "assets backup" in refused.stderr
    # The others are back, and the inventory that names the damaged one is still the newest.
    assert host.output(f"ls {FIXED}").split() == ["four.raw", "two.qcow2"]
    # It is tried again every half hour: what was fetched of it must not fill the volume.
    assert host.output(f"ls {FIXED}/../../tmp") == ""
    spoil(host, attempt)
    time.sleep(1.1)
    host.does("assets keep")
    assert sums(host) == expected


def test_what_is_in_the_bucket_is_sent_again_before_it_expires(host: BareHost) -> None:
    first, before = objects(host), inventories(host)
    host.python(
        "import boto3, json\n"
        f"bucket = boto3.resource('s3').Bucket({BUCKET!r})\n"
        "for found in bucket.objects.filter(Prefix='webui/openqa/'):\n"
        "    if found.key.endswith('.json'):\n"
        "        data = json.load(found.get()['Body'])\n"
        "        data |= dict.fromkeys({'sent', 'taken'} & data.keys(), '2026-01-01T00:00:00+00:00')\n"
        "        found.put(Body=json.dumps(data))\n"
        "print('null')"
    )
    time.sleep(1.1)
    host.does("assets keep")
    # Those of one.raw, and of two.qcow2 and four.raw.
    assert len(objects(host)) == len(first) + 2
    assert len(inventories(host)) == len(before) + 1
    assert host.does("assets keep") == ""


def test_an_earlier_copy_is_good_where_the_last_is_damaged(host: BareHost) -> None:
    copies = [path for path in objects(host) if host.output(f"stat --format=%s {path}") == str(9 << 20)]
    spoil(host, copies[-1])
    expected = sums(host)
    lose_the_volume(host)
    time.sleep(1.1)
    # With their times: else all would be new to the backup, and to whoever keeps copies.
    assert "backed up" not in host.does("assets keep")
    assert sums(host) == expected


def test_an_asset_that_cannot_be_read_keeps_no_other_from_the_bucket(host: BareHost) -> None:
    host.does("assets keep")
    before = json.loads(host.output(f"cat {inventories(host)[-1]}"))["assets"]
    time.sleep(1.1)
    host.output(
        f"chown root {FIXED}/one.raw; chmod 600 {FIXED}/one.raw; touch {FIXED}/one.raw; "
        # What was not modified is not read again.
        f"chown root {FIXED}/four.raw; chmod 600 {FIXED}/four.raw; "
        f"install -m 600 /dev/null {FIXED}/hidden.raw; head -c 1M /dev/urandom >{FIXED}/zero.raw"
    )
    refused = host.host("assets keep")
    assert refused.returncode == 1
    assert host.figures("AssetsFailed")[-1] == 1
    assert "one.raw: cannot be read: Permission denied" in refused.stderr
    assert "four.raw" not in refused.stderr
    kept = json.loads(host.output(f"cat {inventories(host)[-1]}"))["assets"]
    assert kept == before | {"hdd/fixed/zero.raw": kept["hdd/fixed/zero.raw"]}
    host.output(f"chown 601 {FIXED}/*.raw; chmod 644 {FIXED}/*.raw; rm {FIXED}/hidden.raw {FIXED}/zero.raw")
    host.does("assets keep")
    assert host.figures("AssetsFailed")[-1] == 0


def test_assets_of_a_folder_that_cannot_be_listed_stay_in_the_inventory(host: BareHost) -> None:
    """Else they would expire in the bucket, and nobody would know."""
    host.output(f"mkdir {FIXED}/sub; echo content >{FIXED}/sub/deep.raw; chown -R 601:601 {FIXED}/sub")
    host.does("assets keep")
    before = json.loads(host.output(f"cat {inventories(host)[-1]}"))["assets"]
    time.sleep(1.1)
    host.output(f"chmod 0 {FIXED}/sub; echo more >{FIXED}/more.raw")
    refused = host.host("assets keep")
    assert f"{FIXED}/sub: cannot be read: Permission denied" in refused.stderr
    kept = json.loads(host.output(f"cat {inventories(host)[-1]}"))["assets"]
    assert kept == before | {"hdd/fixed/more.raw": kept["hdd/fixed/more.raw"]}
    host.output(f"chmod 755 {FIXED}/sub; rm -r {FIXED}/sub {FIXED}/more.raw")
    host.does("assets keep")


def test_links_of_openqa_lead_root_nowhere(host: BareHost) -> None:
    """Neither into the bucket nor out of it."""
    host.does("assets keep")
    before = inventories(host)
    iso = f"{FIXED}/../../iso"
    host.output(
        "mkdir -m 700 /srv/elsewhere; echo secret >/srv/elsewhere/key; touch /srv/elsewhere/four.raw; "
        f"chmod 600 /srv/elsewhere/*; mkdir -p {iso}; ln -s /srv/elsewhere {iso}/fixed; "
        f"mv {FIXED} {FIXED}.kept; ln -s /srv/elsewhere {FIXED}"
    )
    refused = host.host("assets restore --yes-overwrite")
    assert (refused.returncode, "Permission denied" in refused.stderr) == (1, True)
    assert host.output("ls /srv/elsewhere; cat /srv/elsewhere/*").split() == ["four.raw", "key", "secret"]
    host.output(f"rm {FIXED}; mv {FIXED}.kept {FIXED}")
    # It may hold assets that are in the bucket.
    assert "iso/fixed: cannot be read: Permission denied" in host.host("assets keep").stderr
    host.output(f"rm -r {iso} /srv/elsewhere")
    host.does("assets keep")
    assert inventories(host) == before


def test_a_killed_writer_leaves_nothing_that_counts(host: BareHost) -> None:
    host.does("assets keep")
    host.output(f"head -c 64M /dev/urandom >{FIXED}/large.raw")
    before = inventories(host)
    host.run(
        f"kept=$({OBJECTS} | wc -l); python -m tests.backup.command assets keep & for i in $(seq 400); do "
        f"[ $({OBJECTS} | wc -l) -gt $kept ] && break; sleep 0.05; done; kill -9 $!; wait $!"
    )
    assert inventories(host) == before
    assert "large.raw" in host.does("assets keep")
    lose_the_volume(host)
    assert "hdd/fixed/large.raw" in host.does("assets keep")
    assert host.output(f"stat --format=%s {FIXED}/large.raw") == str(64 << 20)


def test_without_the_mount_nothing_happens(host: BareHost) -> None:
    host.kill_mount()
    refused = host.host("assets keep")
    host.mount()
    assert refused.returncode == 1
    assert "the backup bucket is not mounted" in refused.stderr
