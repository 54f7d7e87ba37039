//! Splitting and filling of statements, compared with what a real PostgreSQL makes of the same text.

use mssm_testkit::TestPostgres;
use proptest::prelude::*;
use proptest::strategy::ValueTree;
use proptest::test_runner::TestRunner;
use tokio_postgres::{Client, SimpleQueryMessage};

use crate::dialect::Dialect;
use crate::lexer::lex;
use crate::statements::split;
use crate::template::{TemplateError, Values, render};

/// What came of a text: how many commands were done, and all rows.
type Done = (usize, Vec<Vec<Option<String>>>);

async fn run(session: &Client, sql: &str) -> Result<Done, String> {
    let answers = session.simple_query(sql).await.map_err(|error| {
        error.as_db_error().map_or_else(|| error.to_string(), |error| error.message().to_owned())
    })?;
    let (mut commands, mut rows) = (0, Vec::new());
    for answer in answers {
        match answer {
            SimpleQueryMessage::Row(row) => {
                rows.push((0..row.len()).map(|at| row.get(at).map(str::to_owned)).collect());
            }
            SimpleQueryMessage::CommandComplete(_) => commands += 1,
            _ => {}
        }
    }
    Ok((commands, rows))
}

fn draw<T: std::fmt::Debug>(strategy: &impl Strategy<Value = T>, runner: &mut TestRunner) -> T {
    strategy.new_tree(runner).unwrap().current()
}

/// Anything that hides semicolons and quotes, as something that can be selected.
fn item() -> impl Strategy<Value = String> {
    prop_oneof![
        "'([a-zé;\"$\\\\{}/*\n -]|''){0,8}'",
        "[eE]'([a-zü;\"$]|\\\\'|\\\\\\\\|''|\\\\n){0,8}'",
        "'[a;]{0,3}'\n[ \t]*'[b;$]{0,3}'",
        "E'[a;]{0,3}' -- ;'\n'(\\\\'|;){0,3}'",
        "\\$\\$[a-z;'\"é /*-]{0,8}\\$\\$",
        "\\$t\\$([a-z;'\" ]|\\$\\$|\\$u\\$){0,6}\\$t\\$",
        "\\$é_1\\$([a-z;'\" ]|\\$\\$|\\$u\\$){0,6}\\$é_1\\$",
        "[uU]&'[a-z;\"$ ]{0,6}'",
        "1 AS \"([a-zß;'$/*-]|\"\"){1,8}\"",
        "1 AS U&\"[a-z;'$]{1,8}\"",
        "[bB]'[01]{0,4}'",
        "[nN]'[a-z;]{0,4}'",
        "1 AS a\\$b\\$c",
        "1/\\*[a-z;' ]{0,4}(/\\*[;']\\*/)?\\*/ \\+ 2",
        "1 \\+--[a-z;'\" ]{0,8}\n 2",
        "1\\$\\$;\\$\\$",
        "\\(1\\)",
    ]
}

#[actix_rt::test]
async fn statements_are_split_where_postgresql_splits_them() {
    let postgres = TestPostgres::shared();
    let session = postgres.admin("postgres").await;
    let mut runner = TestRunner::deterministic();
    let statement = prop::collection::vec(item(), 1..4).prop_map(|items| items.join(",\n"));
    let statements = prop::collection::vec(statement, 1..4);
    let between =
        prop_oneof![Just(";"), Just(" ;\n"), Just(";;"), Just("; -- ;\n"), Just("; /* ; */ ;")];
    let mut accepted = 0;
    for _ in 0..400 {
        let (statements, between) = (draw(&statements, &mut runner), draw(&between, &mut runner));
        let statements: Vec<String> =
            statements.iter().map(|items| format!("SELECT {items}")).collect();
        let text = statements.join(between);
        let Ok(whole) = run(&session, &text).await else { continue };
        accepted += 1;
        assert_eq!(whole.0, statements.len(), "{text}");
        let pieces = split(&text).unwrap();
        assert_eq!(pieces.len(), whole.0, "{text}\n{pieces:?}");
        let mut rows = Vec::new();
        for piece in &pieces {
            let (commands, more) = run(&session, piece).await.unwrap();
            assert_eq!(commands, 1, "{piece}");
            rows.extend(more);
        }
        assert_eq!(rows, whole.1, "{text}");
    }
    assert!(accepted > 200, "{accepted}");
}

