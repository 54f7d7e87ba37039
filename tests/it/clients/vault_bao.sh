#!/usr/bin/env bash
# What bao, the command line of Vault's other branch, is asked to do. Ends at the first surprise.
#
# The server is new and not initialised. The environment names it as bao wants (BAO_ADDR, BAO_CACERT);
# BAO is the program; DB_URL, DB_USER and DB_PASSWORD name a PostgreSQL.
set -euo pipefail

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

bao() { "$BAO" "$@"; }

# wants CODE WORDS COMMAND...: the command must end with this code and say these words.
wants() {
    local code=$1 words=$2 got=0 said
    shift 2
    said=$(bao "$@" 2>&1 </dev/null) || got=$?
    if [ "$got" != "$code" ] || [[ $said != *"$words"* ]]; then
        printf 'bao %s: exit %s, not %s, or not a word of "%s" in:\n%s\n' \
            "$*" "$got" "$code" "$words" "$said" >&2
        exit 1
    fi
}

# member FILE EXPRESSION: a part of a JSON file.
member() { python3 -c 'import json,sys; print(eval("d" + sys.argv[2], {"d": json.load(open(sys.argv[1]))}))' "$@"; }

seals() {
    wants 2 'Initialized        false' status
    wants 2 'not initialized' operator init -status
    bao operator init -key-shares=3 -key-threshold=2 -format=json >"$work/init"
    wants 2 'Vault is already initialized' operator init
    wants 0 'Vault is initialized' operator init -status
    wants 0 '1/2' operator unseal "$(member "$work/init" "['unseal_keys_hex'][2]")"
    wants 0 '0/2' operator unseal -reset
    wants 2 'valid hex or base64' operator unseal '#'
    wants 0 '1/2' operator unseal "$(member "$work/init" "['unseal_keys_b64'][0]")"
    wants 0 '1/2' operator unseal "$(member "$work/init" "['unseal_keys_b64'][0]")"
    wants 2 '1/2' status
    wants 2 'Vault is sealed' secrets list
    wants 0 'Sealed          false' operator unseal "$(member "$work/init" "['unseal_keys_b64'][1]")"
    wants 0 'Sealed          false' status
    BAO_TOKEN=$(member "$work/init" "['root_token']")
    export BAO_TOKEN
    wants 0 '["root"]' login -no-store "$BAO_TOKEN"
    wants 2 'permission denied' login -no-store no-such-token
    wants 0 '' operator key-status
    wants 0 'Success! Rotated key' operator rotate
}

mounts() {
    wants 0 'Success!' secrets enable -path=one -description=d -default-lease-ttl=1h kv
    wants 0 'Success!' secrets enable -path=two -version=2 kv
    wants 0 'Success!' secrets enable database
    wants 2 'path is already in use at one/' secrets enable -path=one kv
    wants 0 'Success!' secrets tune -max-lease-ttl=48h -description=tuned one
    wants 0 'tuned' secrets list -detailed
    wants 0 'token/' auth list
    wants 0 'Success!' audit enable -path=bao -description=second file "file_path=$HOME/bao.log"
    wants 2 'path is already in use at bao/' audit enable -path=bao file "file_path=$HOME/bao.log"
    wants 2 'log_raw' audit enable -path=raw file "file_path=$HOME/raw.log" log_raw=true
    wants 0 'bao/' audit list
    wants 0 'file/' audit list -detailed
    wants 0 'Success!' audit disable bao
    wants 0 'mount' path-help two
}

unversioned() {
    wants 0 'Success!' kv put one/a/b x=y n=7
    wants 0 '7' kv get -field=n one/a/b
    wants 0 'a/' kv list one
    wants 0 'b' kv list -mount=one a
    wants 0 'Success!' kv delete one/a/b
    wants 2 'No value found at one/a/b' kv get one/a/b
    wants 2 'No value found at one' kv list one
}

versioned() {
    wants 0 'version            1' kv put -cas=0 two/x a=b
    wants 2 'check-and-set parameter did not match' kv put -cas=0 two/x a=c
    wants 0 'version            2' kv patch two/x c=d
    wants 0 'version            3' kv patch -method=rw two/x e=f
    wants 0 'version            4' kv patch -remove-data=e two/x
    wants 0 'version            5' kv rollback -version=1 two/x
    wants 0 'b' kv get -mount=two -field=a x
    wants 0 'd' kv get -version=2 -field=c two/x
    wants 0 'Success!' kv delete two/x
    wants 0 'deletion_time' kv get two/x
    wants 0 'Success!' kv undelete -versions=5 two/x
    wants 0 'Success!' kv delete -versions=1,2 two/x
    wants 0 'Success!' kv destroy -versions=1 two/x
    wants 0 'destroyed          true' kv get -version=1 two/x
    wants 0 'Success!' kv metadata put -mount=two -max-versions=4 -cas-required \
        -delete-version-after=1h -custom-metadata=k=v x
    wants 0 'Success!' kv metadata patch -mount=two -custom-metadata=l=w x
    wants 0 'Success!' kv metadata patch -mount=two -remove-custom-metadata=k x
    wants 0 'map[l:w]' kv metadata get -mount=two x
    wants 0 'delete_version_after    1h0m0s' kv metadata get -mount=two x
    wants 2 'check-and-set parameter required' kv put two/x a=b
    wants 0 'x' kv list two
    wants 0 'Success!' kv metadata delete two/x
    wants 2 'No value found' kv metadata get two/x
    printf '{"n":12345678901234567890,"l":[1,{"a":null}]}' >"$work/in"
    wants 0 '' kv put two/j "@$work/in"
    wants 0 '12345678901234567890' kv get -format=json two/j
}

