#!/usr/bin/env bash
# Lints every shell script of the project and checks its format.
set -Eeuo pipefail
cd "$(dirname "$0")/.."

# Not all of them have a name that ends in .sh.
mapfile -t scripts < <(
  {
    git ls-files --cached --others --exclude-standard -- '*.sh'
    git grep --untracked --files-with-matches --extended-regexp '^#!/.*sh$'
  } | sort --unique
)
shellcheck "${scripts[@]}"
shfmt --diff --indent 2 --case-indent "${scripts[@]}"
echo "${#scripts[@]} shell scripts are clean"
