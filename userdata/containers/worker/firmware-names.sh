#!/bin/sh
# Gives Debian's UEFI firmware the names by which jobs ask for it, in the worker's image and on tap hosts: those of
# Fedora's tests (UEFI_PFLASH_CODE and UEFI_PFLASH_VARS of the machines in os-autoinst-distri-fedora's
# templates.fif.json), those of older Fedora systems, which AlmaLinux's and Rocky Linux's tests still have, openSUSE's,
# and those that os-autoinst looks for where a job says UEFI=1 alone (bmwqemu.pm, ovmf_locations). Of openSUSE's, not
# those with "-ms-": os-autoinst looks for them first, and each UEFI=1 would be Secure Boot, as it is there.
#   usage: firmware-names.sh [ROOT]
set -eu

share=${1:-}/usr/share
convert() {
  mkdir -p "$share/edk2/ovmf"
  qemu-img convert -f raw -O qcow2 "$share/OVMF/$1" "$share/edk2/ovmf/$2"
}
name() {
  ln -sf "../../OVMF/$1" "$share/edk2/ovmf/$2"
}

if [ -e "$share/OVMF/OVMF_CODE_4M.fd" ] && ! [ -e "$share/edk2/ovmf/OVMF_CODE_4M.qcow2" ]; then
  convert OVMF_CODE_4M.fd OVMF_CODE_4M.qcow2
  convert OVMF_VARS_4M.fd OVMF_VARS_4M.qcow2
  convert OVMF_CODE_4M.secboot.fd OVMF_CODE_4M.secboot.qcow2
  # With Microsoft's keys enrolled, which signed Fedora's boot loader.
  convert OVMF_VARS_4M.ms.fd OVMF_VARS_4M.secboot.qcow2
  name OVMF_CODE_4M.fd OVMF_CODE.fd
  name OVMF_CODE_4M.fd OVMF_CODE.cc.fd
  name OVMF_VARS_4M.fd OVMF_VARS.fd
  name OVMF_CODE_4M.secboot.fd OVMF_CODE.secboot.fd
  name OVMF_VARS_4M.ms.fd OVMF_VARS.secboot.fd
fi
if [ -e "$share/OVMF/OVMF_CODE_4M.fd" ] && ! [ -e "$share/OVMF/OVMF_CODE.fd" ]; then
  ln -s OVMF_CODE_4M.fd "$share/OVMF/OVMF_CODE.fd"
  ln -s OVMF_VARS_4M.fd "$share/OVMF/OVMF_VARS.fd"
fi
if [ -e "$share/OVMF/OVMF_CODE_4M.fd" ] && ! [ -e "$share/qemu/ovmf-x86_64-code.bin" ]; then
  mkdir -p "$share/qemu"
  ln -s ../OVMF/OVMF_CODE_4M.fd "$share/qemu/ovmf-x86_64-code.bin"
  ln -s ../OVMF/OVMF_VARS_4M.fd "$share/qemu/ovmf-x86_64-vars.bin"
fi
# Fedora's own AAVMF is links to the names below: they would become links to themselves.
if [ -e "$share/AAVMF/AAVMF_CODE.fd" ] && ! [ -e "$share/edk2/aarch64/QEMU_EFI-pflash.raw" ]; then
  mkdir -p "$share/edk2/aarch64" "$share/qemu"
  ln -sf ../AAVMF/AAVMF_CODE.fd "$share/qemu/aavmf-aarch64-code.bin"
  ln -sf ../AAVMF/AAVMF_VARS.fd "$share/qemu/aavmf-aarch64-vars.bin"
  ln -sf ../../AAVMF/AAVMF_CODE.fd "$share/edk2/aarch64/QEMU_EFI-pflash.raw"
  ln -sf ../../AAVMF/AAVMF_VARS.fd "$share/edk2/aarch64/vars-template-pflash.raw"
fi
