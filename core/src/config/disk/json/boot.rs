//! Parses the object `boot` of a description.

use core::fmt;

use heapless::Vec;
use serde::de::{DeserializeSeed, Deserializer, MapAccess, SeqAccess, Visitor};

use super::progress::{NumberSeed, Progress};
use crate::config::disk::{
    error::Problem,
    model::{BootConfig, MAX_REMOVED, MAX_TIMEOUT, Word},
    placeholder::{Board, Placeholders},
    values::{parse_append, parse_default, parse_word},
};

/// The object `boot`.
pub(super) struct BootSeed<'t> {
    pub(super) progress: &'t Progress,
    pub(super) board: Option<&'t Board<'t>>,
}

enum BootField {
    Append,
    Remove,
    Default,
    Timeout,
}

impl<'de> DeserializeSeed<'de> for BootSeed<'_> {
    type Value = BootConfig;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<BootConfig, D::Error> {
        self.progress.reach_token();
        deserializer.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for BootSeed<'_> {
    type Value = BootConfig;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("what differs from the boot entries")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<BootConfig, A::Error> {
        let progress = self.progress;
        let key = |name: &str| match name {
            "append" => Ok(BootField::Append),
            "remove" => Ok(BootField::Remove),
            "default" => Ok(BootField::Default),
            "timeout" => Ok(BootField::Timeout),
            _ => Err(Problem::UnknownField("append, remove, default and timeout")),
        };
        let (mut append, mut remove, mut default, mut timeout) = (None, None, None, None);
        let mut placeholders = Placeholders::new();
        while let Some(field) = map.next_key_seed(progress.text(key))? {
            match field {
                BootField::Append => {
                    let parse = |text: &str| parse_append(text, self.board, &mut placeholders);
                    progress.fill("boot.append", &mut append, progress.text(parse), &mut map)?;
                }
                BootField::Remove => progress.fill("boot.remove", &mut remove, WordsSeed { progress }, &mut map)?,
                BootField::Default => {
                    progress.fill("boot.default", &mut default, progress.text(parse_default), &mut map)?;
                }
                BootField::Timeout => {
                    let number = NumberSeed { progress, max: MAX_TIMEOUT.into(), too_large: Problem::Timeout };
                    progress.fill("boot.timeout", &mut timeout, number, &mut map)?;
                }
            }
        }
        progress.reach_token();
        Ok(BootConfig {
            append: append.unwrap_or_default(),
            remove: remove.unwrap_or_default(),
            default: default.unwrap_or_default(),
            timeout: timeout.and_then(|seconds| u16::try_from(seconds).ok()),
            placeholders,
        })
    }
}

/// A list of words.
struct WordsSeed<'t> {
    progress: &'t Progress,
}

impl<'de> DeserializeSeed<'de> for WordsSeed<'_> {
    type Value = Vec<Word, MAX_REMOVED>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        self.progress.reach_token();
        deserializer.deserialize_seq(self)
    }
}

impl<'de> Visitor<'de> for WordsSeed<'_> {
    type Value = Vec<Word, MAX_REMOVED>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a list of words")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Self::Value, A::Error> {
        let mut words = Vec::new();
        while let Some(word) = list.next_element_seed(self.progress.text(parse_word))? {
            words.push(word).map_err(|_| self.progress.reject(Problem::TooManyWords))?;
        }
        Ok(words)
    }
}
