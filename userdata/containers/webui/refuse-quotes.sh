#!/bin/sh
# openQA has a shell unpack what a build names by …_DECOMPRESS_URL (lib/OpenQA/Downloader.pm): a quote in an asset's
# name would end the command's own, and whoever may post builds could have openQA run what follows.
#   usage: refuse-quotes.sh [FILE]
set -eu

file=${1:-/usr/share/openqa/lib/OpenQA/Downloader.pm}
# shellcheck disable=SC2016  # Perl's variables
refusal='return "there is a quote in its name" if "$to_extract$target" =~ /'\''/;'
if grep --quiet "bsdcat '" "$file"; then
  sed -i "s|^sub _extract_asset.*{\$|&\n    $refusal|" "$file"
  grep --quiet --fixed-strings "$refusal" "$file"
fi
