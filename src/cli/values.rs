//! Reads data from the command line: `k=v`, `k=@file`, `k=-`, `@file.json`, and `-` for JSON from stdin.

use serde_json::{Map, Value};

use super::failure::Failure;
use super::input::Input;

/// Builds an object out of arguments; an error names the key or the position, never a value.
///
/// A key that comes several times becomes a list, as in Vault's client. Standard input is read once.
pub(crate) fn parse(
    arguments: &[String],
    input: &mut dyn Input,
) -> Result<Map<String, Value>, Failure> {
    let mut object = Map::new();
    let mut stdin_taken = false;
    let mut stdin = |input: &mut dyn Input| {
        if std::mem::replace(&mut stdin_taken, true) {
            return Err(Failure::usage("standard input can be used only once (`-`)"));
        }
        input.read_all()
    };
    for (position, argument) in arguments.iter().enumerate() {
        if argument == "-" {
            merge(&mut object, &stdin(input)?, "standard input")?;
        } else if let Some(path) = argument.strip_prefix('@') {
            merge(&mut object, &input.read_file(path)?, path)?;
        } else if let Some((key, value)) =
            argument.split_once('=').filter(|(key, _)| !key.is_empty())
        {
            let text = match (value, value.strip_prefix('@')) {
                ("-", _) => stdin(input)?,
                (_, Some(path)) => input.read_file(path)?,
                _ => value
                    .strip_prefix('\\')
                    .filter(|rest| rest.starts_with('@'))
                    .unwrap_or(value)
                    .to_owned(),
            };
            insert(&mut object, key, Value::String(text));
        } else {
            return Err(Failure::advised(
                format!("argument {} is not of the form key=value", position + 1),
                "write key=value, key=@FILE, key=- (standard input), @FILE.json, or - for JSON on standard input",
            ));
        }
    }
    Ok(object)
}

/// The same, for options such as `-metadata k=v`: texts only, nothing is read from elsewhere.
pub(crate) fn pairs(name: &str, arguments: &[String]) -> Result<Option<Value>, Failure> {
    let mut object = Map::new();
    for argument in arguments {
        let (key, value) = argument
            .split_once('=')
            .ok_or_else(|| Failure::usage(format!("-{name} takes key=value")))?;
        object.insert(key.to_owned(), Value::String(value.to_owned()));
    }
    Ok((!object.is_empty()).then_some(Value::Object(object)))
}

fn merge(object: &mut Map<String, Value>, text: &str, place: &str) -> Result<(), Failure> {
    // The parser's own text is left out: it may quote what it read.
    let parsed: Map<String, Value> = serde_json::from_str(text).map_err(|error| {
        Failure::usage(format!("{place} holds no JSON object (line {})", error.line()))
    })?;
    for (key, value) in parsed {
        object.insert(key, value);
    }
    Ok(())
}

fn insert(object: &mut Map<String, Value>, key: &str, value: Value) {
    let value = match object.remove(key) {
        None => value,
        Some(Value::Array(mut items)) => {
            items.push(value);
            Value::Array(items)
        }
        Some(first) => Value::Array(vec![first, value]),
    };
    object.insert(key.to_owned(), value);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::input::ScriptedInput;

    fn parsed(arguments: &[&str], stdin: &str) -> Result<String, Failure> {
        let arguments: Vec<String> = arguments.iter().map(|text| (*text).to_owned()).collect();
        let mut input = ScriptedInput::new(stdin).with_file("f.txt", "from file\n");
        input = input.with_file("f.json", r#"{"n":1.50,"list":[1,"2"]}"#);
        parse(&arguments, &mut input).map(|object| Value::Object(object).to_string())
    }

    #[test]
    fn every_form_of_a_value_is_understood() {
        let cases = [
            (&["a=b=c", "empty="][..], r#"{"a":"b=c","empty":""}"#),
            (&["a=@f.txt"][..], r#"{"a":"from file\n"}"#),
            (&["a=\\@home", "b=\\x"][..], r#"{"a":"@home","b":"\\x"}"#),
            (&["a=-"][..], r#"{"a":"{\"in\":true}"}"#),
            (&["-", "b=1"][..], r#"{"b":"1","in":true}"#),
            (&["@f.json"][..], r#"{"list":[1,"2"],"n":1.50}"#),
            (&["a=1", "a=2", "a=3"][..], r#"{"a":["1","2","3"]}"#),
        ];
        for (arguments, expected) in cases {
            assert_eq!(parsed(arguments, r#"{"in":true}"#).unwrap(), expected, "{arguments:?}");
        }
    }

    #[test]
    fn an_argument_that_is_not_understood_is_named_by_its_place_alone() {
        for argument in ["hunter2", "=hunter2"] {
            let failure = parsed(&["a=b", argument], "").unwrap_err();
            assert!(failure.message().contains("argument 2"));
            assert!(!failure.message().contains("hunter2"));
        }
    }

    /// Catalogue: GHSA-444v.
    #[test]
    fn broken_json_is_not_quoted() {
        let failure = parsed(&["-"], "{\"p\": hunter2}").unwrap_err();
        assert!(!failure.message().contains("hunter2"));
    }

    #[test]
    fn standard_input_cannot_be_read_twice() {
        assert!(parsed(&["a=-", "b=-"], "x").unwrap_err().message().contains("once"));
    }

    #[test]
    fn options_take_pairs_only() {
        let given = ["team=db".to_owned()];
        assert_eq!(pairs("metadata", &given).unwrap().unwrap().to_string(), r#"{"team":"db"}"#);
        assert_eq!(pairs("metadata", &[]).unwrap(), None);
        assert!(pairs("metadata", &["x".to_owned()]).is_err());
    }
}
