#!/usr/bin/env bash
# Lints every shell script of the project and checks its format.
set -Eeuo pipefail
cd "$(dirname "$0")/.."

mapfile -t scripts < <(git ls-files --cached --others --exclude-standard -- '*.sh' .ci/run)
shellcheck "${scripts[@]}"
shfmt --diff --indent 2 --case-indent "${scripts[@]}"
echo "${#scripts[@]} shell scripts are clean"
