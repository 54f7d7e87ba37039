//! A form, as curl sends it unless told otherwise, read as the JSON object it means.

use std::borrow::Cow;
use std::collections::BTreeMap;

use mssm_domain::{SecretBytes, SecretText};
use percent_encoding::percent_decode_str;

use crate::error::Refusal;
use crate::json::Object;

/// How long a form may be: they are written by hand, and grow when they become JSON.
const MAX_FORM: usize = 64 * 1024;

/// Decodes one name or value of a form or a query; `None` if it is not UTF-8.
pub(crate) fn decode(text: &str) -> Option<String> {
    let spaced = SecretText::new(text.replace('+', " "));
    // EXPOSE: whoever asked has the encoded text already.
    percent_decode_str(spaced.expose()).decode_utf8().ok().map(Cow::into_owned)
}

/// Whether a body that is said to be a form is one: `curl -d '{..}'` says so too.
fn is_form(text: &str) -> bool {
    let text = text.trim_ascii_start();
    text.contains('=') && !text.starts_with(['{', '[', '"'])
}

/// The JSON text of a form: values are texts, and lists where a name comes more than once. What is
/// no form stays what it is.
pub(crate) fn into_json(bytes: SecretBytes) -> Result<SecretBytes, Refusal> {
    // EXPOSE: parsing reads what was sent.
    let Some(text) = std::str::from_utf8(bytes.expose()).ok().filter(|text| is_form(text)) else {
        return Ok(bytes);
    };
    if text.len() > MAX_FORM {
        return Err(Refusal::invalid("a form may have 64 KiB; send JSON"));
    }
    let mut fields: BTreeMap<String, Vec<SecretText>> = BTreeMap::new();
    for pair in text.trim_ascii().split('&').filter(|pair| !pair.is_empty()) {
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        let decoded = decode(name).zip(decode(value));
        let (name, value) = decoded.ok_or_else(|| Refusal::invalid("the form is not UTF-8"))?;
        fields.entry(name).or_default().push(SecretText::new(value));
    }
    let object = Object::sized(text.len().saturating_mul(2));
    let object = fields.iter().fold(object, |object, (name, values)| match values.as_slice() {
        [value] => object.secret(name, value),
        // EXPOSE: moves into the body, another secret.
        values => object.texts(name, values.iter().map(SecretText::expose)),
    });
    Ok(object.finish().into_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn json(form: &str) -> String {
        let bytes = into_json(SecretBytes::new(form.as_bytes().to_vec())).unwrap();
        String::from_utf8(bytes.expose().to_vec()).unwrap()
    }

    #[test]
    fn a_form_becomes_an_object_of_texts() {
        assert_eq!(json("a=1&b=x+y%26z&c"), r#"{"a":"1","b":"x y&z","c":""}"#);
        assert_eq!(json("policies=a&policies=b"), r#"{"policies":["a","b"]}"#);
        assert_eq!(json("q=%22%0a"), "{\"q\":\"\\\"\\n\"}");
    }

    #[test]
    fn json_that_is_called_a_form_stays_json() {
        for text in ["", " {\"a\":\"b=c\"}", "[1]", "null", "{\"a\"", "nonsense"] {
            assert_eq!(json(text), text);
        }
    }

    #[test]
    fn a_form_has_bounds_and_is_utf_8() {
        let long = format!("a={}", "x".repeat(MAX_FORM));
        for bad in [long.as_str(), "a=%ff", "%ff=a"] {
            let refusal = into_json(SecretBytes::new(bad.as_bytes().to_vec())).unwrap_err();
            assert_eq!(refusal.status.as_u16(), 400);
        }
    }
}
