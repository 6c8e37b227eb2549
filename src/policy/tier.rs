//! The limits that belong to a trust level, as plain data.
//!
//! What they mean is stated in `policies/default.toml`; how they are kept is [`crate::limit`]'s business.

use std::fmt;
use std::num::NonZeroU32;

use serde::Deserialize;
use serde::de::{self, Deserializer, Visitor};

use super::rate::Rate;

/// A token bucket: its size and how fast it refills.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Allowance {
    /// How fast it refills.
    pub rate: Rate,
    /// How many calls may come at once.
    pub burst: NonZeroU32,
}

/// What the callers of one trust level may do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Tier {
    /// Operations that ask the agent to do or change something.
    pub work: Allowance,
    /// Operations that read.
    pub reads: Allowance,
    /// Units of work per UTC day; `None` is no limit.
    #[serde(deserialize_with = "number_or_unlimited")]
    pub daily: Option<u32>,
    /// Event streams open at once.
    #[serde(deserialize_with = "number_or_unlimited")]
    pub streams: Option<u32>,
    /// Calls open at once, streams included.
    #[serde(deserialize_with = "number_or_unlimited")]
    pub in_flight: Option<u32>,
}

/// What requests that cost no unit are limited to, per network address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AbuseTier {
    /// Cards, addresses that lead nowhere, broken envelopes.
    pub source: Allowance,
    /// Credentials that are not valid.
    pub credentials: Allowance,
    /// What is asked of the API without a credential.
    pub api: Allowance,
}

fn number_or_unlimited<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<u32>, D::Error> {
    struct Number;

    impl Visitor<'_> for Number {
        type Value = Option<u32>;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("a whole number from 0 to 4294967295, or \"unlimited\"")
        }

        fn visit_i64<E: de::Error>(self, number: i64) -> Result<Self::Value, E> {
            let unexpected = || E::invalid_value(de::Unexpected::Signed(number), &self);
            u32::try_from(number).map(Some).map_err(|_| unexpected())
        }

        fn visit_str<E: de::Error>(self, text: &str) -> Result<Self::Value, E> {
            match text {
                "unlimited" => Ok(None),
                _ => Err(E::invalid_value(de::Unexpected::Str(text), &self)),
            }
        }
    }

    deserializer.deserialize_any(Number)
}
