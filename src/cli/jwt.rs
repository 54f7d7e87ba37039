//! `mssm jwt`: tokens that are signed, the keys that sign them, and the roles that say what they say.

use clap::{Args, Subcommand};
use serde_json::{Map, Value};

use super::call::Call;
use super::failure::Failure;
use super::input::Input;
use super::session::Session;
use super::values;

/// What is done with signed tokens.
#[derive(Debug, Subcommand)]
pub(crate) enum JwtCommand {
    /// Get a token signed for a role
    #[command(after_help = "Examples:
  mssm jwt sign app
  mssm jwt sign -field=token -ttl=5m app order=7
  mssm jwt sign app @claims.json")]
    Sign {
        #[command(flatten)]
        named: Named,
        /// How long it shall live, such as 5m; the role says how long at most
        #[arg(long, value_name = "DURATION")]
        ttl: Option<String>,
        /// Claims that the role lets callers set: key=value, key=@FILE, @FILE.json, or - for JSON
        #[arg(value_name = "CLAIM")]
        claims: Vec<String>,
    },
    /// Check a token: its signature, its times, for whom it is, and that it is not revoked
    #[command(after_help = "Examples:
  mssm jwt verify -audience=shop - < token.txt
  mssm jwt verify -audience=shop -issuer=https://id.example -leeway=5s TOKEN")]
    Verify {
        #[command(flatten)]
        token: Token,
        /// For whom the token must be; may be given several times
        #[arg(long, value_name = "NAME")]
        audience: Vec<String>,
        /// Who must have issued it
        #[arg(long, value_name = "ISSUER")]
        issuer: Option<String>,
        /// How far clocks may be apart, such as 5s
        #[arg(long, value_name = "DURATION")]
        leeway: Option<String>,
    },
    /// Have a token hold no more, though it has not ended
    #[command(after_help = "Examples:
  mssm jwt revoke - < token.txt")]
    Revoke(Token),
    /// Sets of keys: previous, current and next
    #[command(subcommand)]
    Key(KeyCommand),
    /// Roles: issuer, audience, subject, claims and lifetimes of tokens
    #[command(subcommand)]
    Role(RoleCommand),
}

/// What is done with keys.
#[derive(Debug, Subcommand)]
pub(crate) enum KeyCommand {
    /// Make a set of keys, or change its settings
    #[command(
        after_help = "What stands on a command line can be seen by others: prefer private_key=@FILE.

Examples:
  mssm jwt key write main algorithm=ES256 rotation_period=24h verification_ttl=24h
  mssm jwt key write main rotation_count=1000000
  mssm jwt key write old algorithm=RS256 private_key=@key.pem      a key from elsewhere, in PKCS#8"
    )]
    Write {
        #[command(flatten)]
        named: Named,
        /// key=value, key=@FILE, key=-, @FILE.json, or - for JSON on standard input
        #[arg(value_name = "DATA")]
        data: Vec<String>,
    },
    /// Show one; private keys are never shown
    Read(Named),
    /// Name them all
    List(Mount),
    /// Delete one that no role signs with; its tokens verify no more
    Delete(Named),
    /// Have the next key sign, as soon as every copy of the public keys has it
    Rotate(Named),
    /// Remove previous keys: those that verify nothing any more, and those that are named
    #[command(after_help = "Examples:
  mssm jwt key trim main
  mssm jwt key trim main KID        whatever that key signed verifies no more")]
    Trim {
        #[command(flatten)]
        named: Named,
        /// Previous keys that go though their tokens have not ended
        #[arg(value_name = "KID")]
        kids: Vec<String>,
    },
}

/// What is done with roles.
#[derive(Debug, Subcommand)]
pub(crate) enum RoleCommand {
    /// Write one
    #[command(after_help = "Examples:
  mssm jwt role write app key=main audience=shop subject='{{token.display_name}}' ttl=10m
  mssm jwt role write app claims='{\"team\": {{token.metadata.team}}}' allowed_claims=order,cart
  mssm jwt role write api key=main token_type=at+jwt audience=api client_id=shop \\
      subject='{{token.accessor}}'                                an access token of RFC 9068")]
    Write {
        #[command(flatten)]
        named: Named,
        /// key=value, key=@FILE, key=-, @FILE.json, or - for JSON on standard input
        #[arg(required = true, value_name = "DATA")]
        data: Vec<String>,
    },
    /// Show one
    Read(Named),
    /// Name them all
    List(Mount),
    /// Delete one
    Delete(Named),
}

/// Where the engine is mounted.
#[derive(Args, Debug)]
pub(crate) struct Mount {
    /// The mount of the jwt engine
    #[arg(long, default_value = "jwt", value_name = "PATH")]
    mount: String,
}

impl Mount {
    fn path(&self, below: &str) -> String {
        format!("{}/{below}", self.mount.trim_matches('/'))
    }
}

/// One entry on a mount.
#[derive(Args, Debug)]
pub(crate) struct Named {
    #[command(flatten)]
    mount: Mount,
    /// Its name
    name: String,
}

impl Named {
    fn path(&self, kind: &str) -> String {
        self.mount.path(&format!("{kind}/{}", self.name))
    }
}

/// A token.
#[derive(Args, Debug)]
pub(crate) struct Token {
    #[command(flatten)]
    mount: Mount,
    /// The token, or - to read it from standard input, where nobody sees it
    token: String,
}

impl Token {
    fn read(&self, input: &mut dyn Input) -> Result<Value, Failure> {
        let text = if self.token == "-" { input.read_all()? } else { self.token.clone() };
        Ok(text.trim().into())
    }
}

