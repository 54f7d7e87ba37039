//! From data to what the audit log may show of it: structure and names in clear, values hashed.

use mssm_domain::{SecretBytes, SecretText};
use mssm_messages::audit::Redacted;

use crate::body::{Body, scalar};
use crate::call::Query;
use crate::masked::masked;

/// What the data of one line may take in the log, in bytes; more of it is written as one hash.
const ROOM: usize = 256 << 10;
/// The same of who was not let in, or is not known: no flood of such fills a disk.
const ROOM_OF_REFUSED: usize = 4 << 10;
/// What a hash takes, with its quotation marks and a comma.
const HASH: usize = 79;
/// Deeper than any body may be.
const MAX_DEPTH: usize = 160;
/// Members whose values are public wherever an answer speaks of a token.
const PUBLIC: [&str; 5] =
    ["policies", "token_policies", "identity_policies", "token_type", "display_name"];

/// Collects the values of one record, to be hashed in one message.
pub(crate) struct Redactor {
    items: Vec<SecretBytes>,
    /// What a part of the record may take, and what is left of that.
    most: usize,
    room: usize,
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

/// The members that stay in clear, and whether names are hashed.
type Rules<'a> = (&'a [String], bool);

impl Redactor {
    /// For a record of who was let in, or not.
    pub(crate) fn of(allowed: bool) -> Self {
        Self::within(if allowed { ROOM } else { ROOM_OF_REFUSED })
    }

    fn within(most: usize) -> Self {
        let (names_policies, hashes_names) = (false, false);
        Self { items: Vec::new(), most, room: most, names_policies, hashes_names }
    }

    /// A value to be hashed: its place among the items, until [`fill`] puts the hash there.
    pub(crate) fn value(&mut self, text: &str) -> Redacted {
        Redacted::Hash(self.place(text))
    }

    fn place(&mut self, text: &str) -> [u8; 32] {
        let mut place = [0_u8; 32];
        let index = u64::try_from(self.items.len()).unwrap_or(u64::MAX).to_be_bytes();
        place.iter_mut().zip(index).for_each(|(slot, byte)| *slot = byte);
        self.items.push(SecretBytes::new(text.as_bytes().to_vec()));
        place
    }

    /// What came with a request as its body.
    pub(crate) fn body(&mut self, body: &Body, rules: Rules<'_>) -> Redacted {
        self.part(body.sent(), |out| {
            let mut members = Vec::new();
            for (name, raw) in body.members() {
                members.push((name.to_owned(), out.member(name, raw, rules)?));
            }
            out.map(members, rules.1)
        })
    }

    /// The values of headers: in clear where that is the rule (`true`) and there is room, else hashed.
    pub(crate) fn headers<'a>(
        &mut self,
        headers: impl Iterator<Item = (&'a String, Vec<String>, bool)>,
    ) -> Redacted {
        self.room = self.most;
        let shown = headers.map(|(name, values, clear)| {
            let values = values.into_iter().map(|value| {
                match clear.then(|| self.take_room(written(&value))).flatten() {
                    Some(()) => Redacted::Public(value),
                    None => self.value(&value),
                }
            });
            (name.clone(), Redacted::List(values.collect()))
        });
        let shown: Vec<_> = shown.collect();
        if shown.is_empty() { Redacted::Null } else { Redacted::Map(shown) }
    }

    /// What stood behind its question mark.
    pub(crate) fn query(&mut self, query: &Query, rules: Rules<'_>) -> Redacted {
        if query.iter().next().is_none() {
            return Redacted::Null;
        }
        self.part(query.sent(), |out| {
            let mut members = Vec::new();
            for (name, text) in query.iter() {
                let shown = if rules.0.contains(name) { Show::All } else { Show::Nothing };
                members.push((name.clone(), out.scalar(text, shown)?));
            }
            out.map(members, rules.1)
        })
    }