policies_and_tokens() {
    printf 'path "two/*" { capabilities = ["read", "list"] }\n' >"$work/reader.hcl"
    wants 0 'Success!' policy write reader "$work/reader.hcl"
    wants 0 'capabilities = ["read", "list"]' policy read reader
    wants 0 'reader' policy list
    wants 2 'No policy named: nobody' policy read nobody
    wants 2 'cannot delete' policy delete root

    bao token create -policy=reader -ttl=1h -metadata=a=b -format=json >"$work/token"
    local token accessor root=$BAO_TOKEN
    token=$(member "$work/token" "['auth']['client_token']")
    accessor=$(member "$work/token" "['auth']['accessor']")
    wants 0 'map[a:b]' token lookup "$token"
    wants 0 'reader' token lookup -accessor "$accessor"
    wants 0 '2h' token renew -increment=2h "$token"
    wants 0 '' token renew -accessor "$accessor"
    wants 0 'list, read' token capabilities "$token" two/data/x
    wants 0 'deny' token capabilities "$token" one/x
    wants 0 'root' token capabilities two/data/x
    wants 0 '10m' token create -orphan -period=10m -use-limit=3 -policy=reader
    export BAO_TOKEN=$token
    wants 0 '12345678901234567890' kv get two/j
    wants 2 'permission denied' kv put two/j a=b
    wants 2 'preflight capability check returned 403' kv get one/x
    wants 2 'permission denied' secrets list
    wants 0 'token_duration' token renew
    export BAO_TOKEN=$root
    wants 0 'Success!' token revoke -accessor "$accessor"
    wants 2 'bad token' token lookup "$token"
    wants 0 'Success!' token revoke "$(bao token create -ttl=1h -field=token)"
    wants 0 'Keys' list auth/token/accessors
}

database() {
    local mount=$1 lease
    wants 0 'Success!' write "$mount/config/main" plugin_name=postgresql-database-plugin \
        allowed_roles=app connection_url="$DB_URL" username="$DB_USER" password="$DB_PASSWORD"
    wants 0 'postgresql-database-plugin' read "$mount/config/main"
    wants 0 'main' list "$mount/config"
    wants 0 'Success!' write "$mount/roles/app" db_name=main default_ttl=1h max_ttl=2h \
        creation_statements="CREATE ROLE \"{{name}}\" LOGIN PASSWORD '{{password}}' VALID UNTIL '{{expiration}}'"
    wants 0 'VALID UNTIL' read "$mount/roles/app"
    wants 0 'app' list "$mount/roles"
    wants 2 'unknown role' read "$mount/creds/nobody"
    wants 0 'v-root-app-' read "$mount/creds/app"
    lease=$(bao read -field=lease_id "$mount/creds/app")
    wants 0 "$lease" lease lookup "$lease"
    wants 0 '10m' lease renew -increment=600 "$lease"
    wants 0 "${lease##*/}" list "sys/leases/lookup/$mount/creds/app"
    wants 0 'All revocation operations queued successfully!' lease revoke "$lease"
    lease=$(bao read -field=lease_id "$mount/creds/app")
    wants 0 'Success!' lease revoke -sync "$lease"
    wants 2 'invalid lease' lease lookup "$lease"
    wants 0 'Success!' lease revoke -prefix -sync "$mount/creds/app"
    wants 0 'Success!' lease revoke -force -prefix "$mount/creds/app"
    wants 2 'No value found' list "sys/leases/lookup/$mount/creds/app"
    wants 0 'Success!' write -f "$mount/reset/main"
    wants 0 'Success!' delete "$mount/roles/app"
    wants 0 'Success!' delete "$mount/config/main"
}

seals
mounts
unversioned
versioned
policies_and_tokens
database db
database database
wants 0 'Success!' write cubbyhole/x a=b
wants 0 'b' read -field=a cubbyhole/x
wants 0 'Success!' secrets disable database
wants 0 'Success! Vault is sealed.' operator seal
wants 2 'Sealed             true' status
echo 'all done'