/// Runs one of them.
pub(crate) fn run(command: &JwtCommand, session: &mut Session<'_>) -> Result<(), Failure> {
    match command {
        JwtCommand::Sign { named, ttl, claims } => {
            let mut body = Map::new();
            if !claims.is_empty() {
                let claims = values::parse(claims, session.input)?;
                body.insert("claims".to_owned(), Value::Object(claims));
            }
            put(&mut body, "ttl", ttl.as_deref());
            session.show(&Call::write(&named.path("sign"), Value::Object(body)))
        }
        JwtCommand::Verify { token, audience, issuer, leeway } => {
            let mut body = Map::from_iter([("token".to_owned(), token.read(session.input)?)]);
            if !audience.is_empty() {
                body.insert("audience".to_owned(), audience.as_slice().into());
            }
            put(&mut body, "issuer", issuer.as_deref());
            put(&mut body, "leeway", leeway.as_deref());
            session.show(&Call::write(&token.mount.path("verify"), Value::Object(body)))
        }
        JwtCommand::Revoke(token) => {
            let body = Map::from_iter([("token".to_owned(), token.read(session.input)?)]);
            let call = Call::write(&token.mount.path("revoke"), Value::Object(body));
            session.carry_out(&call, "Success! The token holds no more")
        }
        JwtCommand::Key(command) => key(command, session),
        JwtCommand::Role(command) => match command {
            RoleCommand::Write { named, data } => write("roles", named, data, session),
            RoleCommand::Read(named) => session.show(&Call::read(&named.path("roles"))),
            RoleCommand::List(mount) => session.show_names(&mount.path("roles")),
            RoleCommand::Delete(named) => delete("roles", named, session),
        },
    }
}

fn key(command: &KeyCommand, session: &mut Session<'_>) -> Result<(), Failure> {
    match command {
        KeyCommand::Write { named, data } => write("keys", named, data, session),
        KeyCommand::Read(named) => session.show(&Call::read(&named.path("keys"))),
        KeyCommand::List(mount) => session.show_names(&mount.path("keys")),
        KeyCommand::Delete(named) => delete("keys", named, session),
        KeyCommand::Rotate(named) => {
            let path = format!("{}/rotate", named.path("keys"));
            session.show(&Call::write(&path, Value::Object(Map::new())))
        }
        KeyCommand::Trim { named, kids } => {
            let mut body = Map::new();
            if !kids.is_empty() {
                body.insert("kids".to_owned(), kids.as_slice().into());
            }
            let path = format!("{}/trim", named.path("keys"));
            session.show(&Call::write(&path, Value::Object(body)))
        }
    }
}

fn put(body: &mut Map<String, Value>, name: &str, value: Option<&str>) {
    if let Some(value) = value {
        body.insert(name.to_owned(), value.into());
    }
}

fn write(
    kind: &str,
    named: &Named,
    data: &[String],
    session: &mut Session<'_>,
) -> Result<(), Failure> {
    let path = named.path(kind);
    let body = Value::Object(values::parse(data, session.input)?);
    session.carry_out(&Call::write(&path, body), &format!("Success! Data written to: {path}"))
}

fn delete(kind: &str, named: &Named, session: &mut Session<'_>) -> Result<(), Failure> {
    let path = named.path(kind);
    let done = format!("Success! Data deleted (if it existed) at: {path}");
    session.carry_out(&Call::delete(&path), &done)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::input::ScriptedInput;
    use crate::cli::session::script::Script;

    fn asked(command: &JwtCommand) -> String {
        let script = Script::new(&[(200, r#"{"data":{"keys":["a"],"token":"t"}}"#)]);
        script.run(ScriptedInput::new("a.b.c\n"), |session| run(command, session)).unwrap();
        script.asked.take().concat()
    }

    fn mount() -> Mount {
        Mount { mount: "/jwt/".to_owned() }
    }

    fn named() -> Named {
        Named { mount: mount(), name: "app".to_owned() }
    }

    #[test]
    fn each_command_asks_for_what_it_says() {
        let sign = JwtCommand::Sign {
            named: named(),
            ttl: Some("5m".to_owned()),
            claims: vec!["order=7".to_owned()],
        };
        assert_eq!(asked(&sign), r#"PUT /v1/jwt/sign/app {"claims":{"order":"7"},"ttl":"5m"}"#);
        let token = || Token { mount: mount(), token: "-".to_owned() };
        let verify = JwtCommand::Verify {
            token: token(),
            audience: vec!["shop".to_owned()],
            issuer: None,
            leeway: Some("5s".to_owned()),
        };
        assert_eq!(
            asked(&verify),
            r#"PUT /v1/jwt/verify {"audience":["shop"],"leeway":"5s","token":"a.b.c"}"#
        );
        let revoke = JwtCommand::Revoke(token());
        assert_eq!(asked(&revoke), r#"PUT /v1/jwt/revoke {"token":"a.b.c"}"#);
        let rotate = JwtCommand::Key(KeyCommand::Rotate(named()));
        assert_eq!(asked(&rotate), "PUT /v1/jwt/keys/app/rotate {}");
        let kids = vec!["k".to_owned()];
        let trim = JwtCommand::Key(KeyCommand::Trim { named: named(), kids });
        assert_eq!(asked(&trim), r#"PUT /v1/jwt/keys/app/trim {"kids":["k"]}"#);
        let data = vec!["private_key=-".to_owned()];
        let write = JwtCommand::Key(KeyCommand::Write { named: named(), data });
        assert_eq!(asked(&write), r#"PUT /v1/jwt/keys/app {"private_key":"a.b.c\n"}"#);
        assert_eq!(asked(&JwtCommand::Role(RoleCommand::List(mount()))), "LIST /v1/jwt/roles");
        let delete = JwtCommand::Role(RoleCommand::Delete(named()));
        assert_eq!(asked(&delete), "DELETE /v1/jwt/roles/app");
    }
}
