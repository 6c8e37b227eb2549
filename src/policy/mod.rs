//! What each trust level may do: the tier table and the costs of operations, read from one TOML file.
//!
//! A policy is immutable and whole: a file with an unknown key or a value that cannot work is refused with its line and what
//! to write instead, and nothing of it takes effect. Keeps no counts and knows no caller: that is [`crate::limit`].

pub mod rate;
mod tier;

use std::collections::BTreeMap;
use std::fmt;

use aws_lc_rs::digest;
use serde::Deserialize;
use toml::Spanned;

use crate::a2a::{Effect, Operation, OperationSet};
use crate::trust::TrustLevel;

pub use tier::{AbuseTier, Allowance, Tier};

/// The policy that is in force where no file replaces it.
const DEFAULT: &str = include_str!("../../policies/default.toml");

/// No bucket may take longer than this to fill: beyond it, instants would no longer fit the limiter's arithmetic.
const LONGEST_FILL_NANOS: u128 = 3_660 * 86_400 * 1_000_000_000;

/// The ids of the rules that are decided here; they appear as `policy_rule` in rows.
pub mod rule {
    /// Either side has blocked the other.
    pub const BLOCKED: &str = "trust.blocked";
    /// Callers without a credential are not served.
    pub const ANONYMOUS: &str = "tier.unverified.closed";
    /// The connection is not agreed for this operation.
    pub const OPERATIONS: &str = "connection.operations";
}

/// The operations a policy may give a cost of its own.
const PRICED: [Operation; 12] = [
    Operation::SendMessage,
    Operation::SendStreamingMessage,
    Operation::GetTask,
    Operation::ListTasks,
    Operation::CancelTask,
    Operation::SubscribeToTask,
    Operation::CreateTaskPushNotificationConfig,
    Operation::GetTaskPushNotificationConfig,
    Operation::ListTaskPushNotificationConfigs,
    Operation::DeleteTaskPushNotificationConfig,
    Operation::GetExtendedAgentCard,
    Operation::Unknown,
];

/// The rules in force.
#[derive(Clone, Debug, PartialEq)]
pub struct Policy {
    /// The first 16 hex digits of the SHA-256 of the file; written into every row that the policy decided.
    pub digest: Box<str>,
    /// Whether callers without a credential are served at all.
    pub admit_anonymous: bool,
    /// What requests that cost no unit are limited to.
    pub abuse: AbuseTier,
    tiers: Tiers,
    costs: Box<[(Operation, Cost)]>,
}

/// A policy file that cannot be used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PolicyError {
    /// The file, as it was named to [`Policy::load`].
    pub source: String,
    /// The line the mistake is on, counted from 1.
    pub line: usize,
    /// What is wrong and what to write instead.
    pub message: String,
}

impl fmt::Display for PolicyError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}: {}", self.source, self.line, self.message)
    }
}

impl std::error::Error for PolicyError {}

/// A call that policy does not allow, whatever the caller has left.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Denial {
    /// Either side has blocked the other.
    Blocked,
    /// Callers without a credential are not served.
    AnonymousNotAdmitted,
    /// The connection was agreed for other operations.
    OperationNotAgreed {
        /// What was called.
        operation: Operation,
        /// What may be.
        agreed: OperationSet,
    },
}

impl Denial {
    /// The id of the rule that decided.
    #[must_use]
    pub fn rule(self) -> &'static str {
        match self {
            Self::Blocked => rule::BLOCKED,
            Self::AnonymousNotAdmitted => rule::ANONYMOUS,
            Self::OperationNotAgreed { .. } => rule::OPERATIONS,
        }
    }
}

/// Whether callers of `level` are served at all; how much of it they may do is decided by [`crate::limit`].
///
/// # Errors
/// The rule that forbids it.
pub fn authorize(policy: &Policy, level: TrustLevel) -> Result<(), Denial> {
    match level {
        TrustLevel::Blocked => Err(Denial::Blocked),
        TrustLevel::Unverified if !policy.admit_anonymous => Err(Denial::AnonymousNotAdmitted),
        TrustLevel::Unverified | TrustLevel::Verified | TrustLevel::Connected => Ok(()),
    }
}

