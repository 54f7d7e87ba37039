//! What leaves: a status and Vault's envelope around the data.

use actix_web::http::StatusCode;
use mssm_domain::{LeaseId, RequestId, SecretText};

use crate::handed::Handed;
use crate::json::Object;
use crate::limits::Reservation;
use crate::masked::masked;

/// How an answer's data lie in its body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Shape {
    /// No body.
    Empty,
    /// The data alone.
    Bare,
    /// Vault's envelope.
    Envelope,
    /// The envelope, and the members of the data beside it once more.
    Double,
    /// The data are text for a machine other than a client.
    Plain,
    /// `{"errors":[…]}`.
    Errors,
}

/// What an answer says of a lease.
#[derive(Debug)]
pub(crate) struct LeasePart {
    /// Which.
    pub(crate) id: LeaseId,
    /// True if it can be renewed.
    pub(crate) renewable: bool,
    /// How many seconds it lives.
    pub(crate) seconds: u64,
}

/// An answer, not yet rendered: the audit looks at its parts.
#[derive(Debug)]
pub(crate) struct Answer {
    /// The status.
    pub(crate) status: StatusCode,
    shape: Shape,
    /// JSON text of the data.
    pub(crate) data: Option<SecretText>,
    /// JSON text of what is said of a token.
    pub(crate) auth: Option<SecretText>,
    /// A lease.
    pub(crate) lease: Option<LeasePart>,
    lease_duration: u64,
    /// For the caller.
    pub(crate) warnings: Vec<String>,
    /// Why not.
    pub(crate) errors: Vec<String>,
    /// What ends if this answer does not reach its caller.
    pub(crate) handed: Option<Handed>,
    /// Its part of what all answers may take together.
    pub(crate) held: Option<Reservation>,
    /// True if the connection ends with this answer.
    pub(crate) close: bool,
    /// How many seconds anybody may keep it; most may not be kept at all.
    pub(crate) max_age: Option<u64>,
    mount_type: &'static str,
}

impl Answer {
    fn new(status: StatusCode, shape: Shape) -> Self {
        Self {
            status,
            shape,
            data: None,
            auth: None,
            lease: None,
            lease_duration: 0,
            warnings: Vec::new(),
            errors: Vec::new(),
            handed: None,
            held: None,
            close: false,
            max_age: None,
            mount_type: "",
        }
    }

    /// Done, nothing to say: 204.
    pub(crate) fn done() -> Self {
        Self::new(StatusCode::NO_CONTENT, Shape::Empty)
    }

    /// Done, or done with warnings.
    pub(crate) fn done_with(warnings: Vec<String>) -> Self {
        Self { warnings, ..Self::done() }
    }

    /// Data in the envelope.
    pub(crate) fn data(data: Object) -> Self {
        Self { data: Some(data.finish()), ..Self::new(StatusCode::OK, Shape::Envelope) }
    }

    /// JSON text in the envelope.
    pub(crate) fn json(data: SecretText) -> Self {
        Self { data: Some(data), ..Self::new(StatusCode::OK, Shape::Envelope) }
    }

    /// Data in the envelope and beside it.
    pub(crate) fn double(data: Object) -> Self {
        Self { data: Some(data.finish()), ..Self::new(StatusCode::OK, Shape::Double) }
    }

    /// Data without envelope.
    pub(crate) fn bare(data: Object) -> Self {
        Self { data: Some(data.finish()), ..Self::new(StatusCode::OK, Shape::Bare) }
    }

    /// Names, as lists give them.
    pub(crate) fn keys<I>(keys: I) -> Self
    where
        I: IntoIterator,
        I::Item: AsRef<str>,
    {
        Self::data(Object::new().texts("keys", keys))
    }

    /// An envelope with nothing in it.
    pub(crate) fn empty_envelope() -> Self {
        Self::new(StatusCode::OK, Shape::Envelope)
    }

    /// Text for a machine.
    pub(crate) fn plain(text: String) -> Self {
        Self { data: Some(SecretText::new(text)), ..Self::new(StatusCode::OK, Shape::Plain) }
    }

    /// What is said of a token.
    pub(crate) fn auth(auth: Object) -> Self {
        Self { auth: Some(auth.finish()), ..Self::empty_envelope() }
    }

    /// A refusal.
    pub(crate) fn errors(status: StatusCode, errors: Vec<String>, close: bool) -> Self {
        // Some repeat a name that was sent; the audit log has them in clear.
        let errors = errors.iter().map(|error| masked(error).into_owned()).collect();
        Self { errors, close, ..Self::new(status, Shape::Errors) }
    }

    /// With another status.
    pub(crate) fn with_status(self, status: StatusCode) -> Self {
        Self { status, ..self }
    }

    /// With a lifetime though there is no lease (kv version 1).
    pub(crate) fn with_lease_duration(self, seconds: u64) -> Self {
        Self { lease_duration: seconds, ..self }
    }

    /// With a lease.
    pub(crate) fn with_lease(self, lease: LeasePart) -> Self {
        Self { lease: Some(lease), ..self }
    }

    /// One that anybody may see and keep for so many seconds.
    pub(crate) fn for_all(self, max_age: u64) -> Self {
        Self { max_age: Some(max_age), ..self }
    }

    /// With what ends if this does not reach its caller.
    pub(crate) fn with_handed(self, handed: Handed) -> Self {
        Self { handed: Some(handed), ..self }
    }

    /// With its part of what all answers may take together.
    pub(crate) fn with_held(self, held: Option<Reservation>) -> Self {
        Self { held, ..self }
    }

