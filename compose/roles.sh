#!/bin/sh
# The roles of the services and of clients, made once with the database; what they may do, `deltalakedb migrate` says.
set -eu
for role in committer mirror reader; do
    # psql reads the password itself: in its arguments every process of the machine could see it.
    psql -q -v ON_ERROR_STOP=1 -U "$POSTGRES_USER" -d "$POSTGRES_DB" -v role="$role" <<'SQL'
\set password `cat /run/secrets/postgres-:role`
CREATE ROLE :"role" LOGIN PASSWORD :'password';
SQL
done
psql -q -v ON_ERROR_STOP=1 -U "$POSTGRES_USER" -d "$POSTGRES_DB" <<'SQL'
ALTER ROLE reader SET default_transaction_read_only = on;
REVOKE ALL ON SCHEMA public FROM PUBLIC;
SQL
