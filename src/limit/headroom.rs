//! What a caller has left, and how HTTP says it: the RateLimit fields of draft-ietf-httpapi-ratelimit-headers.
//!
//! `RateLimit-Policy` states each limit (`q` units per `w` seconds), `RateLimit` what remains of it (`r`) and in how many
//! seconds it is whole again (`t`). Numbers only: knows no caller.

use std::fmt::Write as _;

use http::{HeaderName, HeaderValue};

use super::account::Daily;
use super::bucket::{Level, Shape};
use crate::clock::Timestamp;

const POLICY: HeaderName = HeaderName::from_static("ratelimit-policy");
const LIMIT: HeaderName = HeaderName::from_static("ratelimit");
const DAY_SECONDS: u64 = 86_400;

/// What is left of one limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
pub struct Room {
    /// The limit's name in the fields: `calls`, `reads`, `day`, `requests` or `credentials`.
    pub name: &'static str,
    /// Units when nothing is used.
    pub quota: u32,
    /// Seconds in which that many come back.
    pub window: u64,
    /// Units left.
    pub remaining: u32,
    /// Seconds until nothing is used any more, if nothing is drawn meanwhile.
    pub reset: u64,
}

/// What is left of one limit, as those who ask are told.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
pub struct Left {
    /// `work`, `reads`, `daily`, `streams` or `in_flight`.
    pub name: &'static str,
    /// Units when nothing is used.
    pub limit: u32,
    /// Units left.
    pub remaining: u32,
    /// Seconds until nothing is used any more, if nothing is drawn meanwhile; `None`: places, which come back when calls end.
    pub reset_seconds: Option<u64>,
}

impl Left {
    pub(super) fn of(name: &'static str, limit: u32, remaining: u32, reset_seconds: Option<u64>) -> Self {
        Self { name, limit, remaining, reset_seconds }
    }
}

/// What a caller has left of the limits that a call met.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Headroom {
    /// The token bucket.
    pub bucket: Option<Room>,
    /// The quota of the UTC day.
    pub day: Option<Room>,
}

impl Room {
    pub(super) fn bucket(name: &'static str, shape: Shape, level: Level) -> Self {
        Self {
            name,
            quota: shape.burst.get(),
            window: whole_seconds(shape.fill()),
            remaining: level.remaining,
            reset: whole_seconds(level.full_in),
        }
    }

    pub(super) fn day(limit: u32, daily: Daily, wall: Timestamp) -> Self {
        Self {
            name: "day",
            quota: limit,
            window: DAY_SECONDS,
            remaining: limit.saturating_sub(daily.used),
            reset: whole_seconds(daily.ends_in(wall)),
        }
    }
}

/// Seconds, rounded up: a wait that is told in whole seconds is never told too short.
pub(super) fn whole_seconds(nanos: u64) -> u64 {
    nanos.div_ceil(1_000_000_000)
}

impl Headroom {
    /// The fields that tell it, none if there is nothing to tell.
    pub fn headers(&self) -> impl Iterator<Item = (HeaderName, HeaderValue)> {
        let (mut policy, mut limit) = (String::new(), String::new());
        for room in [self.bucket, self.day].into_iter().flatten() {
            let comma = if policy.is_empty() { "" } else { ", " };
            // Writing to a string cannot fail.
            let _ = write!(policy, "{comma}\"{}\";q={};w={}", room.name, room.quota, room.window);
            let _ = write!(limit, "{comma}\"{}\";r={};t={}", room.name, room.remaining, room.reset);
        }
        [(POLICY, policy), (LIMIT, limit)].into_iter().filter(|(_, text)| !text.is_empty()).map(|(name, text)| {
            (name, HeaderValue::try_from(text).expect("digits and our own names are visible ASCII"))
        })
    }
}

#[cfg(test)]
mod tests {
    use std::num::NonZeroU32;

    use super::*;

    fn texts(headroom: &Headroom) -> Vec<String> {
        headroom.headers().map(|(name, value)| format!("{name}: {}", value.to_str().expect("ASCII"))).collect()
    }

    #[test]
    fn the_fields_state_the_limits_and_what_is_left_of_them() {
        let shape = Shape::new(200_000_000, NonZeroU32::new(300).expect("not 0"));
        let level = Level { remaining: 299, full_in: 200_000_000 };
        let wall = Timestamp(10 * 86_400_000_000 + 1);
        let day = Room::day(10_000, Daily { day: 10, used: 1 }, wall);
        let headroom = Headroom { bucket: Some(Room::bucket("calls", shape, level)), day: Some(day) };
        assert_eq!(
            texts(&headroom),
            [
                "ratelimit-policy: \"calls\";q=300;w=60, \"day\";q=10000;w=86400",
                "ratelimit: \"calls\";r=299;t=1, \"day\";r=9999;t=86400",
            ]
        );
    }

    #[test]
    fn a_limit_of_one_in_five_minutes_says_so() {
        let shape = Shape::new(300_000_000_000, NonZeroU32::MIN);
        let level = Level { remaining: 0, full_in: 299_000_000_001 };
        let headroom = Headroom { bucket: Some(Room::bucket("calls", shape, level)), day: None };
        assert_eq!(texts(&headroom), ["ratelimit-policy: \"calls\";q=1;w=300", "ratelimit: \"calls\";r=0;t=300"]);
    }

    #[test]
    fn nothing_to_tell_is_no_field() {
        assert!(texts(&Headroom::default()).is_empty());
    }
}