    /// With more warnings.
    pub(crate) fn warn(mut self, warnings: Vec<String>) -> Self {
        self.warnings.extend(warnings);
        self
    }

    /// With the kind of the mount that answered.
    pub(crate) fn of_mount(self, mount_type: &'static str) -> Self {
        Self { mount_type, ..self }
    }

    /// True if the data are JSON that the audit can look at.
    pub(crate) fn has_json(&self) -> bool {
        self.shape != Shape::Plain
    }

    /// The status that is sent: a 204 cannot carry a warning, a 200 can.
    pub(crate) fn sent_status(&self) -> StatusCode {
        let warns = !self.warnings.is_empty() && self.shape == Shape::Empty;
        if warns && self.status == StatusCode::NO_CONTENT { StatusCode::OK } else { self.status }
    }

    /// The media type of the body.
    pub(crate) fn content_type(&self) -> &'static str {
        match self.shape {
            Shape::Plain => "text/plain; version=0.0.4; charset=utf-8",
            Shape::Empty | Shape::Bare | Shape::Envelope | Shape::Double | Shape::Errors => {
                "application/json"
            }
        }
    }

    /// The body, if there is one.
    pub(crate) fn render(&self, request: RequestId) -> Option<SecretText> {
        match self.shape {
            Shape::Empty if self.warnings.is_empty() => None,
            Shape::Bare | Shape::Plain => self.data.as_ref().map(SecretText::duplicate),
            Shape::Errors => Some(Object::new().texts("errors", &self.errors).finish()),
            Shape::Empty | Shape::Envelope | Shape::Double => Some(self.envelope(request)),
        }
    }

    /// About how many bytes its body has.
    pub(crate) fn size(&self) -> usize {
        // EXPOSE: its length is counted.
        let text = |part: &Option<SecretText>| part.as_ref().map_or(0, |text| text.expose().len());
        let double = if self.shape == Shape::Double { 2 } else { 1 };
        let told: usize = self.warnings.iter().chain(&self.errors).map(|one| one.len() + 3).sum();
        320 + double * text(&self.data) + text(&self.auth) + told
    }

    fn envelope(&self, request: RequestId) -> SecretText {
        let size = self.size();
        let lease = self.lease.as_ref();
        let mut object = Object::sized(size)
            .text("request_id", &request.to_string())
            .text("lease_id", lease.map_or("", |lease| lease.id.as_str()))
            .flag("renewable", lease.is_some_and(|lease| lease.renewable))
            .number("lease_duration", lease.map_or(self.lease_duration, |lease| lease.seconds));
        object = Self::part(object, "data", self.data.as_ref()).null("wrap_info");
        object = if self.warnings.is_empty() {
            object.null("warnings")
        } else {
            object.texts("warnings", &self.warnings)
        };
        object = Self::part(object, "auth", self.auth.as_ref()).text("mount_type", self.mount_type);
        if let (Shape::Double, Some(data)) = (self.shape, &self.data) {
            // EXPOSE: as above.
            object = object.merge(data.expose());
        }
        object.finish()
    }

    fn part(object: Object, key: &str, part: Option<&SecretText>) -> Object {
        match part {
            // EXPOSE: the body of the answer is where data and auth are meant to go.
            Some(part) => object.raw(key, part.expose()),
            None => object.null(key),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request() -> RequestId {
        RequestId::parse("00000000-0000-4000-8000-000000000000").unwrap()
    }

    fn body(answer: &Answer) -> serde_json::Value {
        serde_json::from_str(answer.render(request()).unwrap().expose()).unwrap()
    }

    #[test]
    fn the_envelope_always_has_all_its_keys() {
        let body = body(&Answer::data(Object::new().text("a", "b")));
        for key in [
            "request_id",
            "lease_id",
            "renewable",
            "lease_duration",
            "data",
            "wrap_info",
            "warnings",
            "auth",
            "mount_type",
        ] {
            assert!(body.get(key).is_some(), "{key}");
        }
        assert_eq!(body["data"]["a"], "b");
        assert!(body["auth"].is_null());
    }

    #[test]
    fn a_warning_turns_an_empty_answer_into_an_envelope() {
        assert!(Answer::done().render(request()).is_none());
        assert_eq!(Answer::done().sent_status(), StatusCode::NO_CONTENT);
        let answer = Answer::done_with(vec!["mind the gap".to_owned()]);
        assert_eq!(answer.sent_status(), StatusCode::OK);
        assert_eq!(body(&answer)["warnings"][0], "mind the gap");
    }

    #[test]
    fn the_old_double_shape_repeats_the_data() {
        let body = body(&Answer::double(Object::new().number("term", 1)));
        assert_eq!(body["term"], body["data"]["term"]);
    }

    #[test]
    fn a_size_is_no_less_than_the_body_and_not_much_more() {
        let long = "x".repeat(1_000);
        let data = || Object::new().text("a", &long);
        for answer in [
            Answer::data(data()),
            Answer::double(data()),
            Answer::bare(data()),
            Answer::auth(data()),
            Answer::done_with(vec![long.clone(); 3]),
            Answer::data(data()).warn(vec![long.clone()]),
            Answer::errors(StatusCode::BAD_REQUEST, vec![long.clone(); 3], false),
        ] {
            let length = answer.render(request()).unwrap().expose().len();
            assert!((length..length + 500).contains(&answer.size()), "{length}: {answer:?}");
        }
    }

    #[test]
    fn errors_are_a_list_even_when_there_is_none() {
        let answer = Answer::errors(StatusCode::NOT_FOUND, Vec::new(), false);
        assert_eq!(answer.render(request()).unwrap().expose(), "{\"errors\":[]}");
    }
}
