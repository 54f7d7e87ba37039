//! Every sample is read; every mistake is named.

use super::*;

const LEAST: &str = r#"
    [tls]
    self_signed = true
    [storage]
    folder = "data"
    [audit]
    file = "audit.log"
"#;

fn environment(variables: &[(&str, &str)]) -> Environment {
    variables.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
}

fn sample(name: &str) -> String {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("config");
    std::fs::read_to_string(folder.join(name)).unwrap()
}

#[test]
fn every_sample_is_valid() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("config");
    for entry in std::fs::read_dir(folder).unwrap() {
        let name = entry.unwrap().file_name().into_string().unwrap();
        if Path::new(&name).extension().is_none_or(|extension| extension != "toml") {
            continue;
        }
        // The authorities' certificates of the sample are not on the machine that runs the test.
        let text: String = sample(&name)
            .lines()
            .filter(|line| !line.starts_with("ca_file"))
            .map(|line| line.to_owned() + "\n")
            .collect();
        let config = Config::parse(&text, &Environment::new()).unwrap();
        let databases = config.databases.read().unwrap();
        assert!(!databases.connections.is_empty(), "{name} shows a connection");
        assert!(!databases.roles.is_empty(), "{name} shows a role");
        assert_eq!(inline::secret(&text), None, "{name} may be read by others, as a clone is");
    }
}

#[test]
fn the_development_sample_makes_logins_in_a_local_database() {
    let config = Config::parse(&sample("dev.toml"), &Environment::new()).unwrap();
    assert_eq!(config.tls, TlsConfig::SelfSigned);
    let databases = config.databases.read().unwrap();
    let (_, connection) = &databases.connections[0];
    let url = connection.connection_url.as_ref().unwrap().expose();
    assert!(url.starts_with("postgresql://{{username}}:{{password}}@127.0.0.1:15432/"), "{url}");
    assert_eq!(databases.roles[0].1.default_ttl_secs, Some(60));
}

#[test]
fn a_static_role_has_one_plan_and_one_or_two_users() {
    let connection = "[db.connections.c]\nhost = \"h\"\ndatabase = \"d\"\nusername = \"u\"\n\
        password_file = \"/nowhere\"\n[db.static_roles.r]\nconnection = \"c\"\n";
    for (text, wrong) in [
        ("usernames = [\"a\", \"b\"]\nrotation_schedule = \"0 3 * * *\"", None),
        ("usernames = [\"a\"]\nrotation_period = \"1d\"", None),
        ("usernames = []\nrotation_period = \"1d\"", Some("usernames")),
        ("usernames = [\"a\", \"b\", \"c\"]\nrotation_period = \"1d\"", Some("usernames")),
        ("usernames = [\"a\"]", Some("one of rotation_period")),
        ("usernames = [\"a\"]\nrotation_period = \"soon\"", Some("rotation_period")),
    ] {
        let parsed = Config::parse(&format!("{LEAST}\n{connection}{text}"), &Environment::new());
        match wrong {
            None => assert_eq!(parsed.unwrap().databases.read().unwrap().static_roles.len(), 1),
            Some(named) => {
                let error = parsed.unwrap_err().to_string();
                assert!(error.contains(named), "{error}");
            }
        }
    }
}

#[test]
fn little_is_needed() {
    let config = Config::parse(LEAST, &Environment::new()).unwrap();
    assert_eq!(config.address.to_string(), "127.0.0.1:8200");
    assert!(matches!(config.seal, SealConfig::Shamir));
    assert_eq!(config.storage.kind, StorageKind::Embedded);
}

#[test]
fn the_environment_wins_over_the_file() {
    let over = environment(&[("MSSM_SERVER_ADDRESS", "[::1]:1234"), ("MSSM_TOKEN", "s.x")]);
    let config = Config::parse(LEAST, &over).unwrap();
    assert_eq!(config.address.to_string(), "[::1]:1234");
}

#[test]
fn every_mistake_names_its_key_and_what_would_be_right() {
    let cases = [
        ("[server]\nadress = \"x\"", "adress"),
        ("[server]\naddress = \"here\"", "server.address"),
        ("[seal]\nkind = \"magic\"", "seal.kind"),
        ("[seal]\nkind = \"static\"", "key_file"),
        ("[seal]\nkey_env = \"X\"", "seal.kind"),
        ("[log]\nlevel = \"loud\"", "log.level"),
        ("[log]\nformat = \"xml\"", "log.format"),
        ("[db.roles.r]\nconnection = \"c\"\ncreation = []", "db.roles.r.connection"),
        (
            "[db.static_roles.r]\nconnection = \"c\"\nusernames = [\"u\"]\nrotation_period = \"1d\"",
            "db.static_roles.r.connection",
        ),
        ("[db.connections.c]\nhost = \"h\"\ndatabase = \"d\"\nusername = \"u\"", "has no password"),
        ("[db.connections.c]\nkind=\"x\"\nhost=\"h\"\ndatabase=\"d\"\nusername=\"u\"", "c.kind"),
        ("[db.connections.\"a b\"]\nhost=\"h\"\ndatabase=\"d\"\nusername=\"u\"", "a b"),
    ];
    for (text, named) in cases {
        let text = format!("{LEAST}\n{text}");
        let error = Config::parse(&text, &Environment::new()).unwrap_err().to_string();
        assert!(error.contains(named), "{error}");
    }
    for (text, named) in [("", "tls"), ("[tls]\nkey = \"k\"", "tls"), ("x", "x")] {
        let error = Config::parse(text, &Environment::new()).unwrap_err().to_string();
        assert!(error.contains(named), "{error}");
    }
    let typo = environment(&[("MSSM_SERVER_ADRESS", "x")]);
    let error = Config::parse(LEAST, &typo).unwrap_err().to_string();
    assert!(error.contains("MSSM_SERVER_ADRESS"), "{error}");
}

