//! The scripts, what they are asked and what they answer.
//!
//! A script is one step to everybody else: nothing of a call is taken without the rest. Their text is in `lua/`.

use aws_lc_rs::digest::{SHA1_FOR_LEGACY_USE_ONLY, digest};
use redis::{Cmd, FromRedisValue as _, Value};

use super::counts::Cause;
use crate::limit::account::{Draws, Slots};
use crate::limit::bucket::Shape;
use crate::limit::key::LimitKey;

const COMMON: &str = include_str!("lua/common.lua");

/// A script and the name the server knows it by.
#[derive(Clone, Debug)]
pub(super) struct Script {
    pub(super) text: String,
    sha: String,
}

impl Script {
    fn new(own: &str) -> Self {
        Self::of(format!("{COMMON}\n{own}"))
    }

    pub(super) fn of(text: String) -> Self {
        // The server's own way to name scripts; nothing is protected by it.
        Self { sha: hex(digest(&SHA1_FOR_LEGACY_USE_ONLY, text.as_bytes()).as_ref()), text }
    }

    pub(super) fn load(&self) -> Cmd {
        let mut command = Cmd::new();
        command.arg("SCRIPT").arg("LOAD").arg(&self.text);
        command
    }

    pub(super) fn call(&self, keys: &[&str]) -> Cmd {
        let mut command = Cmd::new();
        command.arg("EVALSHA").arg(&self.sha).arg(keys.len()).arg(keys);
        command
    }
}

/// What keys are called. All carry one hash tag: in a cluster they are in one place.
#[derive(Clone, Debug)]
pub(super) struct Names {
    pub(super) epoch: String,
    pub(super) nodes: String,
    pub(super) accounts: String,
    pub(super) instance: String,
    pub(super) admit: Script,
    pub(super) tell: Script,
    pub(super) beat: Script,
}

/// What the server decides about one call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Question {
    pub(super) key: LimitKey,
    pub(super) draws: Draws,
    pub(super) shape: Shape,
    /// 0: only a stream slot is asked for.
    pub(super) units: u32,
    /// Microseconds until the bucket is full, as the node knows it.
    pub(super) full_in: u64,
    /// The node has charged it alone.
    pub(super) owed: bool,
    /// The day as the node knows it, and its limit; `None` where the call does not count by day.
    pub(super) day: Option<(Option<u32>, u32, u32)>,
    /// The stream it opens, and how many there may be.
    pub(super) stream: Option<(Slots, Option<u32>)>,
}

/// How the server decided.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    Passes,
    Streams,
    Day,
    Bucket,
}

/// What the server answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Answer {
    pub(super) verdict: Verdict,
    /// The server's clock, microseconds since the Unix epoch.
    pub(super) now: i64,
    /// Microseconds until the bucket is full.
    pub(super) full_in: u64,
    /// Microseconds until it holds enough for the call.
    pub(super) wait: u64,
    /// Units used today.
    pub(super) used: u32,
}

/// What a node knows of one account.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Known {
    pub(super) key: LimitKey,
    /// Both buckets: their shapes and the microseconds until they are full.
    pub(super) buckets: [Option<(Shape, u64)>; 2],
    pub(super) day: u32,
    pub(super) used: u32,
    pub(super) slots: Slots,
}

/// What a sign of life tells.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Beat {
    pub(super) epoch: String,
    /// The server's clock, microseconds since the Unix epoch.
    pub(super) now: u64,
    /// The instances seen of late.
    pub(super) live: Vec<String>,
}

impl Names {
    pub(super) fn new(namespace: &str, instance: String) -> Self {
        Self {
            epoch: format!("{{{namespace}}}:epoch"),
            nodes: format!("{{{namespace}}}:nodes"),
            accounts: format!("{{{namespace}}}:a:"),
            instance,
            admit: Script::new(include_str!("lua/admit.lua")),
            tell: Script::new(include_str!("lua/tell.lua")),
            beat: Script::new(include_str!("lua/beat.lua")),
        }
    }

