//! Small pieces for looking at JSON without building a tree: borrowed member names, values of any type, and names compared
//! the way the most lenient agents compare them.
//!
//! Agents read the same bytes with other parsers: ProtoJSON takes `taskId` and `task_id`, Go's `encoding/json` ignores case.
//! What decides anything must therefore not be dodged by spelling, so members are compared by their [`Name`].

use std::borrow::Cow;
use std::fmt;

use serde::de::{Deserialize, DeserializeSeed, Deserializer, Error, IgnoredAny, MapAccess, SeqAccess, Visitor};

/// The deepest nesting that is let through. Agents' parsers give up somewhere between 100 and 1000, some of them badly.
pub(crate) const MAX_DEPTH: usize = 128;

/// A member name as written, unescaped; borrowed unless it held an escape.
#[derive(serde::Deserialize)]
pub(crate) struct Key<'a>(#[serde(borrow)] pub(crate) Cow<'a, str>);

/// A member name without case, `_` and `-`: room for the longest name we ask about.
pub(crate) struct Name {
    bytes: [u8; 40],
    len: usize,
}

impl Name {
    /// Folds `key`; names that are too long or not ASCII (but for the two letters that fold into it) are none of ours.
    pub(crate) fn of(key: &str) -> Self {
        let mut name = Self { bytes: [0; 40], len: 0 };
        for c in key.chars() {
            let folded = match c {
                '_' | '-' => continue,
                '\u{17f}' => b's',
                '\u{212a}' => b'k',
                c if c.is_ascii() && name.len < name.bytes.len() => (c as u8).to_ascii_lowercase(),
                _ => return Self { bytes: [0; 40], len: 0 },
            };
            if let Some(slot) = name.bytes.get_mut(name.len) {
                *slot = folded;
                name.len += 1;
            }
        }
        name
    }

    /// The folded bytes; empty for names that are none of ours.
    pub(crate) fn as_bytes(&self) -> &[u8] {
        &self.bytes[..self.len]
    }
}

/// Looks at the members of an object one by one.
pub(crate) trait Members<'de> {
    /// Takes the value of the member `key` out of `map`, whatever its type; must consume exactly one value.
    fn member<A: MapAccess<'de>>(&mut self, key: Cow<'de, str>, map: &mut A) -> Result<(), A::Error>;
}

/// What a value was, seen from someone who hoped for an object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Shape {
    Object,
    Array,
    Scalar,
}

/// Shows a value's members to `T` if it is an object, and skips it otherwise.
pub(crate) struct Object<'s, T>(pub(crate) &'s mut T);

impl<'de, T: Members<'de>> DeserializeSeed<'de> for Object<'_, T> {
    type Value = Shape;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Shape, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de, T: Members<'de>> Visitor<'de> for Object<'_, T> {
    type Value = Shape;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("any JSON value")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Shape, A::Error> {
        while let Some(Key(key)) = map.next_key()? {
            self.0.member(key, &mut map)?;
        }
        Ok(Shape::Object)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Shape, A::Error> {
        while seq.next_element::<IgnoredAny>()?.is_some() {}
        Ok(Shape::Array)
    }

    fn visit_unit<E: Error>(self) -> Result<Shape, E> {
        Ok(Shape::Scalar)
    }

    fn visit_bool<E: Error>(self, _: bool) -> Result<Shape, E> {
        Ok(Shape::Scalar)
    }

    fn visit_i64<E: Error>(self, _: i64) -> Result<Shape, E> {
        Ok(Shape::Scalar)
    }

    fn visit_u64<E: Error>(self, _: u64) -> Result<Shape, E> {
        Ok(Shape::Scalar)
    }

    fn visit_f64<E: Error>(self, _: f64) -> Result<Shape, E> {
        Ok(Shape::Scalar)
    }

    fn visit_str<E: Error>(self, _: &str) -> Result<Shape, E> {
        Ok(Shape::Scalar)
    }
}

/// A value of which only a string is wanted: text, or `None` for any other type. Never fails for a type.
pub(crate) struct Text<'a>(pub(crate) Option<Cow<'a, str>>);

/// A value of which only an integer is wanted.
pub(crate) struct Integer(pub(crate) Option<i64>);

/// A value of which only a boolean is wanted; anything else is `false`.
pub(crate) struct Flag(pub(crate) bool);

