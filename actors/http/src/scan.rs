//! A look at JSON before it is parsed: how deep, how wide, and whether its texts are texts.

/// How deep containers may lie in each other; Vault allows 10,000, no secret needs 128.
pub(crate) const MAX_DEPTH: usize = 128;
/// How many members and elements a body may have in all.
pub(crate) const MAX_MEMBERS: usize = 10_000;

/// Why a body is not even parsed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Unfit {
    #[error("failed to decode JSON input: exceeded max depth")]
    Deep,
    #[error("failed to decode JSON input: exceeded max members")]
    Wide,
    /// What is kept as raw text would be refused by whoever reads it later.
    #[error("failed to decode JSON input: half a surrogate pair")]
    Half,
}

/// Counts brackets and commas outside of strings, and looks for halves of characters in them. Says
/// nothing about whether the text is JSON.
pub(crate) fn scan(text: &[u8]) -> Result<(), Unfit> {
    let (mut depth, mut members) = (0_usize, 0_usize);
    let mut in_string = false;
    let mut bytes = text.iter();
    while let Some(byte) = bytes.next() {
        if in_string {
            match byte {
                b'\\' => escape(&mut bytes)?,
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
            return Err(Unfit::Deep);
        }
        if members > MAX_MEMBERS {
            return Err(Unfit::Wide);
        }
    }
    Ok(())
}

/// Passes over what follows a backslash.
fn escape(bytes: &mut std::slice::Iter<'_, u8>) -> Result<(), Unfit> {
    if bytes.next() != Some(&b'u') {
        return Ok(());
    }
    match unit(bytes) {
        Some(0xd800..=0xdbff) => {
            let pair = (bytes.next(), bytes.next()) == (Some(&b'\\'), Some(&b'u'));
            let low = pair.then(|| unit(bytes)).flatten();
            low.filter(|low| (0xdc00..=0xdfff).contains(low)).map(drop).ok_or(Unfit::Half)
        }
        Some(0xdc00..=0xdfff) => Err(Unfit::Half),
        _ => Ok(()),
    }
}

/// Four hexadecimal digits; what is none of them is for the parser to refuse.
fn unit(bytes: &mut std::slice::Iter<'_, u8>) -> Option<u32> {
    let (digits, rest) = bytes.as_slice().split_at_checked(4)?;
    *bytes = rest.iter();
    digits.iter().try_fold(0, |sum, digit| Some(sum * 16 + char::from(*digit).to_digit(16)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Catalogue: CVE-2025-6203, CVE-2025-59043.
    #[test]
    fn depth_and_width_have_bounds() {
        let deep = |depth: usize| format!("{}{}", "[".repeat(depth), "]".repeat(depth));
        assert_eq!(scan(deep(MAX_DEPTH).as_bytes()), Ok(()));
        assert_eq!(scan(deep(MAX_DEPTH + 1).as_bytes()), Err(Unfit::Deep));
        let wide = |members: usize| format!("[{}1]", "1,".repeat(members - 1));
        assert_eq!(scan(wide(MAX_MEMBERS).as_bytes()), Ok(()));
        assert_eq!(scan(wide(MAX_MEMBERS + 1).as_bytes()), Err(Unfit::Wide));
    }

    #[test]
    fn brackets_in_strings_do_not_count() {
        let text = format!(r#"{{"a":"{}","b\"[":"\\"}}"#, "[{,".repeat(20_000));
        assert_eq!(scan(text.as_bytes()), Ok(()));
    }

    #[test]
    fn half_a_character_is_refused_wherever_it_stands() {
        for whole in [r"\ud83d\udd11", r"\u0041", r"\\ud800", r"\uD83D\uDD11x", r"\n"] {
            assert_eq!(scan(format!("{{\"a\":[\"{whole}\"]}}").as_bytes()), Ok(()), "{whole}");
        }
        for half in [r"\ud800", r"\udc00", r"\ud800x", r"\ud800\u0041", r"\ud800\ud800", r"\uD8"] {
            let scanned = scan(format!("{{\"a\":[\"{half}\"]}}").as_bytes());
            // What is too short to be an escape is the parser's to refuse.
            assert_eq!(scanned.is_err(), half.len() > 4, "{half}");
        }
    }
}
