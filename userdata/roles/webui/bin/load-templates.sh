#!/bin/bash
# In the container: openqa-load-templates. Debian's (4.6) sends job templates as JSON, which its own API does not
# take; later ones send a form.
#   usage: load-templates.sh [--host=URL] [--clean|--update] FILE|-
set -Eeuo pipefail

script=/usr/share/openqa/script/openqa-load-templates
# shellcheck disable=SC2016  # Perl's variables
program=$(sed 's/post(\$table_url, json =>/post($table_url, ($table eq "JobTemplates" ? "form" : "json") =>/' "$script")
exec perl -I/usr/share/openqa/lib -e "$program" -- "$@"
