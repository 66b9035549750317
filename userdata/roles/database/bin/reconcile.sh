#!/bin/bash
# On the host, after every start: the role exists with today's password, and owns its database, which lets it in.
# The password goes through standard input only.
#   usage: reconcile.sh USER DATABASE
set -Eeuo pipefail

user=$1 database=$2
password=$(</run/openqa-on-aws/secrets/database)

podman exec --interactive openqa-database psql --no-psqlrc --quiet --set=ON_ERROR_STOP=1 \
  --host=/run/postgresql --username=postgres <<SQL
-- Should one of these fail or take long, the server's log must not quote it.
set log_min_error_statement = panic;
set log_min_duration_statement = -1;
\\set password '$password'
\\set user '$user'
\\set database '$database'
select format('create role %I', :'user')
  where not exists (select from pg_roles where rolname = :'user') \\gexec
alter role :"user" with login nosuperuser nocreatedb nocreaterole password :'password';
select format('create database %I owner %I', :'database', :'user')
  where not exists (select from pg_database where datname = :'database') \\gexec
alter database :"database" owner to :"user";
-- A move that was killed left it shut; one that went well says so: userdata/host/backup/move.py.
select format('alter database %I connection limit -1', datname) from pg_database
  where datname = :'database' and coalesce(shobj_description(oid, 'pg_database'), '') not like 'moved to %' \\gexec
SQL
