//! Turns Vault's single-dash long flags (`-format json`) into the double-dash ones that clap reads.

use std::ffi::OsString;

use super::failure::Failure;

/// Normalises the arguments of a process, the program's name first.
///
/// What follows a lone `--` is left alone. An argument that is not UTF-8 is refused.
pub(crate) fn normalise(
    arguments: impl IntoIterator<Item = OsString>,
) -> Result<Vec<String>, Failure> {
    let mut plain = Vec::new();
    let mut verbatim = false;
    for argument in arguments {
        // The argument is not repeated: it may hold a secret's value.
        let text = argument.into_string().map_err(|_| {
            Failure::usage("an argument is not UTF-8: give such a value as k=@FILE")
        })?;
        verbatim = verbatim || text == "--";
        plain.push(if verbatim { text } else { lengthened(text) });
    }
    Ok(plain)
}

/// `-name` with more than one letter becomes `--name`; all else stays.
fn lengthened(text: String) -> String {
    let Some(rest) = text.strip_prefix('-') else { return text };
    let name = rest.split('=').next().unwrap_or_default();
    let is_long = name.len() > 1 && name.starts_with(|first: char| first.is_ascii_alphabetic());
    if is_long { format!("-{text}") } else { text }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn normalised(arguments: &[&str]) -> Vec<String> {
        normalise(arguments.iter().map(OsString::from)).unwrap()
    }

    #[test]
    fn long_flags_with_one_dash_get_the_second() {
        let given = ["mssm", "kv", "get", "-format", "json", "-field=password", "a/b"];
        let expected = ["mssm", "kv", "get", "--format", "json", "--field=password", "a/b"];
        assert_eq!(normalised(&given), expected);
    }

    #[test]
    fn short_flags_double_dashes_stdin_and_numbers_stay() {
        let given = ["mssm", "-h", "--help", "-", "-1", "-f=x", "k=-v", "k=-"];
        assert_eq!(normalised(&given), given);
    }

    #[test]
    fn nothing_changes_after_a_lone_double_dash() {
        assert_eq!(
            normalised(&["mssm", "-cas=1", "--", "-key=v"]),
            ["mssm", "--cas=1", "--", "-key=v"]
        );
    }

    #[cfg(unix)]
    #[test]
    fn an_argument_that_is_not_utf_8_is_refused_and_not_repeated() {
        use std::os::unix::ffi::OsStringExt;
        let failure = normalise([OsString::from_vec(b"hunter2\xff".to_vec())]).unwrap_err();
        assert!(!failure.message().contains("hunter2"));
    }
}
