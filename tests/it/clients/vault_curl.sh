#!/usr/bin/env bash
# What Vault's documentation has people type: curl in all its spellings. Ends at the first surprise.
#
# The server is open and new; MSSM_ADDR, MSSM_TOKEN and MSSM_CACERT say where and how.
set -euo pipefail

# wants STATUS WORDS PATH CURL-ARGUMENTS...: the answer must have this status and these words.
wants() {
    local status=$1 words=$2 path=$3 said
    shift 3
    said=$(curl --silent --show-error --noproxy '*' --cacert "$MSSM_CACERT" --write-out ' %{http_code}' \
        "$@" "$MSSM_ADDR/v1/$path")
    if [[ $said != *" $status" || $said != *"$words"* ]]; then
        printf '%s %s: not %s with "%s" but: %s\n' "$path" "$*" "$status" "$words" "$said" >&2
        exit 1
    fi
}

token=(--header "X-Vault-Token: $MSSM_TOKEN")
bearer=(--header "Authorization: Bearer $MSSM_TOKEN")
json=(--header 'Content-Type: application/json')

wants 200 '"policies":["root"]' auth/token/lookup-self "${token[@]}"
wants 200 '"policies":["root"]' auth/token/lookup-self "${bearer[@]}"
wants 200 '"policies":["root"]' auth/token/lookup-self "${bearer[@]}" --header 'X-Vault-Request: true'
wants 403 'permission denied' auth/token/lookup-self
wants 403 'permission denied' auth/token/lookup-self --header 'X-Vault-Token: no-such-token'

# POST and PUT are one; so are a body said to be JSON, said to be nothing, and curl's own "form".
wants 204 '' sys/mounts/one "${token[@]}" --request POST --data '{"type":"kv"}'
wants 204 '' one/a/b "${token[@]}" --request PUT "${json[@]}" --data '{"x":"y"}'
wants 204 '' one/a/c "${token[@]}" --header 'Content-Type:' --data '{"x":"y"}'
wants 204 '' one/form "${token[@]}" --data x=y --data 'z=a%26b+c'
wants 200 '"data":{"x":"y","z":"a&b c"}' one/form "${token[@]}"
wants 204 '' sys/rotate "${token[@]}" --request PUT
wants 204 '' sys/rotate "${token[@]}" --request POST
wants 400 'failed to decode JSON input' one/a/d "${token[@]}" --data '{"x":'
wants 200 '"lease_duration":600' auth/token/create "${token[@]}" --data '{"ttl":"10m"}'
wants 200 '"lease_duration":600' auth/token/create/ "${token[@]}" --data '{"ttl":600}'
wants 200 '"policies":["default","p"]' auth/token/create "${token[@]}" --data policies=p --data ttl=1m

# A list is LIST or GET, with and without a slash.
for path in one one/ 'one?list=true' 'one/?list=1' 'one?list=True'; do
    verb=(--request LIST)
    if [[ $path == *list=* ]]; then verb=(); fi
    wants 200 '"keys":["a/","form"]' "$path" "${token[@]}" "${verb[@]}"
done
wants 200 '"keys":["b","c"]' one/a "${token[@]}" --request LIST
wants 404 '{"errors":[]}' one/nowhere "${token[@]}" --request LIST

wants 200 '"version":1' secret/data/app "${token[@]}" --data '{"data":{"a":1}}'
wants 200 '"version":2' secret/data/app "${token[@]}" --request PATCH \
    --header 'Content-Type: application/merge-patch+json' --data '{"data":{"b":2}}'
wants 415 'merge-patch' secret/data/app "${token[@]}" --request PATCH "${json[@]}" --data '{"data":{}}'
wants 200 '"data":{"a":1}' 'secret/data/app?version=1' "${token[@]}"
wants 200 '"keys":["app"]' secret/metadata/ "${token[@]}" --request LIST
wants 204 '' secret/data/app "${token[@]}" --request DELETE
wants 404 '"data":null' secret/data/app "${token[@]}"
wants 204 '' secret/metadata/app "${token[@]}" --request DELETE

wants 200 '"initialized":true' sys/health
wants 299 '' 'sys/health?activecode=299' --head
wants 200 '"sealed":false' sys/seal-status
wants 405 'unsupported operation' sys/mounts "${token[@]}" --request DELETE
wants 404 'no handler for route' nowhere/x "${token[@]}"
echo 'all done'
