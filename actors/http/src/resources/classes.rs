//! What a request waits with for its turn, and what has a rate of its own.

use actix_web::http::Method;
use mssm_messages::engine::EngineKind;
use mssm_messages::mounts::ReadTable;

use crate::call::{Call, Verb};
use crate::door::{NEAR, Worker, ask};
use crate::rates::Vital;
use crate::turns::Class;

/// What has a rate of its own, of a request whose path is not parsed yet.
///
/// Not `sys/init`: before it there is no access that could end, and nobody to wait.
pub(crate) fn vital(method: &Method, path: &str) -> Option<Vital> {
    if !matches!(*method, Method::PUT | Method::POST) {
        return None;
    }
    match path.strip_prefix("/v1/")? {
        "sys/unseal" => Some(Vital::Unseal),
        "sys/seal" => Some(Vital::Access),
        path => ends_or_prolongs(path).then_some(Vital::Access),
    }
}

/// True for the paths that revoke and renew.
fn ends_or_prolongs(path: &str) -> bool {
    // Of a signed token the second. Whose mount it is is not known here: a secret of such a name comes along.
    is_own(path) || path.ends_with("/revoke")
}

/// The same of the server's own paths, which nothing else can have.
fn is_own(path: &str) -> bool {
    ["sys/leases/", "sys/", "auth/token/"].iter().any(|prefix| {
        let rest = path.strip_prefix(prefix).unwrap_or_default();
        rest.starts_with("revoke") || rest.starts_with("renew")
    })
}

/// What is written below these asks a database before it is answered.
const DATABASES: [&str; 6] =
    ["config", "roles", "static-roles", "rotate-root", "rotate-role", "creds"];

/// What a request waits with for its turn.
pub(crate) async fn class(worker: &Worker, call: &Call) -> Class {
    let (named, only_in) = by_name(call.verb, call.trimmed());
    let Some(kind) = only_in else { return named };
    // Other mounts may have such a name too: there it says nothing.
    let table = ask(&worker.door.mounts.table, ReadTable, NEAR).await;
    let found = table.ok().and_then(|table| Some(table.resolve(&call.path)?.0.kind));
    if found == Some(kind) { named } else { plain(call.verb) }
}

/// What a path's name says of its class, and in which kind of mount alone.
fn by_name(verb: Verb, path: &str) -> (Class, Option<EngineKind>) {
    let below = path.rsplit('/').nth(1).unwrap_or_default();
    let writes = matches!(verb, Verb::Write | Verb::Patch | Verb::Delete);
    match verb {
        Verb::Write if is_own(path) || matches!(path, "sys/unseal" | "sys/init" | "sys/seal") => {
            (Class::Vital, None)
        }
        Verb::Write if path.ends_with("/revoke") => (Class::Vital, Some(EngineKind::JwtSigner)),
        Verb::Read if below == "creds" => (Class::Mint, Some(EngineKind::Database)),
        _ if writes && DATABASES.contains(&below) => (Class::Mint, Some(EngineKind::Database)),
        _ => (plain(verb), None),
    }
}

const fn plain(verb: Verb) -> Class {
    match verb {
        Verb::Write | Verb::Patch | Verb::Delete => Class::Change,
        Verb::Read | Verb::List => Class::Read,
    }
}

#[cfg(test)]
mod tests {
    use actix_web::test::TestRequest;
    use mssm_domain::CanonicalPath;

    use super::*;
    use crate::tests::world::World;

