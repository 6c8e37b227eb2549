//! What a caller has left, and how HTTP says it: the RateLimit fields of draft-ietf-httpapi-ratelimit-headers-10.
//!
//! `RateLimit-Policy` states each limit (`q` calls per `w` seconds), `RateLimit` what remains of it (`r`) and in how many
//! seconds it is whole again (`t`). Numbers only: knows no caller.

use std::fmt::Write as _;
use std::num::NonZeroU32;

use http::{HeaderName, HeaderValue};

use super::account::Daily;
use super::bucket::{Level, Parts, Shape};
use crate::clock::Timestamp;

const POLICY: HeaderName = HeaderName::from_static("ratelimit-policy");
const LIMIT: HeaderName = HeaderName::from_static("ratelimit");
const OLDER_LIMIT: HeaderName = HeaderName::from_static("x-ratelimit-limit");
const OLDER_REMAINING: HeaderName = HeaderName::from_static("x-ratelimit-remaining");
const OLDER_RESET: HeaderName = HeaderName::from_static("x-ratelimit-reset");
const DAY_SECONDS: u32 = 86_400;

/// What is left of one limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
pub struct Room {
    /// The limit's name in the fields: `calls`, `reads`, `day`, `requests` or `credentials`.
    pub name: &'static str,
    /// Units when nothing is used.
    pub quota: u32,
    /// Seconds in which that many come back.
    pub window: u32,
    /// Units left.
    pub remaining: u32,
    /// Seconds until nothing is used any more, if nothing is drawn meanwhile.
    pub reset: u32,
}

/// What is left of one limit, as those who ask are told.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
pub struct Left {
    /// `work`, `reads`, `daily`, `streams` or `in_flight`.
    pub name: &'static str,
    /// The id of the rule it comes from.
    pub rule: &'static str,
    /// Units when nothing is used.
    pub limit: u32,
    /// Units left.
    pub remaining: u32,
    /// Seconds until nothing is used any more, if nothing is drawn meanwhile; `None`: places, which come back when calls end.
    pub reset_seconds: Option<u32>,
}

impl Left {
    /// A limit that time gives back.
    pub(super) fn of_room(name: &'static str, rule: &'static str, room: Room) -> Self {
        Self { name, rule, limit: room.quota, remaining: room.remaining, reset_seconds: Some(room.reset) }
    }

    /// A limit of places, or one that waiting does not help.
    pub(super) fn of_places(name: &'static str, rule: &'static str, limit: u32, taken: u32) -> Self {
        Self { name, rule, limit, remaining: limit.saturating_sub(taken), reset_seconds: None }
    }
}

/// What a caller has left of the limits that a call met.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Headroom {
    /// The token bucket.
    pub bucket: Option<Room>,
    /// The quota of the UTC day.
    pub day: Option<Room>,
    /// The units that the call costs.
    pub cost: NonZeroU32,
}

impl Default for Headroom {
    fn default() -> Self {
        Self { bucket: None, day: None, cost: NonZeroU32::MIN }
    }
}

impl Room {
    pub(super) fn bucket(name: &'static str, shape: Shape, level: Level) -> Self {
        Self {
            name,
            quota: shape.burst.get(),
            window: seconds(shape.fill()),
            remaining: level.remaining,
            reset: seconds(level.full_in),
        }
    }

    pub(super) fn day(limit: u32, daily: Daily, wall: Timestamp) -> Self {
        Self {
            name: "day",
            quota: limit,
            window: DAY_SECONDS,
            remaining: limit.saturating_sub(daily.used),
            reset: seconds(daily.ends_in(wall)),
        }
    }

    /// What there is to give for a node that decides for `parts` alone.
    pub(super) fn part(self, parts: Parts) -> Self {
        Self { remaining: self.remaining / parts.get(), ..self }
    }
}

/// The same in a room: no bucket takes longer than ten years.
fn seconds(nanos: u64) -> u32 {
    u32::try_from(whole_seconds(nanos)).unwrap_or(u32::MAX)
}

/// Seconds, rounded up: a wait that is told in whole seconds is never told too short.
pub(super) fn whole_seconds(nanos: u64) -> u64 {
    nanos.div_ceil(1_000_000_000)
}

impl Headroom {
    /// Whether there is nothing to tell.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.bucket.is_none() && self.day.is_none()
    }

    /// The limits, the bucket first, counted in calls that cost as much as this one: a caller that counts calls needs to know
    /// no prices.
    fn rooms(&self) -> impl Iterator<Item = Room> {
        let cost = self.cost;
        [self.bucket, self.day].into_iter().flatten().map(move |room| Room {
            quota: room.quota / cost,
            remaining: room.remaining / cost,
            ..room
        })
    }

    /// The fields that tell it, none if there is nothing to tell.
    pub fn headers(&self) -> impl Iterator<Item = (HeaderName, HeaderValue)> {
        let (mut policy, mut limit) = (String::new(), String::new());
        for room in self.rooms() {
            let comma = if policy.is_empty() { "" } else { ", " };
            // Writing to a string cannot fail.
            let _ = write!(policy, "{comma}\"{}\";q={};w={}", room.name, room.quota, room.window);
            let _ = write!(limit, "{comma}\"{}\";r={};t={}", room.name, room.remaining, room.reset);
        }
        [(POLICY, policy), (LIMIT, limit)].into_iter().filter(|(_, text)| !text.is_empty()).map(|(name, text)| {
            (name, HeaderValue::try_from(text).expect("digits and our own names are visible ASCII"))
        })
    }

    /// The older fields, which know one limit: the one that is reached first. Reset is in seconds from now.
    pub fn older_headers(&self) -> impl Iterator<Item = (HeaderName, HeaderValue)> {
        let nearest = self.rooms().min_by_key(|room| room.remaining);
        nearest.into_iter().flat_map(|room| {
            [(OLDER_LIMIT, room.quota), (OLDER_REMAINING, room.remaining), (OLDER_RESET, room.reset)]
                .map(|(name, number)| (name, HeaderValue::from(number)))
        })
    }
}

#[cfg(test)]
mod tests {
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
        let headroom =
            Headroom { bucket: Some(Room::bucket("calls", shape, level)), day: Some(day), ..Headroom::default() };
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
        let headroom = Headroom { bucket: Some(Room::bucket("calls", shape, level)), ..Headroom::default() };
        assert_eq!(texts(&headroom), ["ratelimit-policy: \"calls\";q=1;w=300", "ratelimit: \"calls\";r=0;t=300"]);
    }

    #[test]
    fn what_is_left_is_told_in_calls_like_the_one_that_was_made() {
        let room = |name, quota, remaining| Room { name, quota, window: 60, remaining, reset: 9 };
        let cost = NonZeroU32::new(5).expect("not 0");
        let headroom = Headroom { bucket: Some(room("calls", 12, 9)), day: Some(room("day", 100, 4)), cost };
        assert_eq!(
            texts(&headroom),
            [
                "ratelimit-policy: \"calls\";q=2;w=60, \"day\";q=20;w=60",
                "ratelimit: \"calls\";r=1;t=9, \"day\";r=0;t=9"
            ]
        );
        let older: Vec<_> = headroom.older_headers().map(|(name, value)| format!("{name}: {value:?}")).collect();
        let expected = ["x-ratelimit-limit: \"20\"", "x-ratelimit-remaining: \"0\"", "x-ratelimit-reset: \"9\""];
        assert_eq!(older, expected);
    }

    #[test]
    fn nothing_to_tell_is_no_field() {
        assert_eq!(Headroom::default().older_headers().count(), 0);
        assert!(texts(&Headroom::default()).is_empty());
    }
}
