//! The tree of commands, and which family runs each.

use std::path::PathBuf;

use clap::{Parser, Subcommand};
use clap_complete::Shell;

use super::audit::AuditCommand;
use super::db::DbCommand;
use super::devices::DeviceCommand;
use super::failure::Failure;
use super::generic::{self, PathArgs, WriteArgs};
use super::jwt::JwtCommand;
use super::kv::KvCommand;
use super::lease::LeaseCommand;
use super::login::{self, LoginArgs};
use super::operator::OperatorCommand;
use super::policy::PolicyCommand;
use super::secrets::SecretsCommand;
use super::session::Session;
use super::settings::GlobalFlags;
use super::token::TokenCommand;
use super::{db, jwt, kv, lease, operator, policy, secrets, status, token};

/// Keeps secrets encrypted at rest and hands out database logins that live for minutes.
#[derive(Debug, Parser)]
#[command(
    name = "mssm",
    version,
    disable_help_subcommand = true,
    arg_required_else_help = true,
    after_help = "Environment (VAULT_* and BAO_* names are read too; MSSM_* wins):
  MSSM_ADDR             the server's address [https://127.0.0.1:8200]
  MSSM_TOKEN            the token; else ~/.mssm-token from `mssm login`, else ~/.vault-token
  MSSM_CACERT           PEM file of the authority that signed the server's certificate
  MSSM_CLIENT_TIMEOUT   the longest that a request may take [60s]
  MSSM_FORMAT           table or json

Exit codes: 0 done, 1 a mistake here or no server reached, 2 the server refused or is sealed.
Long flags take one dash or two: -format=json and --format=json are the same.

Examples:
  mssm status
  mssm login
  mssm kv put secret/app user=app password=@password.txt
  mssm kv get -field=password secret/app
  mssm db creds app"
)]
pub(crate) struct CommandLine {
    /// Flags of all client commands.
    #[command(flatten)]
    pub(crate) flags: GlobalFlags,
    /// What to do.
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// All commands: those that need no server, and those that do.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    #[command(flatten)]
    Client(ClientCommand),
    #[command(flatten)]
    Local(LocalCommand),
}

/// Commands that call no server.
#[derive(Debug, Subcommand)]
pub(crate) enum LocalCommand {
    /// Run the server
    #[command(after_help = "Examples:
  mssm server -config /etc/mssm/mssm.toml")]
    Server {
        /// The configuration file; without one the environment alone configures the server
        #[arg(long, value_name = "FILE")]
        config: Option<PathBuf>,
        /// Make a certificate that nobody signed: for development only
        #[arg(long)]
        dev_tls: bool,
        /// Go on with a store that is older than the audit log, as after restoring a backup
        #[arg(long)]
        accept_rollback: bool,
        /// The store was restored from a copy: logins that it does not know are told, not ended,
        /// until `mssm lease reconcile -confirm`; so too with -accept-rollback
        #[arg(long)]
        restored: bool,
    },
    /// Examine a server's store while the server is stopped
    #[command(subcommand)]
    Storage(StorageCommand),
    /// Prove what an audit log says and that nothing was done to it; choose where a server writes it
    #[command(subcommand)]
    Audit(AuditFamily),
    /// Print a shell's completion script
    #[command(after_help = "Examples:
  mssm completion bash > /etc/bash_completion.d/mssm
  mssm completion zsh > \"${fpath[1]}/_mssm\"
  mssm completion fish > ~/.config/fish/completions/mssm.fish")]
    Completion {
        /// The shell
        #[arg(value_parser = clap::value_parser!(Shell))]
        shell: Shell,
    },
    /// Print this program's version
    Version,
}

/// What is done with a store.
#[derive(Debug, Subcommand)]
pub(crate) enum StorageCommand {
    /// Check that every record can be read
    Check {
        /// The server's configuration file
        #[arg(long, value_name = "FILE")]
        config: Option<PathBuf>,
    },
}

/// What is done with the audit: with its files, whoever wrote them, and with a server's devices.
#[derive(Debug, Subcommand)]
pub(crate) enum AuditFamily {
    #[command(flatten)]
    Files(AuditCommand),
    #[command(flatten)]
    Devices(DeviceCommand),
}