    #[test]
    fn what_ends_or_prolongs_access_has_a_rate_of_its_own_and_nothing_else_has() {
        let by = |method: &Method, path: &str| vital(method, &format!("/v1/{path}"));
        let access = [
            "sys/seal",
            "sys/leases/revoke",
            "sys/leases/revoke-prefix/db",
            "sys/leases/renew",
            "sys/revoke",
            "sys/renew/db/creds/app/x",
            "auth/token/revoke-self",
            "auth/token/renew",
            "jwt/revoke",
            "signers/eu/revoke",
        ];
        let cases = access.map(|path| (path, Vital::Access)).into_iter();
        for (path, kind) in cases.chain([("sys/unseal", Vital::Unseal)]) {
            assert_eq!(by(&Method::PUT, path), Some(kind), "{path}");
            assert_eq!(by(&Method::POST, path), Some(kind), "{path}");
            assert_eq!(by(&Method::GET, path), None, "{path}");
        }
        let others = [
            "sys/init",
            "sys/rotate",
            "sys/leases/lookup",
            "auth/token/create",
            "jwt/sign/app",
            "jwt/revoked",
            "db/creds/app",
            "revoke",
        ];
        for path in others {
            assert_eq!(by(&Method::PUT, path), None, "{path}");
        }
        assert_eq!(vital(&Method::PUT, "/elsewhere/sys/unseal"), None);
    }
    async fn class_of(world: &World, method: &str, path: &str) -> Class {
        let id = mssm_domain::RequestId::parse("00000000-0000-4000-8000-000000000000").unwrap();
        let method = Method::from_bytes(method.as_bytes()).unwrap();
        let request = TestRequest::default().method(method).to_http_request();
        let path = CanonicalPath::parse(path).unwrap();
        class(&world.worker, &Call::parse(&request, id, path).unwrap()).await
    }

    #[actix_web::test]
    async fn what_a_request_waits_with_depends_on_its_name_and_its_mount() {
        let world = World::new();
        for (method, path, expected) in [
            ("PUT", "sys/leases/revoke", Class::Vital),
            ("POST", "sys/leases/revoke-prefix/db", Class::Vital),
            ("PUT", "sys/leases/renew", Class::Vital),
            ("PUT", "sys/renew/db/creds/app/x", Class::Vital),
            ("POST", "auth/token/revoke-self", Class::Vital),
            ("POST", "auth/token/renew-self/", Class::Vital),
            ("PUT", "sys/seal", Class::Vital),
            ("PUT", "sys/unseal", Class::Vital),
            ("PUT", "sys/init", Class::Vital),
            ("POST", "jwt/revoke", Class::Vital),
            ("POST", "secret/data/jwt/revoke", Class::Change),
            ("PUT", "cubbyhole/revoke", Class::Change),
            ("PUT", "nowhere/revoke", Class::Change),
            ("GET", "sys/leases/revoke", Class::Read),
            ("DELETE", "jwt/revoke", Class::Change),
            ("GET", "db/creds/app", Class::Mint),
            ("GET", "db/creds/app/", Class::Mint),
            ("LIST", "db/creds/app", Class::Read),
            ("POST", "db/config/pg", Class::Mint),
            ("PATCH", "db/roles/app", Class::Mint),
            ("DELETE", "db/static-roles/app", Class::Mint),
            ("POST", "db/rotate-root/pg", Class::Mint),
            ("POST", "db/rotate-role/app", Class::Mint),
            ("POST", "db/reset/pg", Class::Change),
            ("GET", "db/config/pg", Class::Read),
            ("GET", "db/static-creds/app", Class::Read),
            ("GET", "kv1/creds/app", Class::Read),
            ("PUT", "secret/data/config/app", Class::Change),
            ("PUT", "kv1/roles/app", Class::Change),
            ("POST", "jwt/roles/app", Class::Change),
            ("POST", "identity/oidc/roles/app", Class::Change),
            ("PUT", "sys/config/ui", Class::Change),
            ("PUT", "nowhere/config/app", Class::Change),
            ("POST", "auth/token/create", Class::Change),
            ("PUT", "sys/policies/acl/app", Class::Change),
            ("DELETE", "sys/mounts/db", Class::Change),
            ("GET", "secret/data/a", Class::Read),
            ("LIST", "secret/metadata/config/a", Class::Read),
        ] {
            assert_eq!(class_of(&world, method, path).await, expected, "{method} {path}");
        }
        world.seal();
        assert_eq!(class_of(&world, "PUT", "sys/unseal").await, Class::Vital);
        assert_eq!(class_of(&world, "PUT", "db/config/pg").await, Class::Change, "nobody knows");
    }
}
