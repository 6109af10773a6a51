#!/bin/sh
# Makes what the stack keeps secret, once: a password for every role, and a certificate for every server.
#
#   compose/secrets.sh [FOLDER]      FOLDER is compose/secrets unless given
#
# The folder is the owner's alone; the files in it are readable, because each container gets just its own of them and
# runs as a user of its own. What is there already stays.
set -eu
umask 077
folder=${1:-$(dirname "$0")/secrets}
mkdir -p "$folder"
cd "$folder"

for role in owner committer mirror reader; do
    [ -f "postgres-$role" ] || openssl rand -hex 24 >"postgres-$role"
    [ -f "store-$role" ] ||
        printf 'postgresql://%s:%s@postgres:5432/lake?schema=lake\n' "$role" "$(cat "postgres-$role")" >"store-$role"
done
for user in root producer mirror reader; do
    [ -f "s3-$user" ] || openssl rand -hex 24 >"s3-$user"
done
for user in committer mirror producer; do
    [ -f "kafka-$user" ] || openssl rand -hex 24 >"kafka-$user"
    [ -f "log-$user" ] || cat >"log-$user" <<JSON
{"security.protocol": "SASL_SSL", "sasl.mechanism": "SCRAM-SHA-512", "sasl.username": "$user",
 "sasl.password": "$(cat "kafka-$user")", "ssl.ca.location": "/run/secrets/ca.pem"}
JSON
done
# The owner is known by its certificate, at a listener of its own: it makes the users that have passwords.
[ -f log-owner ] || cat >log-owner <<'JSON'
{"security.protocol": "SSL", "bootstrap.servers": "kafka:9094", "ssl.ca.location": "/run/secrets/ca.pem",
 "ssl.certificate.location": "/run/secrets/owner.pem", "ssl.key.location": "/run/secrets/owner.pem"}
JSON

curve='ec -pkeyopt ec_paramgen_curve:prime256v1'
[ -f ca.pem ] || openssl req -x509 -newkey $curve -nodes -days 825 -subj /CN=deltalakedb-ca \
    -addext basicConstraints=critical,CA:TRUE -addext keyUsage=critical,keyCertSign -keyout ca.key -out ca.pem 2>/dev/null
for name in postgres kafka s3 owner; do
    [ -f "$name.pem" ] && continue
    openssl req -newkey $curve -nodes -subj "/CN=$name" -keyout "$name.key" -out "$name.csr" 2>/dev/null
    printf 'subjectAltName=DNS:%s,DNS:localhost,IP:127.0.0.1\nextendedKeyUsage=serverAuth,clientAuth\n' "$name" >"$name.ext"
    openssl x509 -req -in "$name.csr" -CA ca.pem -CAkey ca.key -CAcreateserial -days 825 -extfile "$name.ext" 2>/dev/null |
        cat "$name.key" - >"$name.pem"
    rm "$name.csr" "$name.ext" "$name.key"
done
chmod 700 .
find . -type f ! -name ca.key -exec chmod 644 {} +
