"""What hosts and the worker's container image have for jobs of each architecture and of class ``tpm``."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from pathlib import Path

import pytest

from images import container
from tests.userdata import machine
from tests.userdata.test_programs import golden_root

USERDATA = machine.REPOSITORY / "userdata"
WORKER = USERDATA / "containers/worker"
# Perl modules of Fedora's tests.
DEBIAN, FEDORA = {"libjson-perl", "librest-client-perl"}, {"perl-JSON", "perl-REST-Client"}
# What reads a needle's text (ocr.pm): Debian's os-autoinst depends on it, Fedora's recommends it.
FEDORA |= {"tesseract", "tesseract-langpack-eng"}
# Beside them QEMU, the UEFI firmware and the TPM emulator, which os-autoinst starts itself (backend/qemu.pm,
# setup_tpm).
NEEDED = {
    ("debian", "x86_64"): DEBIAN | {"qemu-system-x86", "ovmf", "qemu-utils", "swtpm"},
    ("debian", "aarch64"): DEBIAN | {"qemu-system-arm", "qemu-efi-aarch64", "qemu-utils", "swtpm"},
    ("fedora", "x86_64"): FEDORA | {"qemu-system-x86", "edk2-ovmf", "qemu-img", "swtpm"},
    ("fedora", "aarch64"): FEDORA | {"qemu-system-aarch64", "edk2-aarch64", "qemu-img", "swtpm"},
}
# UEFI_PFLASH_CODE, UEFI_PFLASH_VARS and their INSECURE_… twins of Fedora's machines "64bit" and "aarch64".
FEDORA_FIRMWARE = {
    "ovmf/OVMF_CODE_4M.qcow2",
    "ovmf/OVMF_CODE_4M.secboot.qcow2",
    "ovmf/OVMF_VARS_4M.qcow2",
    "ovmf/OVMF_VARS_4M.secboot.qcow2",
    "aarch64/QEMU_EFI-pflash.raw",
    "aarch64/vars-template-pflash.raw",
}
# The same of AlmaLinux's and Rocky Linux's machines "64bit" and "uefi", and what it is.
OLDER_FIRMWARE = {
    "ovmf/OVMF_CODE.fd": "OVMF/OVMF_CODE_4M.fd",
    "ovmf/OVMF_CODE.cc.fd": "OVMF/OVMF_CODE_4M.fd",
    "ovmf/OVMF_VARS.fd": "OVMF/OVMF_VARS_4M.fd",
    "ovmf/OVMF_CODE.secboot.fd": "OVMF/OVMF_CODE_4M.secboot.fd",
    "ovmf/OVMF_VARS.secboot.fd": "OVMF/OVMF_VARS_4M.ms.fd",
}
# openSUSE's, below /usr/share/qemu, but those that would make each UEFI=1 Secure Boot.
OPENSUSE_FIRMWARE = {
    "ovmf-x86_64-code.bin": "OVMF/OVMF_CODE_4M.fd",
    "ovmf-x86_64-vars.bin": "OVMF/OVMF_VARS_4M.fd",
    "aavmf-aarch64-code.bin": "AAVMF/AAVMF_CODE.fd",
    "aavmf-aarch64-vars.bin": "AAVMF/AAVMF_VARS.fd",
}
DEBIAN_FIRMWARE = (
    *(f"OVMF/OVMF_{name}.fd" for name in ("CODE_4M", "VARS_4M", "CODE_4M.secboot", "VARS_4M.ms")),
    *("AAVMF/AAVMF_CODE.fd", "AAVMF/AAVMF_VARS.fd"),
)


@pytest.mark.parametrize(("system", "architecture"), NEEDED)
def test_tap_hosts(system: str, architecture: str) -> None:
    script = 'machine=$2; uname() { echo "$machine"; }; . "$1"; echo "${packages[@]}" / "${tap_packages[@]}"'
    done = subprocess.run(
        ["bash", "-euc", script, "bash", str(USERDATA / f"os/{system}.sh"), architecture],
        capture_output=True,
        text=True,
        check=True,
    )
    every, tap = done.stdout.split(" / ")
    assert {"mdadm", "e2fsprogs"} <= set(every.split())
    assert NEEDED[system, architecture] <= set(tap.split())


@pytest.mark.parametrize(("system", "architecture"), NEEDED)
def test_worker_images(system: str, architecture: str) -> None:
    text = (WORKER / "Containerfile").read_text().replace("\\\n", " ")
    (line,) = [line for line in text.splitlines() if f"{system}-{architecture})" in line]
    packages = line.partition(f"{system}-{architecture})")[2].partition(";;")[0]
    assert NEEDED[system, architecture] <= set(packages.split())
    # chattr, for pools on Btrfs, which only Fedora's AMI has; hosts have the package in any case.
    assert system == "debian" or "e2fsprogs" in packages.split()


def test_tap_hosts_get_what_the_tests_need_beside_that(tmp_path: Path) -> None:
    root = golden_root()
    document = machine.read("worker-tap")
    document["worker"]["packages"] = ["libtext-csv-perl"]
    document["images"] = {}
    document["session_manager"] = False
    (tmp_path / "host.json").write_text(json.dumps(document))
    binds = [
        container.Bind(source=USERDATA, target="/opt/openqa-on-aws/userdata"),
        container.Bind(source=machine.REPOSITORY / "fleet", target="/opt/openqa-on-aws/fleet"),
        container.Bind(source=tmp_path, target="/mnt"),
    ]
    script = """
        if perl -MText::CSV -e 1 2>/dev/null; then exit 3; fi
        bash /opt/openqa-on-aws/userdata/install.sh --role worker --document /mnt/host.json
        perl -MText::CSV -e 1
    """
    container.run(root, ["bash", "-ec", script], binds=binds, log=tmp_path / "log")


@pytest.mark.parametrize(
    ("system", "tools"), [("debian", {"libarchive-tools"}), ("fedora", {"bsdtar", "bsdcat"})]
)
def test_the_web_ui_unpacks_what_builds_name(system: str, tools: set[str]) -> None:
    """openQA runs bsdtar and bsdcat for ``…_DECOMPRESS_URL``, and Debian's openqa depends on neither."""
    text = (USERDATA / "containers/webui/Containerfile").read_text().replace("\\\n", " ")
    (line,) = [line for line in text.splitlines() if f"{system})" in line]
    assert tools <= set(line.partition(f"{system})")[2].partition(";;")[0].split())


