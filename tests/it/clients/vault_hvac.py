"""What hvac, Vault's Python client, is asked to do. Ends with an exception at the first surprise.

The server is open and new; MSSM_ADDR, MSSM_TOKEN, MSSM_CACERT and MSSM_SHARES say where and how,
DB_URL, DB_USER and DB_PASSWORD name a PostgreSQL.
"""

import os

import hvac
from hvac import exceptions

ROLE = "CREATE ROLE \"{{name}}\" LOGIN PASSWORD '{{password}}' VALID UNTIL '{{expiration}}'"


def connect(token):
    return hvac.Client(url=os.environ["MSSM_ADDR"], token=token, verify=os.environ["MSSM_CACERT"])


def refused(error, words, act, *arguments, **named):
    """Asserts that a call is refused with this exception and these words."""
    try:
        act(*arguments, **named)
    except error as refusal:
        assert words in str(refusal), (words, str(refusal))
    else:
        raise AssertionError(f"{act.__name__} was not refused: {words}")


def done(answer):
    """Asserts the empty answer by which hvac knows success."""
    assert answer.status_code == 204, (answer.status_code, answer.text)


def server_states(client):
    assert client.is_authenticated()
    assert client.sys.is_initialized() and not client.sys.is_sealed()
    assert client.sys.read_health_status(method="HEAD").status_code == 200
    health = client.sys.read_health_status(method="GET")
    assert health["initialized"] and not health["standby"] and not health["performance_standby"]
    assert client.sys.read_leader_status()["ha_enabled"] is False
    refused(exceptions.InvalidRequest, "already initialized", client.sys.initialize)
    term = client.sys.get_encryption_key_status()["data"]["term"]
    done(client.sys.rotate_encryption_key())
    assert client.sys.get_encryption_key_status()["data"]["term"] == term + 1
    assert "file/" in client.sys.list_enabled_audit_devices()["data"]
    second = {"file_path": os.path.join(os.environ["HOME"], "hvac.log")}
    done(client.sys.enable_audit_device("file", description="d", options=second, path="hvac"))
    assert client.sys.list_enabled_audit_devices()["data"]["hvac/"]["options"] == second
    hashed = [client.sys.calculate_hash(path, "x")["data"]["hash"] for path in ("file", "hvac")]
    assert hashed[0] != hashed[1] and hashed[1].startswith("hmac-sha256:")
    done(client.sys.disable_audit_device("hvac"))
    assert "hvac/" not in client.sys.list_enabled_audit_devices()["data"]
    assert "token/" in client.sys.list_auth_methods()["data"]
    assert not connect("no-such-token").is_authenticated()
    refused(exceptions.Forbidden, "permission denied", connect("no-such-token").lookup_token)


def mounts(client):
    sys = client.sys
    done(sys.enable_secrets_engine("kv", path="one", description="d", options={"version": "1"}))
    done(sys.enable_secrets_engine("kv-v2", path="two", config={"default_lease_ttl": "1h"}))
    done(sys.enable_secrets_engine("database"))
    refused(exceptions.InvalidRequest, "path is already in use at one/",
            sys.enable_secrets_engine, "kv", path="one")
    done(sys.tune_mount_configuration("one", default_lease_ttl="30m", description="tuned"))
    assert sys.read_mount_configuration("one")["data"]["default_lease_ttl"] == 1800
    listed = sys.list_mounted_secrets_engines()
    assert listed["one/"] == listed["data"]["one/"]
    assert listed["data"]["one/"]["description"] == "tuned"
    assert listed["data"]["two/"]["options"] == {"version": "2"}


def unversioned(client):
    kv = client.secrets.kv.v1
    done(kv.create_or_update_secret("a/b", {"x": 12345678901234567890}, mount_point="one"))
    done(kv.create_or_update_secret("a/b", {"x": 2, "ttl": "10m"}, mount_point="one", method="PUT"))
    answer = kv.read_secret("a/b", mount_point="one")
    assert answer["data"] == {"x": 2, "ttl": "10m"} and answer["lease_duration"] == 600
    assert kv.list_secrets("", mount_point="one")["data"]["keys"] == ["a/"]
    # hvac writes ?list=True here.
    assert client.list("one/a")["data"]["keys"] == ["b"]
    done(kv.delete_secret("a/b", mount_point="one"))
    refused(exceptions.InvalidPath, "", kv.read_secret, "a/b", mount_point="one")
    assert client.read("one/a/b") is None and client.list("one/a") is None


