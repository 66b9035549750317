#!/bin/bash
# Two small disk images, made as createhdds makes large ones: same arguments, same exit codes, a complete image
# under its name in one step.
#   usage: sample.sh check|all [--clean]
set -Eeuo pipefail
shopt -s nullglob

wanted=(disk_sample_1.img disk_sample_2.img)
days=14

state() {
  local image code=0
  for image in "${wanted[@]}"; do
    if [[ ! -f "$image" ]]; then
      code=2
    elif [[ -n "$(find "$image" -mtime "+$days")" ]] && ((code == 0)); then
      code=1
    fi
  done
  echo "$code"
}

clean() {
  local image
  for image in disk*.img disk*.qcow2; do
    [[ " ${wanted[*]} " == *" $image "* ]] || rm --verbose -- "$image"
  done
}

make() {
  # Data at both ends of a large hole. An installer takes its time.
  truncate --size=64M "$1.tmp"
  head --bytes=1M /dev/urandom | dd of="$1.tmp" conv=notrunc status=none
  sleep 2
  head --bytes=1M /dev/urandom | dd of="$1.tmp" conv=notrunc bs=1M seek=63 iflag=fullblock status=none
  mv -- "$1.tmp" "$1"
  echo "made $1"
}

[[ "${2:-}" != --clean ]] || clean
case $1 in
  check) exit "$(state)" ;;
  all)
    for image in "${wanted[@]}"; do
      if [[ ! -f "$image" || -n "$(find "$image" -mtime "+$days")" ]]; then
        make "$image"
      fi
    done
    ;;
  *)
    echo "sample.sh: '$1' is neither check nor all" >&2
    exit 64
    ;;
esac