/// Whatever PostgreSQL accepts is split as it does; what it says is unterminated we refuse.
#[actix_rt::test]
async fn rubbish_is_split_as_postgresql_splits_it() {
    let postgres = TestPostgres::shared();
    let session = postgres.admin("postgres").await;
    let mut runner = TestRunner::deterministic();
    let rubbish =
        "('|''|E'|\"|\\$\\$|\\$a\\$|\\$|a|1|;|\\\\|/\\*|\\*/|--|\n| |,|\\(|\\)|U&'|é|\\+){0,10}";
    let rubbish = proptest::string::string_regex(rubbish).unwrap();
    let (mut accepted, mut unterminated) = (0, 0);
    for _ in 0..3_000 {
        let text = format!("SELECT {}", draw(&rubbish, &mut runner));
        match run(&session, &text).await {
            Ok(whole) => {
                accepted += 1;
                let pieces = split(&text).unwrap();
                assert_eq!(pieces.len(), whole.0, "{text}\n{pieces:?}");
                let mut rows = Vec::new();
                for piece in &pieces {
                    rows.extend(run(&session, piece).await.unwrap().1);
                }
                assert_eq!(rows, whole.1, "{text}");
            }
            Err(why) if why.starts_with("unterminated") => {
                unterminated += 1;
                assert!(lex(&text).is_err(), "{text}: {why}");
            }
            Err(_) => {}
        }
    }
    assert!(accepted > 50 && unterminated > 200, "{accepted} {unterminated}");
}

/// Whatever a name holds, PostgreSQL reads that name and nothing else.
#[actix_rt::test]
async fn hostile_names_arrive_as_they_are() {
    let postgres = TestPostgres::shared();
    let session = postgres.admin("postgres").await;
    let mut runner = TestRunner::deterministic();
    let hostile = "('|\"|\\\\|;|\\$\\$|\\$x\\$|\\{\\{name\\}\\}|\\{\\{|\\}\\}|\n|--|/\\*|\\*/|é|\u{202e}|😀|a| ){1,20}";
    let hostile = proptest::string::string_regex(hostile).unwrap();
    for _ in 0..300 {
        let name = draw(&hostile, &mut runner);
        let values = Values {
            dialect: Dialect::Postgres,
            name: &name,
            role: &name,
            expiration: None,
            password: None,
            verifier: None,
        };
        let template =
            "SELECT '{{name}}', E'\\'{{name}}', 'a' || '{{role}}' /* {{name}} */ -- {{name}}\n";
        let sql = render(template, &values).unwrap();
        let (commands, rows) = run(&session, sql.expose()).await.unwrap();
        assert_eq!(commands, 1);
        let expected = [name.clone(), format!("'{name}"), format!("a{name}")].map(Some);
        assert_eq!(rows, [expected.to_vec()], "{}", sql.expose());
        for template in ["SELECT 7 AS \"{{name}}\"", "SELECT 7 AS {{name}}"] {
            let sql = render(template, &values).unwrap();
            let rows = session.query(sql.expose(), &[]).await.unwrap();
            let column = rows[0].columns()[0].name();
            // PostgreSQL cuts names at 63 bytes.
            assert!(name.starts_with(column) && column.len() >= name.len().min(60), "{name}");
        }
        match render("SELECT $x$'{{name}}'$x$", &values) {
            Ok(sql) => {
                let (_, rows) = run(&session, sql.expose()).await.unwrap();
                let doubled = name.replace('\'', "''");
                assert_eq!(rows, [vec![Some(format!("'{doubled}'"))]]);
            }
            Err(error) => assert!(error == TemplateError::Dollar && name.contains('$')),
        }
    }
}
