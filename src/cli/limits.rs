//! Limits as they are given on the command line and told: of a connection's own, or of an agent's for one level's callers.

use clap::Args;
use serde_json::{Map, Value};

use super::time::api_duration;
use crate::config::DurationText;

/// Limits to set.
#[derive(Debug, Args)]
pub(super) struct Amounts {
    /// Calls in each period.
    #[arg(long, value_name = "N")]
    rate: Option<u32>,
    /// How long a period is, such as 1m.
    #[arg(long, value_name = "DURATION", value_parser = api_duration)]
    period: Option<String>,
    /// Calls at once.
    #[arg(long, value_name = "N")]
    burst: Option<u32>,
    /// Calls in a day (UTC).
    #[arg(long, value_name = "N")]
    daily: Option<u32>,
    /// Streams open at once.
    #[arg(long, value_name = "N")]
    streams: Option<u32>,
}

impl Amounts {
    /// Those that were given, as the API takes them.
    pub(super) fn members(self) -> Map<String, Value> {
        let numbers = [("rate", self.rate), ("burst", self.burst), ("daily", self.daily), ("streams", self.streams)];
        let numbers = numbers.into_iter().filter_map(|(name, number)| Some((name.to_owned(), number?.into())));
        numbers.chain(self.period.map(|period| ("period".to_owned(), period.into()))).collect()
    }
}

/// What is there already, with `new` in its place where both say something.
pub(super) fn merged(current: &Value, new: Map<String, Value>) -> Value {
    let mut kept = current.as_object().cloned().unwrap_or_default();
    if new.contains_key("period") {
        kept.remove("period_ms");
    }
    kept.retain(|_, value| !value.is_null());
    kept.extend(new);
    Value::Object(kept)
}

/// `10 calls each 1min, burst 5`
pub(super) fn limits_told(limits: &Value) -> String {
    let number = |name: &str| limits[name].as_u64();
    let period = number("period_ms").map(|ms| DurationText(std::time::Duration::from_millis(ms)).to_string());
    let rate = match (number("rate"), period) {
        (Some(rate), Some(period)) => Some(format!("{rate} calls each {period}")),
        (Some(rate), None) => Some(format!("{rate} calls each period of the policy")),
        (None, Some(period)) => Some(format!("the policy's rate each {period}")),
        (None, None) => None,
    };
    let burst = number("burst").map(|n| format!("{n} at once"));
    let daily = number("daily").map(|n| format!("{n} a day"));
    let streams = number("streams").map(|n| format!("{n} streams"));
    let in_flight = number("in_flight").map(|n| format!("{n} in flight"));
    let told: Vec<String> = [rate, burst, daily, streams, in_flight].into_iter().flatten().collect();
    if told.is_empty() { "those of the policy".to_owned() } else { told.join(", ") }
}
