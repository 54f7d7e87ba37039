//! A look at JSON before it is parsed: how deep, how wide.

/// How deep containers may lie in each other; Vault allows 10,000, no secret needs 128.
pub(crate) const MAX_DEPTH: usize = 128;
/// How many members and elements a body may have in all.
pub(crate) const MAX_MEMBERS: usize = 10_000;

/// Why a body is not even parsed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum TooComplex {
    #[error("failed to decode JSON input: exceeded max depth")]
    Deep,
    #[error("failed to decode JSON input: exceeded max members")]
    Wide,
}

/// Counts brackets and commas outside of strings. Says nothing about whether the text is JSON.
pub(crate) fn scan(text: &[u8]) -> Result<(), TooComplex> {
    let (mut depth, mut members) = (0_usize, 0_usize);
    let mut in_string = false;
    let mut bytes = text.iter();
    while let Some(byte) = bytes.next() {
        if in_string {
            match byte {
                b'\\' => {
                    bytes.next();
                }
                b'"' => in_string = false,
                _ => {}
            }
            continue;
        }
        match byte {
            b'"' => in_string = true,
            b'{' | b'[' => {
                depth += 1;
                members += 1;
            }
            b'}' | b']' => depth = depth.saturating_sub(1),
            b',' => members += 1,
            _ => {}
        }
        if depth > MAX_DEPTH {
            return Err(TooComplex::Deep);
        }
        if members > MAX_MEMBERS {
            return Err(TooComplex::Wide);
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn depth_and_width_have_bounds() {
        let deep = |depth: usize| format!("{}{}", "[".repeat(depth), "]".repeat(depth));
        assert_eq!(scan(deep(MAX_DEPTH).as_bytes()), Ok(()));
        assert_eq!(scan(deep(MAX_DEPTH + 1).as_bytes()), Err(TooComplex::Deep));
        let wide = |members: usize| format!("[{}1]", "1,".repeat(members - 1));
        assert_eq!(scan(wide(MAX_MEMBERS).as_bytes()), Ok(()));
        assert_eq!(scan(wide(MAX_MEMBERS + 1).as_bytes()), Err(TooComplex::Wide));
    }

    #[test]
    fn brackets_in_strings_do_not_count() {
        let text = format!(r#"{{"a":"{}","b\"[":"\\"}}"#, "[{,".repeat(20_000));
        assert_eq!(scan(text.as_bytes()), Ok(()));
    }
}