# openQA's own code, with an archive and a name that would be a command.
_UNPACK = """
mkdir --parents /tmp/lib/OpenQA /tmp/bin
cp /usr/share/openqa/lib/OpenQA/Downloader.pm /tmp/lib/OpenQA/
sh /mnt/refuse-quotes.sh /tmp/lib/OpenQA/Downloader.pm
printf '#!/bin/sh\nexec gzip --decompress --stdout "$1"\n' >/tmp/bin/bsdcat
chmod +x /tmp/bin/bsdcat
echo disk | gzip >/tmp/disk.img.gz
cd /tmp
PATH=/tmp/bin:$PATH perl -I/tmp/lib -I/usr/share/openqa/lib -MOpenQA::Downloader -MMojo::File=path -e '
my $quote = chr 39;
for my $name ("disk.img", "a$quote;touch owned;$quote") {
  my $error = OpenQA::Downloader->new->_extract_asset("/tmp/disk.img.gz", path("/tmp/$name"));
  print $error // "unpacked", "\n";
}'
cat /tmp/disk.img
ls /tmp/owned 2>/dev/null || echo nothing else
"""


def test_a_name_of_an_asset_is_no_command(tmp_path: Path) -> None:
    shutil.copy(USERDATA / "containers/webui/refuse-quotes.sh", tmp_path)
    binds = [container.Bind(source=tmp_path, target="/mnt")]
    container.run(golden_root(), ["bash", "-ec", _UNPACK], binds=binds, log=tmp_path / "log")
    said = (tmp_path / "log").read_text().splitlines()
    assert said[-4:] == ["unpacked", "there is a quote in its name", "disk", "nothing else"]


def firmware(root: Path) -> None:
    tools = root / "bin"
    tools.mkdir(exist_ok=True)
    (tools / "qemu-img").write_text('#!/bin/sh\nfor last; do :; done\necho "$*" >"$last"\n')
    (tools / "qemu-img").chmod(0o755)
    subprocess.run(
        ["sh", str(WORKER / "firmware-names.sh"), str(root)],
        env={"PATH": f"{tools}:{os.environ['PATH']}"},
        check=True,
    )


def test_debians_firmware_has_the_names_that_other_systems_tests_ask_for(tmp_path: Path) -> None:
    share = tmp_path / "usr/share"
    for name in DEBIAN_FIRMWARE:
        (share / name).parent.mkdir(parents=True, exist_ok=True)
        (share / name).write_text(name)
    for _ in range(2):
        firmware(tmp_path)
    edk2 = share / "edk2"
    found = {str(path.relative_to(edk2)) for path in edk2.rglob("*") if path.is_file()}
    assert found == FEDORA_FIRMWARE | OLDER_FIRMWARE.keys()
    assert {name: (edk2 / name).read_text() for name in OLDER_FIRMWARE} == OLDER_FIRMWARE
    assert (edk2 / "aarch64/QEMU_EFI-pflash.raw").read_text() == "AAVMF/AAVMF_CODE.fd"
    assert "OVMF_VARS_4M.ms.fd" in (edk2 / "ovmf/OVMF_VARS_4M.secboot.qcow2").read_text()
    assert {path.name: path.read_text() for path in (share / "qemu").iterdir()} == OPENSUSE_FIRMWARE