/// Whether `operation` is among those the connection is agreed for; `None`: all of them.
///
/// # Errors
/// What is agreed, where that is something else.
pub fn agreed(operation: Operation, agreed: Option<OperationSet>) -> Result<(), Denial> {
    match agreed {
        Some(agreed) if !agreed.allows(operation) => Err(Denial::OperationNotAgreed { operation, agreed }),
        _ => Ok(()),
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    admit_anonymous: bool,
    tiers: SpannedTiers,
    abuse: Spanned<AbuseTier>,
    #[serde(default)]
    operations: BTreeMap<String, Spanned<Cost>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct SpannedTiers {
    connected: Spanned<Tier>,
    verified: Spanned<Tier>,
    unverified: Spanned<Tier>,
}

#[derive(Clone, Debug, PartialEq)]
struct Tiers {
    connected: Tier,
    verified: Tier,
    unverified: Tier,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
struct Cost {
    draws: Draws,
    units: u32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Draws {
    Work,
    Reads,
}

impl Policy {
    /// Reads a policy from the text of a file; `source` is the file's name, for messages.
    ///
    /// # Errors
    /// The first mistake found, with its line.
    pub fn load(text: &str, source: &str) -> Result<Self, PolicyError> {
        let mistake = |at: usize, message: String| PolicyError {
            source: source.to_owned(),
            line: 1 + text.bytes().take(at).filter(|b| *b == b'\n').count(),
            message,
        };
        let file: File = toml::from_str(text)
            .map_err(|error| mistake(error.span().map_or(0, |span| span.start), error.message().to_owned()))?;

        let tiers = [&file.tiers.connected, &file.tiers.verified, &file.tiers.unverified];
        for tier in tiers {
            for (name, allowance) in [("work", tier.get_ref().work), ("reads", tier.get_ref().reads)] {
                check_fill(name, allowance).map_err(|message| mistake(tier.span().start, message))?;
            }
        }
        let abuse = file.abuse.get_ref();
        for (name, allowance) in [("source", abuse.source), ("credentials", abuse.credentials), ("api", abuse.api)] {
            check_fill(name, allowance).map_err(|message| mistake(file.abuse.span().start, message))?;
        }

        let mut costs = Vec::with_capacity(file.operations.len());
        for (name, cost) in &file.operations {
            let at = cost.span().start;
            let operation = PRICED.into_iter().find(|op| op.as_str() == name).ok_or_else(|| {
                let names = PRICED.map(Operation::as_str).join(", ");
                mistake(at, format!("`{name}` is not an operation that can be given a cost: write one of {names}"))
            })?;
            let cost = *cost.get_ref();
            for tier in tiers.map(Spanned::get_ref) {
                let bucket = match cost.draws {
                    Draws::Work => tier.work,
                    Draws::Reads => tier.reads,
                };
                if cost.units > bucket.burst.get() {
                    return Err(mistake(
                        at,
                        format!(
                            "`{name}` costs {} units, but a tier holds only {} at once and could never admit it: \
                             write fewer units or a larger burst",
                            cost.units, bucket.burst
                        ),
                    ));
                }
            }
            costs.push((operation, cost));
        }

        Ok(Self {
            digest: short_digest(text),
            admit_anonymous: file.admit_anonymous,
            abuse: *abuse,
            tiers: Tiers {
                connected: *tiers[0].get_ref(),
                verified: *tiers[1].get_ref(),
                unverified: *tiers[2].get_ref(),
            },
            costs: costs.into_boxed_slice(),
        })
    }

    /// The limits of a trust level; `None` for `Blocked`, which has none because nothing of it passes.
    #[must_use]
    pub fn tier(&self, level: TrustLevel) -> Option<&Tier> {
        match level {
            TrustLevel::Blocked => None,
            TrustLevel::Unverified => Some(&self.tiers.unverified),
            TrustLevel::Verified => Some(&self.tiers.verified),
            TrustLevel::Connected => Some(&self.tiers.connected),
        }
    }

    /// What `operation` draws on and how many units it takes from there: 1 of work or reads unless the policy says
    /// otherwise, 0 for what is free.
    #[must_use]
    pub fn units(&self, operation: Operation) -> (Effect, u32) {
        // A handful of entries at most: a scan is faster than any map.
        match self.costs.iter().find(|(op, _)| *op == operation) {
            Some((_, Cost { draws: Draws::Work, units })) => (Effect::Work, *units),
            Some((_, Cost { draws: Draws::Reads, units })) => (Effect::Read, *units),
            None => match operation.effect() {
                Effect::Free => (Effect::Free, 0),
                effect => (effect, 1),
            },
        }
    }
}

impl Default for Policy {
    fn default() -> Self {
        Self::load(DEFAULT, "policies/default.toml").expect("a test reads the compiled-in policy")
    }
}

fn check_fill(name: &str, allowance: Allowance) -> Result<(), String> {
    let fill = u128::from(allowance.rate.interval_nanos()) * u128::from(allowance.burst.get());
    if fill > LONGEST_FILL_NANOS {
        return Err(format!(
            "`{name}` with burst {} would take more than ten years to fill at {}: write a smaller burst or a faster rate",
            allowance.burst, allowance.rate
        ));
    }
    Ok(())
}

fn short_digest(text: &str) -> Box<str> {
    let digest = digest::digest(&digest::SHA256, text.as_bytes());
    digest.as_ref().iter().take(8).map(|byte| format!("{byte:02x}")).collect::<String>().into()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn broken(from: &str, to: &str) -> PolicyError {
        assert!(DEFAULT.contains(from), "{from}");
        Policy::load(&DEFAULT.replacen(from, to, 1), "my.toml").expect_err(to)
    }

    fn line_of(text: &str) -> usize {
        1 + DEFAULT.lines().position(|line| line.starts_with(text)).expect(text)
    }

    #[test]
    fn the_compiled_in_policy_holds_the_documented_numbers() {
        let policy = Policy::default();
        let numbers = |level| {
            let tier = policy.tier(level).expect("a tier");
            let bucket = |a: Allowance| (a.rate.to_string(), a.burst.get());
            (bucket(tier.work), bucket(tier.reads), tier.daily)
        };
        let expected =
            |work: &str, b, reads: &str, rb, daily| ((work.to_owned(), b), (reads.to_owned(), rb), Some(daily));
        assert_eq!(numbers(TrustLevel::Connected), expected("300/min", 300, "3000/min", 3000, 10_000));
        assert_eq!(numbers(TrustLevel::Verified), expected("1/min", 1, "60/min", 60, 1_000));
        assert_eq!(numbers(TrustLevel::Unverified), expected("1/5min", 1, "12/min", 12, 288));
        assert_eq!(policy.tier(TrustLevel::Blocked), None);
        assert!(policy.admit_anonymous);
    }

    #[test]
    fn a_digest_is_the_start_of_the_files_sha_256() {
        // The digest of the empty text is known to everyone.
        assert_eq!(&*short_digest(""), "e3b0c44298fc1c14");
        let other = DEFAULT.replace("288", "289");
        assert_ne!(Policy::load(&other, "x").expect("valid").digest, Policy::default().digest);
    }

    #[test]
    fn operations_cost_what_a2a_means_them_to_unless_the_policy_says_otherwise() {
        let policy = Policy::default();
        assert_eq!(policy.units(Operation::SendMessage), (Effect::Work, 1));
        assert_eq!(policy.units(Operation::Unknown), (Effect::Work, 1));
        assert_eq!(policy.units(Operation::GetTask), (Effect::Read, 1));
        assert_eq!(policy.units(Operation::GetAgentCard), (Effect::Free, 0));

        let own = DEFAULT.replace("burst = 1 }", "burst = 9 }")
            + "SendMessage = { draws = \"work\", units = 3 }\nListTasks = { draws = \"work\", units = 1 }\n";
        let policy = Policy::load(&own, "x").expect("valid");
        assert_eq!(policy.units(Operation::SendMessage), (Effect::Work, 3));
        assert_eq!(policy.units(Operation::ListTasks), (Effect::Work, 1));
        assert_eq!(policy.units(Operation::SendStreamingMessage), (Effect::Work, 1));
    }

    #[test]
    fn an_unknown_key_is_refused_with_its_line() {
        let error = broken("daily = 288", "dayly = 288");
        assert_eq!(error.line, line_of("daily = 288"));
        assert!(error.message.contains("dayly") && error.message.contains("daily"), "{error}");
        assert!(error.to_string().starts_with(&format!("my.toml:{}: ", error.line)));
    }

    #[test]
    fn a_bad_value_is_refused_with_its_line_and_what_to_write_instead() {
        let error = broken("rate = \"1/5min\"", "rate = \"every 5 minutes\"");
        assert_eq!(error.line, line_of("work = { rate = \"1/5min\""));
        assert!(error.message.contains("such as 300/min"), "{error}");

        let error = broken("daily = 288", "daily = -1");
        assert_eq!(error.line, line_of("daily = 288"));
        assert!(error.message.contains("unlimited"), "{error}");
        assert!(broken("daily = 288", "daily = \"none\"").message.contains("unlimited"));
        assert!(broken("burst = 12 }", "burst = 0 }").message.contains("nonzero"));
    }

    #[test]
    fn leaving_a_limit_out_is_an_error_and_not_no_limit() {
        let error = broken("daily = 288\n", "");
        assert!(error.message.contains("daily"), "{error}");
        let unlimited = DEFAULT.replace("daily = 288", "daily = \"unlimited\"");
        let policy = Policy::load(&unlimited, "x").expect("valid");
        assert_eq!(policy.tier(TrustLevel::Unverified).expect("a tier").daily, None);
    }

    #[test]
    fn an_operation_that_no_bucket_could_ever_pay_for_is_refused() {
        let error = broken("[operations]\n", "[operations]\nSendMessage = { draws = \"work\", units = 2 }\n");
        assert_eq!(error.line, line_of("[operations]") + 1);
        assert!(error.message.contains("larger burst"), "{error}");
        for name in ["GetAgentCard", "message/send"] {
            let error =
                broken("[operations]\n", &format!("[operations]\n\"{name}\" = {{ draws = \"work\", units = 1 }}\n"));
            assert!(error.message.contains("SendMessage"), "{error}");
        }
    }

    #[test]
    fn a_bucket_that_would_take_a_lifetime_to_fill_is_refused() {
        let error = broken("rate = \"1/5min\", burst = 1 ", "rate = \"1/300d\", burst = 4000000000 ");
        assert!(error.message.contains("smaller burst"), "{error}");
    }

    #[test]
    fn the_blocked_are_refused_and_the_anonymous_where_they_are_not_admitted() {
        let open = Policy::default();
        let closed =
            Policy::load(&DEFAULT.replace("admit_anonymous = true", "admit_anonymous = false"), "x").expect("valid");
        assert_eq!(authorize(&open, TrustLevel::Blocked).map_err(Denial::rule), Err("trust.blocked"));
        assert_eq!(authorize(&open, TrustLevel::Unverified), Ok(()));
        assert_eq!(authorize(&closed, TrustLevel::Unverified).map_err(Denial::rule), Err("tier.unverified.closed"));
        assert_eq!(authorize(&closed, TrustLevel::Verified), Ok(()));
        assert_eq!(authorize(&closed, TrustLevel::Connected), Ok(()));
    }
}
