//! From data to what the audit log may show of it: structure and names in clear, values hashed.

use mssm_domain::SecretBytes;
use mssm_domain::SecretText;
use mssm_messages::audit::Redacted;

use crate::body::scalar;

/// More values than this in one record are hidden, not hashed, so that a record stays bounded.
const MAX_VALUES: usize = 16_384;
/// Deeper than any body may be.
const MAX_DEPTH: usize = 160;
/// Members whose values are public wherever an answer speaks of a token.
const PUBLIC: [&str; 5] =
    ["policies", "token_policies", "identity_policies", "token_type", "display_name"];

/// Collects the values of one record, to be hashed in one message.
#[derive(Default)]
pub(crate) struct Redactor {
    items: Vec<SecretBytes>,
    /// True to leave in clear what [`PUBLIC`] names.
    names_policies: bool,
    /// True to hash the names of members as well.
    hashes_names: bool,
}

/// What of a value is left in clear.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Show {
    Nothing,
    /// Scalars, and those of a list.
    Scalars,
    All,
}

impl Redactor {
    /// A value to be hashed: its place among the items, until [`fill`] puts the hash there.
    pub(crate) fn value(&mut self, text: &str) -> Redacted {
        self.place(text).map_or(Redacted::Hidden, Redacted::Hash)
    }

    fn place(&mut self, text: &str) -> Option<[u8; 32]> {
        if self.items.len() >= MAX_VALUES {
            return None;
        }
        let mut place = [0_u8; 32];
        let index = u64::try_from(self.items.len()).unwrap_or(u64::MAX).to_be_bytes();
        place.iter_mut().zip(index).for_each(|(slot, byte)| *slot = byte);
        self.items.push(SecretBytes::new(text.as_bytes().to_vec()));
        Some(place)
    }

    /// A member of data: in clear if its name is among those that may be.
    pub(crate) fn member(&mut self, name: &str, raw: &str, rules: (&[String], bool)) -> Redacted {
        let (clear, hashes_names) = rules;
        if clear.iter().any(|one| one == name) {
            let mut reader = Reader { text: raw, at: 0, clear: &[] };
            let shown = reader.value(self, MAX_DEPTH, Show::All);
            return shown.unwrap_or_else(|| self.value(raw));
        }
        self.hashes_names = hashes_names;
        let redacted = self.document(raw);
        self.hashes_names = false;
        redacted
    }

    /// The members of data, their names hashed if that is the rule.
    pub(crate) fn map(&mut self, members: Vec<(String, Redacted)>, hashes_names: bool) -> Redacted {
        if !hashes_names {
            return Redacted::Map(members);
        }
        let mut hashed = Vec::with_capacity(members.len());
        for (name, value) in members {
            // Too many to be hashed: the whole is hidden.
            let Some(place) = self.place(&name) else { return Redacted::Hidden };
            hashed.push((place, value));
        }
        Redacted::HashedMap(hashed)
    }

    /// A whole JSON text; what is not JSON is one value. The members that the rules name stay in
    /// clear, where they are the data's own.
    pub(crate) fn json(&mut self, text: &SecretText, rules: (&[String], bool)) -> Redacted {
        self.hashes_names = rules.1;
        // EXPOSE: every value in it is hashed before it leaves this room.
        let text = text.expose();
        let mut reader = Reader { text, at: 0, clear: rules.0 };
        let read = reader.value(self, MAX_DEPTH, Show::Nothing);
        let redacted = read.unwrap_or_else(|| self.value(text));
        self.hashes_names = false;
        redacted
    }

    /// What an answer says of a token: policies stay readable.
    pub(crate) fn auth(&mut self, text: &SecretText) -> Redacted {
        self.names_policies = true;
        let redacted = self.json(text, (&[], false));
        self.names_policies = false;
        redacted
    }

    /// Raw JSON text.
    pub(crate) fn document(&mut self, text: &str) -> Redacted {
        let mut reader = Reader { text, at: 0, clear: &[] };
        reader.value(self, MAX_DEPTH, Show::Nothing).unwrap_or_else(|| self.value(text))
    }

    /// What is to be hashed.
    pub(crate) fn take(&mut self) -> Vec<SecretBytes> {
        std::mem::take(&mut self.items)
    }
}

/// Puts the hashes where their values were; without hashes (sealed) values are hidden.
pub(crate) fn fill(redacted: &mut Redacted, hashes: Option<&[[u8; 32]]>) {
    match redacted {
        Redacted::Hash(place) => match hashes.and_then(|hashes| hashes.get(index(place))) {
            Some(hash) => *place = *hash,
            None => *redacted = Redacted::Hidden,
        },
        Redacted::List(items) => items.iter_mut().for_each(|item| fill(item, hashes)),
        Redacted::Map(members) => members.iter_mut().for_each(|(_, item)| fill(item, hashes)),
        Redacted::HashedMap(members) => {
            for (name, item) in members.iter_mut() {
                let Some(hash) = hashes.and_then(|hashes| hashes.get(index(name))) else {
                    *redacted = Redacted::Hidden;
                    return;
                };
                *name = *hash;
                fill(item, hashes);
            }
        }
        Redacted::Null | Redacted::Hidden | Redacted::Public(_) => {}
    }
}