def test_debians_firmware_is_where_os_autoinst_looks_for_it(tmp_path: Path) -> None:
    ovmf = tmp_path / "usr/share/OVMF"
    ovmf.mkdir(parents=True)
    for name in ("CODE", "VARS"):
        (ovmf / f"OVMF_{name}_4M.fd").write_text(name)
    for _ in range(2):
        firmware(tmp_path)
    # The fourth of ovmf_locations; the variables' name follows from it (backend/qemu.pm).
    assert [(ovmf / f"OVMF_{name}.fd").read_text() for name in ("CODE", "VARS")] == ["CODE", "VARS"]


def test_fedoras_own_firmware_is_left_alone(tmp_path: Path) -> None:
    share = tmp_path / "usr/share"
    own = share / "edk2/ovmf/OVMF_CODE_4M.qcow2"
    ovmf = share / "OVMF"
    code, variables = (
        share / f"edk2/aarch64/{name}.raw" for name in ("QEMU_EFI-pflash", "vars-template-pflash")
    )
    for file in (own, ovmf / "OVMF_CODE_4M.fd", ovmf / "OVMF_CODE.fd", code, variables):
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text("Fedora's")
    # As its package edk2-aarch64 has them.
    (share / "AAVMF").mkdir()
    (share / "AAVMF/AAVMF_CODE.fd").symlink_to("../edk2/aarch64/QEMU_EFI-pflash.raw")
    (share / "AAVMF/AAVMF_VARS.fd").symlink_to("../edk2/aarch64/vars-template-pflash.raw")
    firmware(tmp_path)
    assert own.read_text() == "Fedora's"
    assert (len(list(own.parent.iterdir())), len(list(ovmf.iterdir()))) == (1, 2)
    for file in (code, variables):
        assert not file.is_symlink()
        assert file.read_text() == "Fedora's"


@pytest.mark.parametrize("selinux", [True, False])
def test_fedoras_tap_hosts_start_openqas_programs_as_programs(tmp_path: Path, selinux: bool) -> None:
    log = tmp_path / "log"
    for name, body in {
        "dnf": f"echo dnf $* >>{log}",
        "chcon": f"echo chcon $* >>{log}",
        "selinuxenabled": "exit 0" if selinux else "exit 1",
    }.items():
        (tmp_path / name).write_text(f"#!/bin/sh\n{body}\n")
        (tmp_path / name).chmod(0o755)
    subprocess.run(
        ["bash", "-euc", '. "$1"; os_install_idle STAND_IN openqa-worker', "bash", USERDATA / "os/fedora.sh"],
        env={**os.environ, "PATH": f"{tmp_path}:{os.environ['PATH']}"},
        check=True,
    )
    install, *labels = log.read_text().splitlines()
    assert install.endswith(" install openqa-worker")
    wanted = "chcon --recursive --type=bin_t /usr/share/openqa/script /usr/lib/os-autoinst"
    assert labels == ([wanted] if selinux else [])


@pytest.mark.parametrize(
    ("asked", "there"),
    [
        (("podman",), True),
        (("podman", "curl"), True),
        (("podman", "removed"), False),
        (("unknown",), False),
        (("podman", "unknown", "curl"), False),
    ],
)
def test_packages_are_installed_when_all_are(tmp_path: Path, asked: tuple[str, ...], there: bool) -> None:
    # As dpkg-query speaks of what is there, of what left its configuration, and of what it never saw.
    program = tmp_path / "dpkg-query"
    program.write_text(
        "#!/bin/bash\nstatus=0\nshift 3\n"
        "for package; do case $package in removed) echo config-files ;; podman | curl) echo installed ;;\n"
        "  *) echo dpkg-query: no packages found matching $package >&2; status=1 ;;\nesac; done\n"
        "exit $status\n"
    )
    program.chmod(0o755)
    done = subprocess.run(
        [
            "bash",
            "-euc",
            '. "$1"; shift; os_is_installed "$@"',
            "bash",
            str(USERDATA / "os/debian.sh"),
            *asked,
        ],
        env={**os.environ, "PATH": f"{tmp_path}:{os.environ['PATH']}"},
        check=False,
    )
    assert (done.returncode == 0) is there
