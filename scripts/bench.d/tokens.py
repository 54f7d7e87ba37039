"""Signed tokens: how fast both sign, on the same path."""

import figures
import load
from servers import POLICY

CONNECTIONS = 64
SIGNING = POLICY + 'path "identity/oidc/token/*" { capabilities = ["read"] }\n'
ALGORITHMS = ("EdDSA", "ES256")


def jwt(rig, out):
    """`GET identity/oidc/token/ROLE` over TLS, every request audited, by a token with one policy."""
    pair = rig.pair()
    files = {server.name: prepare(server) for server in pair}
    for algorithm in ALGORITHMS:
        path = f"identity/oidc/token/bench-{algorithm.lower()}"

        def measure(server, _):
            seconds = 2 if rig.quick else 10
            return load.run(server, "tokens", seconds, CONNECTIONS, path, files[server.name])

        for server in pair:
            load.run(server, "tokens", 1, CONNECTIONS, path, files[server.name])
        samples = load.rounds(pair, 1 if rig.quick else 3, measure)
        figures.under_load(out, f"{algorithm} tokens signed, 64 connections", samples, 8, 8)


def prepare(server):
    """The same keys, roles and policy in both; answers the file of the token that asks."""
    client = server.client(server.root_token)
    client.send("PUT", "sys/policies/acl/signing", {"policy": SIGNING})
    for algorithm in ALGORITHMS:
        name = f"bench-{algorithm.lower()}"
        key = {"algorithm": algorithm, "allowed_client_ids": ["*"], "rotation_period": "24h"}
        client.send("PUT", f"identity/oidc/key/{name}", key)
        client.send("PUT", f"identity/oidc/role/{name}", {"key": name, "ttl": "1h"})
    file = server.folder / "signing-token"
    file.touch(mode=0o600)
    file.write_text(token(server, client))
    return file


def token(server, client):
    if server.name == "MSSM":
        body = {"policies": ["signing"], "ttl": "2h"}
        return client.send("POST", "auth/token/create", body)["auth"]["client_token"]
    # OpenBao signs only for whoever has an entity, which a login makes.
    client.send("POST", "sys/auth/userpass", {"type": "userpass"})
    user = {"password": "bench-only", "token_policies": ["signing"]}
    client.send("POST", "auth/userpass/users/bench", user)
    login = client.send("POST", "auth/userpass/login/bench", {"password": "bench-only"})
    return login["auth"]["client_token"]