#[test]
fn a_static_key_is_32_bytes_that_nobody_else_can_read() {
    use std::os::unix::fs::PermissionsExt;
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("root.key");
    let key = |mode: u32, text: &str| {
        std::fs::write(&path, text).unwrap();
        std::fs::set_permissions(&path, PermissionsExt::from_mode(mode)).unwrap();
        files::root_key_file(&path)
    };
    let hexadecimal = "ab".repeat(32);
    assert_eq!(key(0o600, &hexadecimal).unwrap().expose(), [0xab; 32]);
    assert_eq!(key(0o600, STANDARD_KEY).unwrap().expose(), [0; 32]);
    assert!(key(0o644, &hexadecimal).unwrap_err().contains("chmod 600"));
    assert!(key(0o600, "short").unwrap_err().contains("32 bytes"));
    let variables = environment(&[("KEY", &hexadecimal)]);
    assert!(files::root_key_env("KEY", &variables).is_ok());
    assert!(files::root_key_env("OTHER", &variables).unwrap_err().contains("not set"));
}

#[test]
fn audit_devices_are_read_and_their_mistakes_named() {
    let parse = |more: &str| {
        let text = LEAST.replace("[audit]\n", &format!("{more}\n[audit]\n"));
        assert_ne!(text, LEAST);
        Config::parse(&text, &Environment::new())
    };
    let device = |name: &str, rest: &str| format!("[audit.devices.{name}]\n{rest}\n");
    let good = device("collector", "type = \"socket\"\naddress = \"c:9000\"")
        + &device("log-2", "type = \"syslog\"\ndescription = \"d\"");
    let devices = parse(&good).unwrap().audit.devices;
    let shown: Vec<(&str, &str)> =
        devices.iter().map(|one| (one.device.path.as_str(), one.device.kind.as_str())).collect();
    assert_eq!(shown, [("collector/", "socket"), ("log-2/", "syslog")]);
    for (name, rest, words) in [
        ("file", "type = \"syslog\"", "audit.devices.file"),
        ("\"a/b\"", "type = \"syslog\"", "audit.devices.a/b"),
        ("x", "type = \"kafka\"", "audit.devices.x: unknown backend type"),
        ("x", "type = \"socket\"", "address is required"),
        ("x", "type = \"syslog\"\nfacilty = \"AUTH\"", "facilty"),
        ("x", "address = \"c:9000\"", "type"),
    ] {
        let refused = parse(&device(name, rest)).unwrap_err().to_string();
        assert!(refused.contains(words), "{refused}");
    }
    let twice = device("a", "type = \"syslog\"") + &device("b", "type = \"syslog\"");
    assert!(parse(&twice).unwrap_err().to_string().contains("where another one does"));
}

#[test]
fn an_error_in_the_settings_repeats_no_value() {
    let connection = format!("{LEAST}[db.connections.a]\nhost = \"h\"\n");
    for (wrong, named) in [
        ("password = \"canary\"", "unknown field `password`"),
        ("connection_url = \"postgresql://u:canary@h/d\"", "unknown field `connection_url`"),
        ("password_file = canary", "line 10"),
        ("password_file = \"canary", "line 10"),
        ("password_file = \"a\" canary", "line 10"),
        ("port = \"canary\"", "expected u16"),
        ("password_file = [\"canary\"]", "expected a string"),
        ("host = \"canary\"", "duplicate key"),
    ] {
        let text = format!("{connection}{wrong}\n");
        let error = Config::parse(&text, &Environment::new()).unwrap_err().to_string();
        assert!(error.contains(named) && error.starts_with("line "), "{wrong}: {error}");
        assert!(!error.contains("canary"), "{error}");
    }
}

#[test]
fn settings_that_others_can_write_are_refused() {
    use std::os::unix::fs::PermissionsExt;
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("mssm.toml");
    std::fs::write(&path, LEAST).unwrap();
    for (mode, fine) in
        [(0o600, true), (0o644, true), (0o664, false), (0o646, false), (0o666, false)]
    {
        std::fs::set_permissions(&path, PermissionsExt::from_mode(mode)).unwrap();
        let loaded = Config::load(Some(&path), &Environment::new());
        assert_eq!(loaded.is_ok(), fine, "{mode:o}");
        if let Err(error) = loaded {
            assert!(error.to_string().contains("chmod go-w"), "{error}");
        }
    }
}

const STANDARD_KEY: &str = "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=\n";
