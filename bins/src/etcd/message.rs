//! The messages of etcd's API as JSON: bytes are in base64, 64-bit numbers are strings, and what is 0 may be missing.

use std::borrow::Cow;

use base64ct::{Base64, Encoding as _};
use serde::{Deserialize, Deserializer, de::Error as _};
use serde_json::Value;

/// What begins each answer.
#[derive(Debug, Default, Deserialize)]
pub(crate) struct Header {
    /// The revision of the store.
    #[serde(default, deserialize_with = "number")]
    pub(crate) revision: i64,
}

/// The answer to `kv/range`.
#[derive(Debug, Deserialize)]
pub(crate) struct Range {
    pub(crate) header: Header,
    #[serde(default)]
    pub(crate) kvs: Vec<KeyValue>,
    /// Whether further keys follow.
    #[serde(default)]
    pub(crate) more: bool,
}

/// A key with its value.
#[derive(Debug, Deserialize)]
pub(crate) struct KeyValue {
    #[serde(deserialize_with = "bytes")]
    pub(crate) key: Vec<u8>,
    #[serde(default, deserialize_with = "bytes")]
    pub(crate) value: Vec<u8>,
    /// The revision of its last change.
    #[serde(default, deserialize_with = "number")]
    pub(crate) mod_revision: i64,
}

/// A line of the answer to `watch`.
#[derive(Debug, Deserialize)]
pub(crate) struct WatchLine {
    pub(crate) result: Option<Watch>,
    /// The reason why the stream ends.
    pub(crate) error: Option<Value>,
}

/// A message of a watch.
#[derive(Debug, Deserialize)]
pub(crate) struct Watch {
    #[serde(default)]
    pub(crate) header: Header,
    #[serde(default)]
    pub(crate) created: bool,
    #[serde(default)]
    pub(crate) canceled: bool,
    #[serde(default)]
    pub(crate) cancel_reason: String,
    /// The oldest revision that can be watched, if an older one was requested.
    #[serde(default, deserialize_with = "number")]
    pub(crate) compact_revision: i64,
    /// Whether more events of the last revision follow.
    #[serde(default)]
    pub(crate) fragment: bool,
    #[serde(default)]
    pub(crate) events: Vec<Event>,
}

/// A change of a key.
#[derive(Debug, Deserialize)]
pub(crate) struct Event {
    /// `DELETE`; otherwise the key was put.
    #[serde(default, rename = "type")]
    pub(crate) kind: String,
    pub(crate) kv: KeyValue,
}

/// The answer to `auth/authenticate`.
#[derive(Debug, Deserialize)]
pub(crate) struct Login {
    pub(crate) token: String,
}

/// Returns the text of an error. Its form depends on the version of etcd.
pub(crate) fn error_text(error: &Value) -> Option<&str> {
    error.as_str().or_else(|| error.get("message")?.as_str()).or_else(|| error.get("error")?.as_str())
}

/// Encodes bytes.
pub(crate) fn encode(bytes: &[u8]) -> String {
    Base64::encode_string(bytes)
}

fn bytes<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<u8>, D::Error> {
    let text = Cow::<str>::deserialize(deserializer)?;
    Base64::decode_vec(&text).map_err(D::Error::custom)
}

fn number<'de, D: Deserializer<'de>>(deserializer: D) -> Result<i64, D::Error> {
    let text = Cow::<str>::deserialize(deserializer)?;
    text.parse().map_err(D::Error::custom)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_answers() {
        let json =
            r#"{"header":{"revision":"4"},"kvs":[{"key":"L2E=","mod_revision":"3","value":"djE="}],"count":"3"}"#;
        let range: Range = serde_json::from_str(json).expect("an answer");
        assert_eq!((range.header.revision, range.more, &*range.kvs[0].value), (4, false, &b"v1"[..]));
        let json = r#"{"result":{"header":{"revision":"5"},"events":[{"type":"DELETE","kv":{"key":"L2E=","mod_revision":"5"}}]}}"#;
        let watch = serde_json::from_str::<WatchLine>(json).expect("a line").result.expect("a message");
        assert_eq!((&*watch.events[0].kind, &*watch.events[0].kv.key), ("DELETE", &b"/a"[..]));
        for json in [r#"{"kv":{"key":"?"}}"#, r#"{"kv":{"key":"L2E=","mod_revision":"x"}}"#, "{}"] {
            assert!(serde_json::from_str::<Event>(json).is_err(), "{json}");
        }
    }

    #[test]
    fn finds_the_text_of_an_error() {
        for json in [r#""x""#, r#"{"message":"x"}"#, r#"{"error":"x","message":"x"}"#, r#"{"error":"x"}"#] {
            assert_eq!(error_text(&serde_json::from_str(json).expect("JSON")), Some("x"));
        }
        assert_eq!(error_text(&Value::Null), None);
    }
}
