//! What the end of an attempt says of the agent, and what it does not: the one place where that is decided.
//!
//! Promises that nothing a caller does wrong counts against an agent: its refusals (4xx, 429 among them), errors inside
//! JSON-RPC, what the agent does not have (501, 505 and the like), a caller that leaves, a call the gateway ends. Pure.

use std::time::Duration;

use http::{HeaderMap, StatusCode, header};

use super::upstream::UpstreamError;
use crate::vitals::{Ailment, Shown, Sign};

/// What the head of an answer shows. `caller`: a number for who got it. `own_credential`: the gateway showed one of its own, so that a 401 is not the caller's.
pub(super) fn of_answer(status: StatusCode, headers: &HeaderMap, caller: u32, own_credential: bool) -> (Shown, Sign) {
    match status.as_u16() {
        401 if own_credential => (Shown::Unauthorized, Sign::Answers),
        // What stands in front of the agent says that nobody is there. An agent that asks for a pause says so as well.
        // It may also be what a caller sent that made it fail: one caller alone is not believed.
        502..=504 => (Shown::Silent(Ailment::ServerError), Sign::SaysItFails { caller, pause: retry_after(headers) }),
        // It has no such method, version, variant or extension: what was asked for was wrong, or it is a loop of the caller's.
        501 | 505 | 506 | 508 | 510 => (Shown::Answered, Sign::Answers),
        500..=599 => (Shown::Erred(Ailment::ServerError), Sign::Answers),
        301..=303 | 307 | 308 => (Shown::Erred(Ailment::Redirects), Sign::Answers),
        _ => (Shown::Answered, Sign::Answers),
    }
}

/// What it shows that no answer came.
pub(super) fn of_failure(error: &UpstreamError) -> (Shown, Sign) {
    let ailment = match error {
        UpstreamError::Dial(_, true) => Ailment::Timeout,
        UpstreamError::Dial(_, false) => Ailment::Unreachable,
        UpstreamError::Broken(_) => Ailment::BrokeOff,
    };
    (Shown::Silent(ailment), Sign::Fails)
}

/// What it shows that the first byte did not come in time.
pub(super) const SILENT: (Shown, Sign) = (Shown::Silent(Ailment::Timeout), Sign::Fails);

/// Seconds only: dates are another clock's.
fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    let seconds = headers.get(header::RETRY_AFTER)?.to_str().ok()?.trim().parse().ok()?;
    Some(Duration::from_secs(seconds))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(status: u16, own_credential: bool) -> (Shown, Sign) {
        of_answer(StatusCode::from_u16(status).expect("a status"), &HeaderMap::new(), 7, own_credential)
    }

    #[test]
    fn what_a_caller_does_wrong_never_counts_against_the_agent() {
        for status in [200, 204, 304, 400, 401, 403, 404, 405, 409, 413, 415, 422, 429, 499, 501, 505, 508] {
            assert_eq!(of(status, false), (Shown::Answered, Sign::Answers), "{status}");
        }
        // The agent may well let some callers in and not others: only the gateway's credential is the gateway's matter.
        assert_eq!(of(403, true), (Shown::Answered, Sign::Answers));
    }

    #[test]
    fn a_failure_of_the_agent_counts_and_only_one_in_which_nobody_answers_opens_the_breaker() {
        assert_eq!(of(500, false), (Shown::Erred(Ailment::ServerError), Sign::Answers));
        assert_eq!(of(307, false), (Shown::Erred(Ailment::Redirects), Sign::Answers));
        assert_eq!(of(401, true), (Shown::Unauthorized, Sign::Answers));
        for status in [502, 503, 504] {
            let says = Sign::SaysItFails { caller: 7, pause: None };
            assert_eq!(of(status, false), (Shown::Silent(Ailment::ServerError), says), "{status}");
        }
        let dial = |timeout| of_failure(&UpstreamError::Dial(String::new(), timeout)).0;
        assert_eq!((dial(true), dial(false)), (Shown::Silent(Ailment::Timeout), Shown::Silent(Ailment::Unreachable)));
    }

    #[test]
    fn a_pause_the_agent_asks_for_is_read_in_seconds() {
        for (value, wait) in [("7", Some(7)), (" 0 ", Some(0)), ("-1", None), ("Fri, 31 Dec 1999 23:59:59 GMT", None)] {
            let headers = HeaderMap::from_iter([(header::RETRY_AFTER, value.parse().expect("a value"))]);
            let (_, sign) = of_answer(StatusCode::SERVICE_UNAVAILABLE, &headers, 7, false);
            assert_eq!(sign, Sign::SaysItFails { caller: 7, pause: wait.map(Duration::from_secs) }, "{value}");
        }
    }
}
