//! Takes out of a text what has the shape of a token, before the text is written down or sent back.

use std::borrow::Cow;

/// What stands in a token's place.
pub(crate) const MASK: &str = "<token>";
/// How tokens begin: ours, and those of servers whose clients are pointed here.
const BEGINNINGS: [&str; 6] = ["s.", "b.", "r.", "hvs.", "hvb.", "hvr."];
/// What follows in the shortest token.
const REST: usize = 24;

/// The text without its tokens, wherever in it they stand.
pub(crate) fn masked(text: &str) -> Cow<'_, str> {
    let mut shown = String::new();
    let (mut kept, mut at) = (0, 0);
    while let Some(dot) = text.get(at..).and_then(|rest| rest.find('.')) {
        let end = at + dot + 1;
        at = end;
        let (before, after) = text.split_at_checked(end).unwrap_or((text, ""));
        let rest = after.bytes().take_while(|byte| is_word(*byte)).count();
        let begins = |beginning: &&&str| {
            let before = before.strip_suffix(**beginning);
            before.is_some_and(|before| {
                !before.bytes().next_back().is_some_and(|byte| byte.is_ascii_alphanumeric())
            })
        };
        if let Some(beginning) = BEGINNINGS.iter().find(begins).filter(|_| rest >= REST) {
            shown.push_str(text.get(kept..end - beginning.len()).unwrap_or_default());
            shown.push_str(MASK);
            (kept, at) = (end + rest, end + rest);
        }
    }
    if kept == 0 {
        return Cow::Borrowed(text);
    }
    shown.push_str(text.get(kept..).unwrap_or_default());
    Cow::Owned(shown)
}

const fn is_word(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_has_the_shape_of_a_token_is_taken_out_and_nothing_else() {
        const REST: &str = "c4naryVALUEc4naryVALUE00";
        for (text, shown) in [
            ("secret/data/s.REST", "secret/data/<token>"),
            ("s.REST/a/hvs.REST-_REST", "<token>/a/<token>"),
            (
                "no handler for route \"x/s.REST\". route entry",
                "no handler for route \"x/<token>\". route entry",
            ),
            ("a=s.REST,b=hvb.REST", "a=<token>,b=<token>"),
            ("a-s.REST/b_s.REST", "a-<token>/b_<token>"),
            ("s.s.REST.REST", "s.<token>.REST"),
            ("é/s.REST/é", "é/<token>/é"),
            // Names of files and of hosts are none.
            ("secret/data/s.short", "secret/data/s.short"),
            ("tables.REST", "tables.REST"),
            ("a..b.s.", "a..b.s."),
            ("", ""),
        ] {
            let (text, shown) = (text.replace("REST", REST), shown.replace("REST", REST));
            assert_eq!(masked(&text), shown, "{text}");
        }
    }
}