def versioned(client):
    kv, at = client.secrets.kv.v2, {"mount_point": "two"}
    done(kv.configure(max_versions=5, **at))
    assert kv.read_configuration(**at)["data"]["max_versions"] == 5
    assert kv.create_or_update_secret("app", {"a": 1}, cas=0, **at)["data"]["version"] == 1
    refused(exceptions.InvalidRequest, "check-and-set parameter did not match",
            kv.create_or_update_secret, "app", {"a": 2}, cas=0, **at)
    assert kv.patch("app", {"b": "two"}, **at)["data"]["version"] == 2
    refused(exceptions.InvalidPath, "", kv.patch, "nowhere", {"b": 1}, **at)

    def read(**how):
        answer = kv.read_secret_version("app", raise_on_deleted_version=True, **how, **at)
        return answer["data"]["data"]

    assert read() == {"a": 1, "b": "two"} and read(version=1) == {"a": 1}
    refused(exceptions.InvalidPath, "", read, version=9)
    done(kv.update_metadata("app", max_versions=3, custom_metadata={"x": "y"}, **at))
    metadata = kv.read_secret_metadata("app", **at)["data"]
    assert metadata["current_version"] == 2 and metadata["custom_metadata"] == {"x": "y"}
    assert kv.list_secrets("", **at)["data"]["keys"] == ["app"]

    done(kv.delete_latest_version_of_secret("app", **at))
    refused(exceptions.InvalidPath, "deletion_time", read)
    gone = kv.read_secret_version("app", raise_on_deleted_version=False, **at)["data"]
    assert gone["data"] is None and gone["metadata"]["deletion_time"]
    done(kv.undelete_secret_versions("app", [2], **at))
    assert read() == {"a": 1, "b": "two"}
    done(kv.delete_secret_versions("app", [1], **at))
    done(kv.destroy_secret_versions("app", [1], **at))
    refused(exceptions.InvalidPath, "\"destroyed\":true", read, version=1)
    done(kv.delete_metadata_and_all_versions("app", **at))
    refused(exceptions.InvalidPath, "", kv.read_secret_metadata, "app", **at)


def cubbyhole(client):
    done(client.write_data("cubbyhole/mine", data={"a": 1}))
    assert client.read("cubbyhole/mine")["data"] == {"a": 1}
    assert client.list("cubbyhole")["data"]["keys"] == ["mine"]
    client.delete("cubbyhole/mine")
    assert client.read("cubbyhole/mine") is None


def policies(client):
    sys = client.sys
    text = 'path "two/*" { capabilities = ["read", "list"] }'
    done(sys.create_or_update_policy("reader", text))
    done(sys.create_or_update_policy("object", {"path": {"one/*": {"capabilities": ["list"]}}}))
    assert {"object", "reader", "default", "root"} <= set(sys.list_policies()["data"]["policies"])
    assert sys.read_policy("reader")["data"]["rules"] == text
    assert sys.read_acl_policy("reader")["data"]["policy"] == text
    assert "reader" in sys.list_acl_policies()["data"]["keys"]
    done(sys.delete_policy("object"))
    refused(exceptions.InvalidPath, "", sys.read_policy, "object")
    assert sys.get_capabilities(["two/data/x"])["data"]["two/data/x"] == ["root"]