/// Commands that call a server.
#[derive(Debug, Subcommand)]
pub(crate) enum ClientCommand {
    /// Initialise, unseal, seal, rotate
    #[command(subcommand)]
    Operator(OperatorCommand),
    /// Show whether the server is initialised and unsealed; exits with 2 when sealed
    Status,
    /// Keep a token for later commands
    #[command(after_help = "Examples:
  mssm login                                  asks for the token without showing it
  mssm login - < token.txt
  mssm login -method=userpass -username=ann   asks for the password (Vault and OpenBao only:
                                              an MSSM server takes tokens alone)")]
    Login(LoginArgs),
    /// Create, examine, renew and revoke tokens
    #[command(subcommand)]
    Token(TokenCommand),
    /// Who may do what
    #[command(subcommand)]
    Policy(PolicyCommand),
    /// Secrets by key
    #[command(subcommand)]
    Kv(KvCommand),
    /// Databases: connections, roles, short-lived logins
    #[command(subcommand)]
    Db(DbCommand),
    /// Signed tokens: keys that rotate, roles, verification
    #[command(subcommand)]
    Jwt(JwtCommand),
    /// How long what was handed out lives
    #[command(subcommand)]
    Lease(LeaseCommand),
    /// Which engine answers below which path
    #[command(subcommand)]
    Secrets(SecretsCommand),
    /// Read any path
    Read(PathArgs),
    /// Write to any path
    Write(WriteArgs),
    /// List any path
    List(PathArgs),
    /// Delete any path
    Delete(PathArgs),
}

/// Runs a client command.
pub(crate) fn run(command: &ClientCommand, session: &mut Session<'_>) -> Result<(), Failure> {
    match command {
        ClientCommand::Operator(command) => operator::run(command, session),
        ClientCommand::Status => status::run(session),
        ClientCommand::Login(args) => login::run(args, session),
        ClientCommand::Token(command) => token::run(command, session),
        ClientCommand::Policy(command) => policy::run(command, session),
        ClientCommand::Kv(command) => kv::run(command, session),
        ClientCommand::Db(command) => db::run(command, session),
        ClientCommand::Jwt(command) => jwt::run(command, session),
        ClientCommand::Lease(command) => lease::run(command, session),
        ClientCommand::Secrets(command) => secrets::run(command, session),
        ClientCommand::Read(args) => generic::read(args, session),
        ClientCommand::Write(args) => generic::write(args, session),
        ClientCommand::List(args) => generic::list(args, session),
        ClientCommand::Delete(args) => generic::delete(args, session),
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;
    use crate::cli::arguments::normalise;

    fn parsed(line: &str) -> Result<CommandLine, clap::Error> {
        let words = line.split_whitespace().map(std::ffi::OsString::from);
        CommandLine::try_parse_from(normalise(words).unwrap())
    }

    #[test]
    fn the_tree_of_commands_holds_together() {
        CommandLine::command().debug_assert();
    }

    #[test]
    fn vaults_way_of_writing_flags_is_understood() {
        for line in [
            "mssm kv get -version=3 -field password -mount kv app",
            "mssm kv get -format=json kv/app",
            "mssm -address https://h:1 status",
            "mssm operator init -n 5 -t 3",
            "mssm token create -policy=a -policy=b -ttl 1h -renewable=false -orphan",
            "mssm lease revoke -prefix db/creds",
            "mssm token revoke -self",
            "mssm secrets enable -path kv -version 2 kv",
            "mssm write -f sys/rotate",
            "mssm audit enable -path=second file file_path=/var/log/mssm/second.log",
            "mssm audit disable second/",
            "mssm audit list -detailed",
            "mssm operator unseal -",
            "mssm jwt sign -ttl=5m -field token app order=7",
            "mssm jwt verify -audience a -audience b -",
        ] {
            assert!(parsed(line).is_ok(), "{line}: {:?}", parsed(line).err());
        }
    }

    #[test]
    fn a_token_has_no_flag() {
        assert!(parsed("mssm -token s.x status").is_err());
        assert!(parsed("mssm login -token s.x").is_err());
    }

    #[test]
    fn help_says_where_userpass_works_and_what_becomes_of_a_line_break() {
        let help = |words: &[&str]| {
            let mut command = CommandLine::command();
            for word in words {
                command = command.find_subcommand(word).unwrap().clone();
            }
            command.render_long_help().to_string()
        };
        assert!(help(&["login"]).contains("userpass is for other servers"));
        assert!(help(&["db", "config", "write"]).contains("One line break at the end of"));
    }

    #[test]
    fn every_command_with_a_choice_of_values_says_what_it_does() {
        fn walk(command: &clap::Command) {
            for child in command.get_subcommands() {
                assert!(child.get_about().is_some(), "{} has no help", child.get_name());
                walk(child);
            }
        }
        walk(&CommandLine::command());
    }
}
