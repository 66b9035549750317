#!/bin/bash
# Fedora's createhdds, at a commit, tag or branch of one's choice, with the arguments given, in this folder.
#   usage: GIT_ADDRESS=https://… GIT_REF=… createhdds.sh ARGUMENT…
set -Eeuo pipefail

checkout=/opt/createhdds
if [[ ! -e "$checkout/.fetched" ]]; then
  rm --recursive --force "$checkout"
  git init --quiet "$checkout"
  git -C "$checkout" fetch --quiet --depth=1 "$GIT_ADDRESS" "$GIT_REF"
  git -C "$checkout" checkout --quiet FETCH_HEAD
  touch "$checkout/.fetched"
fi
systemctl start libvirtd.service
# Images in the making go when it is interrupted; after a kill they are left.
rm --force -- *.tmp
export LIBGUESTFS_BACKEND=direct
exec "$checkout/createhdds.py" "$@"
