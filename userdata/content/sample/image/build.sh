#!/bin/bash
# Makes the sample's CD: Debian's kernel and a shell, about 20 MB. Usage: build.sh OUTPUT
# Needs apt, busybox-static, cpio, isolinux, kmod, syslinux-common, xorriso, xz-utils and x86_64.
set -Eeuo pipefail

output=$1
here=$(dirname "$(readlink --canonicalize "$0")")
work=$(mktemp --directory)
trap 'rm --recursive --force "$work"' EXIT
cd "$work"

if [[ $(uname --machine) != x86_64 ]]; then
  echo "the sample's CD boots a PC: build it on x86_64" >&2
  exit 1
fi

apt-get update --quiet --quiet
kernel=$(apt-cache depends linux-image-amd64 | sed --quiet 's/^ *Depends: //p')
apt-get download --quiet --quiet --option APT::Sandbox::User=root "$kernel"
dpkg-deb --extract "$kernel"_*.deb kernel
version=${kernel#linux-image-}
# kmod and Debian's merged /usr disagree about where modules are, hence both names.
[[ -d kernel/lib ]] || ln --symbolic usr/lib kernel/lib

# A network for tests that want one: both of QEMU's usual cards.
initrd=$work/initrd
mkdir --parents "$initrd"/{bin,dev,etc,proc,sys} "$initrd/lib/modules/$version" cd/isolinux
depmod --basedir "$work/kernel" "$version"
for module in e1000 virtio_pci virtio_net; do
  modprobe --dirname "$work/kernel" --set-version "$version" --show-depends "$module"
done | sed --quiet 's/^insmod \([^ ]*\).*/\1/p' | sort --unique | while read -r file; do
  target=$initrd/lib/modules/$version/$(basename "${file%.xz}")
  case $file in
    *.xz) xz --decompress --stdout "$file" >"$target" ;;
    *) cp "$file" "$target" ;;
  esac
done
cp "kernel/lib/modules/$version/modules.builtin" "kernel/lib/modules/$version/modules.order" "$initrd/lib/modules/$version/"
depmod --basedir "$initrd" "$version"

cp /bin/busybox "$initrd/bin/busybox"
cp "$here/init" "$initrd/init"
cp "$here/banner" "$initrd/bin/banner"
chmod 0755 "$initrd/init" "$initrd/bin/banner"
(cd "$initrd" && find . -print0 | cpio --null --create --format=newc --quiet | gzip -9) >cd/initrd

cp "kernel/boot/vmlinuz-$version" cd/kernel
cp /usr/lib/ISOLINUX/isolinux.bin /usr/lib/syslinux/modules/bios/ldlinux.c32 "$here/isolinux.cfg" cd/isolinux/
xorriso -as mkisofs -quiet -volid SAMPLE -rational-rock -output "$output" \
  -eltorito-boot isolinux/isolinux.bin -eltorito-catalog isolinux/boot.cat \
  -no-emul-boot -boot-load-size 4 -boot-info-table cd