def tokens(client):
    token = client.auth.token
    made = token.create(policies=["reader"], ttl="1h", meta={"a": "b"}, display_name="bob")["auth"]
    assert made["policies"] == ["default", "reader"] and made["lease_duration"] == 3600
    assert made["renewable"] and not made["orphan"] and made["token_type"] == "service"
    secret, accessor = made["client_token"], made["accessor"]
    seen = token.lookup(secret)["data"]
    assert seen["meta"] == {"a": "b"} and 3500 < seen["ttl"] <= 3600 and seen["id"] == secret
    assert token.lookup_accessor(accessor)["data"]["id"] == ""
    assert token.renew(secret, increment="2h")["auth"]["lease_duration"] == 7200
    assert token.renew_accessor(accessor)["auth"]["client_token"] == ""
    assert accessor in token.list_accessors()["data"]["keys"]
    assert token.create_orphan(ttl="1h")["auth"]["orphan"]
    assert token.lookup(token.create(period="10m")["auth"]["client_token"])["data"]["period"] == 600
    caps = client.sys.get_capabilities(["two/data/x", "one/x"], token=secret)["data"]
    assert caps["two/data/x"] == ["list", "read"] and caps["one/x"] == ["deny"]
    refused(exceptions.Forbidden, "bad token", token.lookup, "no-such-token")
    refused(exceptions.InvalidRequest, "invalid accessor", token.lookup_accessor, "no-such-accessor")

    mine = connect(secret)
    assert mine.lookup_token()["data"]["display_name"] == "token-bob"
    assert mine.auth.token.renew_self(increment=60)["auth"]["lease_duration"] == 60
    write = mine.secrets.kv.v2.create_or_update_secret
    refused(exceptions.Forbidden, "permission denied", write, "x", {"a": 1}, mount_point="two")
    refused(exceptions.Forbidden, "permission denied", mine.read, "nowhere/x")
    done(token.revoke_accessor(accessor))
    assert not mine.is_authenticated()
    for end in (token.revoke, token.revoke_and_orphan_children):
        other = token.create(ttl="1h")["auth"]["client_token"]
        done(end(other))
        assert not connect(other).is_authenticated()


def database(client, mount):
    db, at = client.secrets.database, {"mount_point": mount}
    login = {"username": os.environ["DB_USER"], "password": os.environ["DB_PASSWORD"]}
    assert db.configure("main", plugin_name="postgresql-database-plugin", allowed_roles=["app"],
                        connection_url=os.environ["DB_URL"], **login, **at).status_code == 204
    config = db.read_connection("main", **at)["data"]
    assert config["allowed_roles"] == ["app"] and "password" not in config["connection_details"]
    assert db.list_connections(**at)["data"]["keys"] == ["main"]
    done(db.reset_connection("main", **at))
    done(db.create_role("app", db_name="main", creation_statements=[ROLE], default_ttl="1h",
                        max_ttl="2h", **at))
    role = db.read_role("app", **at)["data"]
    assert role["creation_statements"] == [ROLE] and role["default_ttl"] == 3600
    assert db.list_roles(**at)["data"]["keys"] == ["app"]

    made = db.generate_credentials("app", **at)
    lease = made["lease_id"]
    assert lease.startswith(f"{mount}/creds/app/") and made["renewable"]
    assert made["lease_duration"] == 3600 and made["data"]["username"].startswith("v-")
    assert client.sys.read_lease(lease)["data"]["id"] == lease
    assert client.sys.list_leases(f"{mount}/creds/app")["data"]["keys"] == [lease.split("/")[-1]]
    assert 595 < client.sys.renew_lease(lease, increment=600)["lease_duration"] <= 600
    done(client.sys.revoke_lease(lease))
    refused(exceptions.InvalidRequest, "invalid lease", client.sys.read_lease, lease)
    db.generate_credentials("app", **at)
    done(client.sys.revoke_prefix(f"{mount}/creds/app"))
    done(client.sys.revoke_force(f"{mount}/creds/app"))
    refused(exceptions.InvalidPath, "", client.sys.list_leases, f"{mount}/creds/app")
    refused(exceptions.InvalidRequest, "unknown role", db.generate_credentials, "nobody", **at)
    done(db.delete_role("app", **at))
    done(db.delete_connection("main", **at))
    refused(exceptions.InvalidPath, "", db.read_connection, "main", **at)


def seal(client):
    for path in ("one", "two", "database"):
        done(client.sys.disable_secrets_engine(path))
    done(client.sys.seal())
    assert client.sys.is_sealed()
    refused(exceptions.VaultDown, "sealed", client.sys.list_mounted_secrets_engines)
    status = client.sys.submit_unseal_keys(os.environ["MSSM_SHARES"].split(","))
    assert status["sealed"] is False
    assert client.is_authenticated()


root = connect(os.environ["MSSM_TOKEN"])
server_states(root)
mounts(root)
unversioned(root)
versioned(root)
cubbyhole(root)
policies(root)
tokens(root)
for place in ("db", "database"):
    database(root, place)
seal(root)
print("all done")