    pub(super) fn scripts(&self) -> [&Script; 3] {
        [&self.admit, &self.tell, &self.beat]
    }

    pub(super) fn account(&self, key: &LimitKey) -> String {
        format!("{}{}", self.accounts, hex(key))
    }

    pub(super) fn admit(&self, script: &Script, epoch: &str, question: &Question) -> Cmd {
        let Question { draws, shape, units, full_in, owed, day, stream, .. } = question;
        let mut command = script.call(&[&self.epoch, &self.nodes, &self.account(&question.key)]);
        command.arg(epoch).arg(&self.instance).arg(name(*draws));
        command.arg(interval(*shape)).arg(shape.burst.get()).arg(units).arg(full_in).arg(u8::from(*owed));
        let (limit, on, used) = match day {
            Some((limit, on, used)) => (limit.map_or(-1, i64::from), *on, *used),
            None => (-2, 0, 0),
        };
        command.arg(limit).arg(on).arg(used);
        let (slots, most) = stream.unwrap_or_default();
        command.arg(slots.version).arg(slots.count).arg(most.map_or(-1, i64::from));
        command
    }

    pub(super) fn tell(&self, epoch: &str, known: &Known) -> Cmd {
        let mut command = self.tell.call(&[&self.epoch, &self.nodes, &self.account(&known.key)]);
        command.arg(epoch).arg(&self.instance);
        for bucket in known.buckets {
            match bucket {
                Some((shape, full_in)) => command.arg(interval(shape)).arg(shape.burst.get()).arg(full_in),
                None => command.arg(&[0; 3]),
            };
        }
        command.arg(known.day).arg(known.used).arg(known.slots.version).arg(known.slots.count);
        command
    }

    pub(super) fn beat(&self, told_under: Option<&str>, otherwise: &str) -> Cmd {
        let mut command = self.beat.call(&[&self.epoch, &self.nodes]);
        command.arg(&self.instance).arg(told_under.unwrap_or_default()).arg(otherwise);
        command
    }
}

/// Whole microseconds, never faster than the limit says.
pub(super) fn interval(shape: Shape) -> u64 {
    shape.interval.div_ceil(1_000)
}

fn name(draws: Draws) -> &'static str {
    match draws {
        Draws::Work => "w",
        Draws::Reads => "r",
    }
}

/// Reads what [`Names::admit`] is answered.
pub(super) fn answer(value: Value) -> Result<Answer, Cause> {
    let (verdict, now, full_in, wait, used) =
        <(i8, i64, u64, u64, u32)>::from_redis_value(value).map_err(|_| Cause::Failed)?;
    let verdict = match verdict {
        0 => Verdict::Passes,
        1 => Verdict::Streams,
        2 => Verdict::Day,
        3 => Verdict::Bucket,
        -1 => return Err(Cause::Emptied),
        _ => return Err(Cause::Failed),
    };
    Ok(Answer { verdict, now, full_in, wait, used })
}

/// Reads what [`Names::tell`] is answered.
pub(super) fn told(value: Value) -> Result<(), Cause> {
    match i8::from_redis_value(value) {
        Ok(0) => Ok(()),
        Ok(-1) => Err(Cause::Emptied),
        _ => Err(Cause::Failed),
    }
}

/// Reads what [`Names::beat`] is answered.
pub(super) fn beat(value: Value) -> Result<Beat, Cause> {
    let (epoch, now, live) = <(String, u64, Vec<String>)>::from_redis_value(value).map_err(|_| Cause::Failed)?;
    Ok(Beat { epoch, now, live })
}

fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write as _;
    bytes.iter().fold(String::with_capacity(bytes.len() * 2), |mut text, byte| {
        // Writing to a string cannot fail.
        let _ = write!(text, "{byte:02x}");
        text
    })
}