/// Whether a value is there and not null.
pub(crate) struct Present(pub(crate) bool);

/// What a JSON value turned out to be, with the strings borrowed.
enum Scalar<'a> {
    Null,
    Bool(bool),
    Integer(i64),
    Text(Cow<'a, str>),
    Other,
}

struct ScalarVisitor;

impl<'de> Visitor<'de> for ScalarVisitor {
    type Value = Scalar<'de>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("any JSON value")
    }

    fn visit_unit<E>(self) -> Result<Self::Value, E> {
        Ok(Scalar::Null)
    }

    fn visit_bool<E>(self, v: bool) -> Result<Self::Value, E> {
        Ok(Scalar::Bool(v))
    }

    fn visit_i64<E>(self, v: i64) -> Result<Self::Value, E> {
        Ok(Scalar::Integer(v))
    }

    fn visit_u64<E>(self, v: u64) -> Result<Self::Value, E> {
        Ok(i64::try_from(v).map_or(Scalar::Other, Scalar::Integer))
    }

    fn visit_f64<E>(self, _: f64) -> Result<Self::Value, E> {
        Ok(Scalar::Other)
    }

    fn visit_borrowed_str<E>(self, v: &'de str) -> Result<Self::Value, E> {
        Ok(Scalar::Text(Cow::Borrowed(v)))
    }

    fn visit_str<E>(self, v: &str) -> Result<Self::Value, E> {
        Ok(Scalar::Text(Cow::Owned(v.to_owned())))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Self::Value, A::Error> {
        while seq.next_element::<IgnoredAny>()?.is_some() {}
        Ok(Scalar::Other)
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        while map.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {}
        Ok(Scalar::Other)
    }
}

impl<'de> Deserialize<'de> for Text<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Ok(Self(match deserializer.deserialize_any(ScalarVisitor)? {
            Scalar::Text(text) => Some(text),
            _ => None,
        }))
    }
}

impl<'de> Deserialize<'de> for Integer {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Ok(Self(match deserializer.deserialize_any(ScalarVisitor)? {
            Scalar::Integer(n) => Some(n),
            _ => None,
        }))
    }
}

impl<'de> Deserialize<'de> for Flag {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Ok(Self(matches!(deserializer.deserialize_any(ScalarVisitor)?, Scalar::Bool(true))))
    }
}

impl<'de> Deserialize<'de> for Present {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Ok(Self(!matches!(deserializer.deserialize_any(ScalarVisitor)?, Scalar::Null)))
    }
}

/// Whether `text`, taken as JSON, nests deeper than `limit`. Brackets inside strings do not count; text that is not JSON
/// gets some answer or other, since the parser will refuse it anyway.
pub(crate) fn deeper_than(text: &[u8], limit: usize) -> bool {
    let (mut depth, mut at) = (0_usize, 0);
    while let Some(&byte) = text.get(at) {
        at += 1;
        match byte {
            b'"' => at = end_of_string(text, at),
            b'[' | b'{' => {
                depth += 1;
                if depth > limit {
                    return true;
                }
            }
            b']' | b'}' => depth = depth.saturating_sub(1),
            _ => {}
        }
    }
    false
}

/// The index after the quote that ends the string whose content starts at `at`; the end of the text if there is none.
fn end_of_string(text: &[u8], mut at: usize) -> usize {
    while let Some(found) = text.get(at..).and_then(|rest| memchr::memchr2(b'"', b'\\', rest)) {
        at += found;
        match text[at] {
            b'"' => return at + 1,
            _ => at += 2,
        }
    }
    text.len()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_compared_without_case_and_separators() {
        for spelling in ["taskId", "task_id", "TASK-ID", "taskid", "TaſkId", "tas\u{212a}Id"] {
            assert_eq!(Name::of(spelling).as_bytes(), b"taskid", "{spelling}");
        }
        assert_eq!(Name::of("táskId").as_bytes(), b"");
        assert_eq!(Name::of(&"x".repeat(41)).as_bytes(), b"");
    }

    #[test]
    fn depth_counts_brackets_outside_strings_only() {
        assert!(!deeper_than(br#"{"a":"[[[[\"[[[[\\","b":[1]}"#, 2));
        assert!(deeper_than(br#"{"a":"\\","b":[[1]]}"#, 2));
        assert!(!deeper_than(b"[][][][]", 1));
    }
}
