//! The progress of the parser, and the parsers of single values.

use core::{cell::Cell, fmt};

use serde::de::{DeserializeSeed, Deserializer, Error, MapAccess, Visitor};

use crate::config::disk::error::{FieldPath, Problem};

/// The position of the parser.
#[derive(Debug, Default)]
pub(in crate::config::disk) struct Progress {
    /// The number of keys, values and ends of objects that were reached. A problem is at the last one.
    pub(in crate::config::disk) tokens: Cell<usize>,
    /// The current field.
    pub(in crate::config::disk) field: Cell<FieldPath>,
    /// The problem, unless it is invalid JSON.
    pub(in crate::config::disk) problem: Cell<Option<Problem>>,
}

impl Progress {
    /// Counts a key, a value or the end of an object.
    pub(super) fn reach_token(&self) {
        self.tokens.set(self.tokens.get().saturating_add(1));
    }

    /// Records a problem at the last token and returns the error that ends the parser.
    pub(super) fn reject<E: Error>(&self, problem: Problem) -> E {
        self.problem.set(Some(problem));
        E::custom("")
    }

    /// Parses a string, or the key of an object, with `parse`.
    pub(super) fn text<P>(&self, parse: P) -> TextSeed<'_, P> {
        TextSeed { progress: self, parse }
    }

    /// Parses the value of the field `name` into `slot`.
    pub(super) fn fill<'de, S: DeserializeSeed<'de>, A: MapAccess<'de>>(
        &self,
        name: &'static str,
        slot: &mut Option<S::Value>,
        seed: S,
        map: &mut A,
    ) -> Result<(), A::Error> {
        let parent = self.field.get();
        self.field.set(FieldPath { name: Some(name), ..parent });
        if slot.is_some() {
            return Err(self.reject(Problem::DuplicateField));
        }
        *slot = Some(map.next_value_seed(seed)?);
        self.field.set(parent);
        Ok(())
    }

    /// Returns the value of the field `name`, or the error for a missing field.
    pub(super) fn required<T, E: Error>(&self, name: &'static str, value: Option<T>) -> Result<T, E> {
        value.ok_or_else(|| self.reject(Problem::MissingField(name)))
    }
}

/// A number up to a maximum.
pub(super) struct NumberSeed<'t> {
    pub(super) progress: &'t Progress,
    pub(super) max: u32,
    /// The problem of a larger number.
    pub(super) too_large: Problem,
}

impl<'de> DeserializeSeed<'de> for NumberSeed<'_> {
    type Value = u32;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<u32, D::Error> {
        self.progress.reach_token();
        deserializer.deserialize_u32(self)
    }
}

impl Visitor<'_> for NumberSeed<'_> {
    type Value = u32;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a number")
    }

    fn visit_u32<E: Error>(self, number: u32) -> Result<u32, E> {
        if number <= self.max { Ok(number) } else { Err(self.progress.reject(self.too_large)) }
    }
}

/// `true` or `false`.
pub(super) struct BoolSeed<'t> {
    pub(super) progress: &'t Progress,
}

impl<'de> DeserializeSeed<'de> for BoolSeed<'_> {
    type Value = bool;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<bool, D::Error> {
        self.progress.reach_token();
        deserializer.deserialize_bool(self)
    }
}

impl Visitor<'_> for BoolSeed<'_> {
    type Value = bool;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("true or false")
    }

    fn visit_bool<E: Error>(self, value: bool) -> Result<bool, E> {
        Ok(value)
    }
}

/// A string and its parser.
pub(super) struct TextSeed<'t, P> {
    progress: &'t Progress,
    parse: P,
}

impl<'de, T, P: FnOnce(&str) -> Result<T, Problem>> DeserializeSeed<'de> for TextSeed<'_, P> {
    type Value = T;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<T, D::Error> {
        self.progress.reach_token();
        deserializer.deserialize_str(self)
    }
}

impl<T, P: FnOnce(&str) -> Result<T, Problem>> Visitor<'_> for TextSeed<'_, P> {
    type Value = T;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a string")
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<T, E> {
        (self.parse)(text).map_err(|problem| self.progress.reject(problem))
    }
}