    /// A whole JSON text; what is not JSON is one value. The members that the rules name stay in
    /// clear, where they are the data's own.
    pub(crate) fn json(&mut self, text: &SecretText, rules: Rules<'_>) -> Redacted {
        // EXPOSE: every value in it is hashed before it leaves this room.
        let text = text.expose();
        self.hashes_names = rules.1;
        let redacted = self.part(text, |out| {
            let mut reader = Reader { text, at: 0, clear: rules.0 };
            reader.value(out, MAX_DEPTH, Show::Nothing)
        });
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

    /// A part of the record, or one hash of the whole if that is no JSON or would take too much.
    fn part(&mut self, whole: &str, read: impl FnOnce(&mut Self) -> Option<Redacted>) -> Redacted {
        let before = self.items.len();
        self.room = self.most;
        read(self).unwrap_or_else(|| {
            self.items.truncate(before);
            self.value(whole)
        })
    }

    /// Takes so much of the room that is left.
    fn take_room(&mut self, bytes: usize) -> Option<()> {
        self.room = self.room.checked_sub(bytes)?;
        Some(())
    }

    /// A member of data: in clear if its name is among those that may be.
    fn member(&mut self, name: &str, raw: &str, (clear, hashed): Rules<'_>) -> Option<Redacted> {
        let is_clear = clear.iter().any(|one| one == name);
        let mut reader = Reader { text: raw, at: 0, clear: &[] };
        self.hashes_names = hashed;
        let show = if is_clear { Show::All } else { Show::Nothing };
        let redacted = reader.value(self, MAX_DEPTH, show);
        self.hashes_names = false;
        redacted
    }

    fn scalar(&mut self, text: &str, show: Show) -> Option<Redacted> {
        if show == Show::Nothing {
            self.take_room(HASH)?;
            return Some(self.value(text));
        }
        self.take_room(written(text))?;
        Some(Redacted::Public(text.to_owned()))
    }

    /// The members of a map, each name once, and hashed if that is the rule.
    fn map(&mut self, members: Vec<(String, Redacted)>, hashes_names: bool) -> Option<Redacted> {
        self.take_room(BRACKETS)?;
        if !hashes_names {
            let shown =
                members.into_iter().map(|(name, value)| (masked(&name).into_owned(), value));
            let members = gathered(shown.collect());
            for (name, _) in &members {
                self.take_room(written(name))?;
            }
            return Some(Redacted::Map(members));
        }
        let mut hashed = Vec::with_capacity(members.len());
        for (name, value) in gathered(members) {
            self.take_room(HASH)?;
            hashed.push((self.place(&name), value));
        }
        Some(Redacted::HashedMap(hashed))
    }

    /// What is to be hashed.
    pub(crate) fn take(&mut self) -> Vec<SecretBytes> {
        std::mem::take(&mut self.items)
    }
}

/// What brackets take, with a comma.
const BRACKETS: usize = 3;
/// What `null` takes, with a comma.
const NULL: usize = 5;

/// What a text takes as JSON, with its quotation marks and what follows it.
fn written(text: &str) -> usize {
    // No escape is longer than six.
    let escaped = text.bytes().filter(|byte| matches!(byte, b'"' | b'\\' | ..=0x1f)).count();
    text.len().saturating_add(escaped.saturating_mul(5)).saturating_add(3)
}

/// What came under one name several times, as a list under it: the line's names are read as unique.
fn gathered(mut members: Vec<(String, Redacted)>) -> Vec<(String, Redacted)> {
    let mut names: Vec<&str> = members.iter().map(|(name, _)| name.as_str()).collect();
    names.sort_unstable();
    if names.array_windows().all(|[one, next]| one != next) {
        return members;
    }
    members.sort_by(|(one, _), (other, _)| one.cmp(other));
    let mut gathered: Vec<(String, Vec<Redacted>)> = Vec::new();
    for (name, value) in members {
        match gathered.last_mut() {
            Some((last, values)) if *last == name => values.push(value),
            _ => gathered.push((name, vec![value])),
        }
    }
    let one = |(name, mut values): (String, Vec<Redacted>)| match values.len() {
        1 => (name, values.pop().unwrap_or(Redacted::Null)),
        _ => (name, Redacted::List(values)),
    };
    gathered.into_iter().map(one).collect()
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
                if raw == "null" {
                    out.take_room(NULL)?;
                    return Some(Redacted::Null);
                }
                match plain(raw) {
                    Some(text) => out.scalar(text, show),
                    None => out.scalar(&scalar(raw)?, show),
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
            return out.map(members, false);
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
                return out.map(members, hashes_names);
            }
            if !self.eat(b',') {
                return None;
            }
        }
    }

    fn list(&mut self, out: &mut Redactor, depth: usize, show: Show) -> Option<Redacted> {
        self.at += 1;
        out.take_room(BRACKETS)?;
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
