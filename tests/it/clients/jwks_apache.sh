# Apache's mod_auth_openidc in front of a page, as a service that knows the JWKS's address and nothing else.
# Ends with an error at the first surprise.
#
# MSSM_ADDR and MSSM_TOKEN say where the server is, MSSM_CACERT names its certificate. The server is sealed
# at the end: by then Apache has its own copy of the keys.
set -euo pipefail
export PATH=$PATH:/usr/sbin

FOLDER=$(mktemp -d /tmp/mssm-apache.XXXXXXXX)
APACHE=
MODULES=/usr/lib/apache2/modules

api() { curl -sSf --cacert "$MSSM_CACERT" -H "X-Vault-Token: $MSSM_TOKEN" -X "$1" ${3:+-d "$3"} "$MSSM_ADDR/v1/$2"; }
member() { sed -E "s/.*\"$1\":\"([^\"]*)\".*/\1/"; }
fail() {
    echo "$*" >&2
    tail -n 5 "$FOLDER/error.log" >&2 || true
    exit 1
}

configuration() {
    cat <<CONF
ServerRoot $FOLDER
ServerName localhost
Listen 127.0.0.1:$1
DefaultRuntimeDir $FOLDER
PidFile $FOLDER/pid
ErrorLog $FOLDER/error.log
DocumentRoot $FOLDER/pages
User nobody
Group nogroup
LoadModule mpm_event_module $MODULES/mod_mpm_event.so
LoadModule authn_core_module $MODULES/mod_authn_core.so
LoadModule authz_core_module $MODULES/mod_authz_core.so
LoadModule authz_user_module $MODULES/mod_authz_user.so
LoadModule auth_openidc_module $MODULES/mod_auth_openidc.so
StartServers 1
ServerLimit 1
ThreadsPerChild 8
MaxRequestWorkers 8
OIDCCryptoPassphrase unused
OIDCCABundlePath $FOLDER/ca.crt
OIDCOAuthVerifyJwksUri $MSSM_ADDR/v1/jwt/.well-known/jwks.json
OIDCOAuthRemoteUserClaim sub
<Location />
  AuthType oauth20
  Require claim aud:shop
</Location>
CONF
}

is_open() { (exec 3<>"/dev/tcp/127.0.0.1/$PORT") 2>/dev/null; }

# Another program may take the port in between, so more than one is tried.
start_apache() {
    for _ in 1 2 3 4 5; do
        PORT=$((16000 + RANDOM % 16000))
        if is_open; then continue; fi
        configuration "$PORT" >"$FOLDER/httpd.conf"
        apache2 -f "$FOLDER/httpd.conf" -DFOREGROUND 2>"$FOLDER/start.log" &
        APACHE=$!
        while kill -0 "$APACHE" 2>/dev/null; do
            if is_open; then return; fi
            sleep 0.05
        done
    done
    cat "$FOLDER/start.log" >&2
    exit 1
}

stop_apache() {
    kill "$APACHE" 2>/dev/null || true
    wait "$APACHE" || true
    rm -rf "$FOLDER"
}

# The status that Apache answers to who shows a token.
shown() { curl -s -o "$FOLDER/page" -w '%{http_code}' -H "Authorization: Bearer $1" "http://127.0.0.1:$PORT/page"; }
believes() { [ "$(shown "$1")" = 200 ] && grep -q 'behind it' "$FOLDER/page" || fail "not believed: $2"; }
refuses() { [ "$(shown "$1")" = 401 ] || fail "believed: $2"; }
answer() { api POST "jwt/sign/$1" '{}'; }
sign() { answer "$1" | member token; }

chmod 755 "$FOLDER"
mkdir "$FOLDER/pages"
echo 'behind it' >"$FOLDER/pages/page"
install -m 644 "$MSSM_CACERT" "$FOLDER/ca.crt"
api POST jwt/config '{"jwks_max_age": "1s"}'
for algorithm in ES256 RS256 PS256; do
    api POST "jwt/keys/$algorithm" "{\"algorithm\": \"$algorithm\"}"
    api POST "jwt/roles/$algorithm" "{\"key\": \"$algorithm\", \"audience\": \"shop\", \"subject\": \"me\"}"
done
api POST jwt/roles/others '{"key": "ES256", "audience": "office", "subject": "me"}'
trap stop_apache EXIT
start_apache

TOKEN=$(sign ES256)
believes "$TOKEN" "a token of ES256"
believes "$(sign RS256)" "a token of RS256"
believes "$(sign PS256)" "a token of PS256"
refuses "$(sign others)" "a token for somebody else"
refuses "${TOKEN%.*}.$(sign RS256 | cut -d. -f3)" "another token's signature"
refuses "$(printf '{"alg":"none"}' | base64 -w0 | tr -d '=').$(cut -d. -f2 <<<"$TOKEN")." "a token that nobody signed"

# Its copy is an hour old at most, and is taken anew at a key that is not in it.
for _ in 1 2 3; do
    before=$(answer ES256 | member kid)
    api POST jwt/keys/ES256/rotate '{}' >"$FOLDER/rotated"
    for _ in $(seq 200); do
        signed=$(answer ES256)
        if [ "$(member kid <<<"$signed")" != "$before" ]; then break; fi
        sleep 0.05
    done
    [ "$(member kid <<<"$signed")" != "$before" ] || fail "the key does not rotate"
    token=$(member token <<<"$signed")
    believes "$token" "a token of the next key"
    believes "$TOKEN" "a token of a previous key"
done

api POST sys/seal '{}'
believes "$token" "a token while the server is sealed"
echo "all done"