/// The hash of a single value.
pub(crate) fn hash_of(redacted: &Redacted, hashes: Option<&[[u8; 32]]>) -> Option<[u8; 32]> {
    match redacted {
        Redacted::Hash(place) => hashes?.get(index(place)).copied(),
        _ => None,
    }
}

fn index(place: &[u8; 32]) -> usize {
    let number = place.iter().take(8).fold(0_u64, |sum, byte| (sum << 8) | u64::from(*byte));
    usize::try_from(number).unwrap_or(usize::MAX)
}

/// Walks JSON text that has been checked before.
struct Reader<'a> {
    text: &'a str,
    at: usize,
    /// Members of the outermost map that stay in clear.
    clear: &'a [String],
}

impl<'a> Reader<'a> {
    fn peek(&mut self) -> Option<u8> {
        let bytes = self.text.as_bytes();
        while bytes.get(self.at).is_some_and(u8::is_ascii_whitespace) {
            self.at += 1;
        }
        bytes.get(self.at).copied()
    }

    fn eat(&mut self, byte: u8) -> bool {
        let found = self.peek() == Some(byte);
        self.at += usize::from(found);
        found
    }

    fn value(&mut self, out: &mut Redactor, depth: usize, show: Show) -> Option<Redacted> {
        let depth = depth.checked_sub(1)?;
        match self.peek()? {
            b'{' => self.map(out, depth, show),
            b'[' => self.list(out, depth, show),
            _ => {
                let raw = self.token()?;
                match (raw, show) {
                    ("null", _) => Some(Redacted::Null),
                    (raw, Show::Scalars | Show::All) => scalar(raw).map(Redacted::Public),
                    (raw, Show::Nothing) => Some(match plain(raw) {
                        Some(text) => out.value(text),
                        None => out.value(&scalar(raw)?),
                    }),
                }
            }
        }
    }

    fn map(&mut self, out: &mut Redactor, depth: usize, show: Show) -> Option<Redacted> {
        self.at += 1;
        // Rules are for the outermost map alone.
        let clear = std::mem::take(&mut self.clear);
        let mut members = Vec::new();
        if self.eat(b'}') {
            return Some(Redacted::Map(members));
        }
        loop {
            self.peek()?;
            let name = scalar(self.token()?)?;
            if !self.eat(b':') {
                return None;
            }
            let below = if show == Show::All || clear.contains(&name) {
                Show::All
            } else if out.names_policies && PUBLIC.contains(&name.as_str()) {
                Show::Scalars
            } else {
                Show::Nothing
            };
            let value = self.value(out, depth, below)?;
            members.push((name, value));
            if self.eat(b'}') {
                let hashes_names = out.hashes_names && show != Show::All;
                return Some(out.map(members, hashes_names));
            }
            if !self.eat(b',') {
                return None;
            }
        }
    }

    fn list(&mut self, out: &mut Redactor, depth: usize, show: Show) -> Option<Redacted> {
        self.at += 1;
        let mut items = Vec::new();
        if self.eat(b']') {
            return Some(Redacted::List(items));
        }
        loop {
            items.push(self.value(out, depth, show)?);
            if self.eat(b']') {
                return Some(Redacted::List(items));
            }
            if !self.eat(b',') {
                return None;
            }
        }
    }

    /// The raw text of the scalar that begins here.
    fn token(&mut self) -> Option<&'a str> {
        let start = self.at;
        let bytes = self.text.as_bytes();
        if bytes.get(start) == Some(&b'"') {
            let mut at = start + 1;
            loop {
                match bytes.get(at)? {
                    b'\\' => at += 2,
                    b'"' => break,
                    _ => at += 1,
                }
            }
            self.at = at + 1;
        } else {
            let ends = |byte: &u8| byte.is_ascii_whitespace() || matches!(byte, b',' | b'}' | b']');
            let length = bytes.get(start..)?.iter().position(ends);
            self.at = length.map_or(bytes.len(), |length| start + length);
            if self.at == start {
                return None;
            }
        }
        self.text.get(start..self.at)
    }
}

/// The text of a scalar that needs no unescaping, without a copy.
fn plain(raw: &str) -> Option<&str> {
    match raw.strip_prefix('"') {
        Some(text) if !text.contains('\\') => text.strip_suffix('"'),
        Some(_) => None,
        None => Some(raw),
    }
}

#[cfg(test)]
mod tests;
