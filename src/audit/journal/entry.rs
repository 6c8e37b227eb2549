//! The entries of the journal as bytes: framing, and the facts of a call as tagged values.
//!
//! An entry is `u32` length of what follows the checksum, `u32` CRC-32 of it, one byte of kind, the payload; integers are
//! little-endian. A length of zero is the end: segments are filled with zeros beforehand. A payload is a list of values, each
//! `u8` tag, `u16` length, bytes, in ascending order of tags; absent values are left out. Tags from 0xf0 on are the side
//! section: what the row or the limits need but the canonical record does not contain.
//!
//! Must not know files. Decoding never panics, whatever the bytes.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use uuid::Uuid;

use crate::audit::record::{Charge, Intent, Outcome, bound};
use crate::clock::Timestamp;
use crate::store::rows::{CallRow, storable_address};

/// Bytes before the payload: length, checksum, kind.
pub(crate) const FRAME: usize = 9;
/// No entry is longer: every string in it is bounded. A length above this is damage.
pub(crate) const ENTRY_MAX: usize = 8 * 1024;
/// The bound for words that the gateway itself chooses: reasons, rules, names of operations.
const OWN_WORD: usize = 96;
/// The most that an outcome takes: what an intent reserves beside itself.
pub(crate) const OUTCOME_MAX: usize = FRAME
    + (3 + 16) // request id
    + (3 + OWN_WORD) * 2 // ending, reason
    + (3 + bound::WORD) // task state
    + (3 + bound::ID) * 2 // task, context
    + (3 + 8) * 10; // ten numbers

/// What an entry is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Kind {
    /// A call begins.
    Intent = 1,
    /// A call is over.
    Outcome = 2,
    /// Both at once: a refusal.
    Whole = 3,
    /// An intent copied forward from the segment before.
    Carried = 4,
}

impl Kind {
    fn from_byte(byte: u8) -> Option<Self> {
        [Self::Intent, Self::Outcome, Self::Whole, Self::Carried].into_iter().find(|kind| *kind as u8 == byte)
    }
}

mod tag {
    pub(super) const REQUEST_ID: u8 = 1;
    pub(super) const CALLED_AT: u8 = 2;
    pub(super) const TARGET: u8 = 3;
    pub(super) const CALLER: u8 = 4;
    pub(super) const CREDENTIAL: u8 = 5;
    pub(super) const AUTH_METHOD: u8 = 6;
    pub(super) const TRUST_LEVEL: u8 = 7;
    pub(super) const CONNECTION: u8 = 8;
    pub(super) const BINDING: u8 = 9;
    pub(super) const PROTOCOL_VERSION: u8 = 10;
    pub(super) const METHOD: u8 = 11;
    pub(super) const OPERATION: u8 = 12;
    pub(super) const RPC_ID: u8 = 13;
    pub(super) const TASK_ID: u8 = 14;
    pub(super) const CONTEXT_ID: u8 = 15;
    pub(super) const MESSAGE_ID: u8 = 16;
    pub(super) const DECISION: u8 = 17;
    pub(super) const REASON: u8 = 18;
    pub(super) const POLICY_RULE: u8 = 19;
    pub(super) const POLICY_DIGEST: u8 = 20;
    pub(super) const UNITS: u8 = 21;
    pub(super) const TRACE_ID: u8 = 22;
    pub(super) const REQUEST_BYTES: u8 = 23;
    pub(super) const LIMIT_NAME: u8 = 24;
    pub(super) const LIMIT_LEFT: u8 = 25;

    pub(super) const OUTCOME: u8 = 40;
    pub(super) const STATUS_CODE: u8 = 41;
    pub(super) const UPSTREAM_STATUS: u8 = 42;
    pub(super) const RPC_ERROR_CODE: u8 = 43;
    pub(super) const TASK_STATE: u8 = 44;
    pub(super) const RESPONSE_BYTES: u8 = 45;
    pub(super) const STREAM_EVENTS: u8 = 46;
    pub(super) const TTFB_MS: u8 = 47;
    pub(super) const LATENCY_MS: u8 = 48;
    // What an outcome knows better than its intent.
    pub(super) const FINAL_REASON: u8 = 49;
    pub(super) const FINAL_TASK_ID: u8 = 50;
    pub(super) const FINAL_CONTEXT_ID: u8 = 51;
    pub(super) const FINAL_REQUEST_BYTES: u8 = 52;

    pub(super) const SALT: u8 = 0xf0;
    pub(super) const CLIENT_IP: u8 = 0xf1;
    pub(super) const CHARGE: u8 = 0xf2;
    // The last value of an outcome, so that folding can raise it in place.
    pub(super) const CALLS: u8 = 0xff;
}

/// A caller's address as it may be stored: with its host part removed unless `full`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct StoredAddress {
    address: IpAddr,
    full: bool,
}

impl StoredAddress {
    pub(crate) fn new(address: IpAddr, full: bool) -> Self {
        let address = match address.to_canonical() {
            address if full => address,
            IpAddr::V4(v4) => {
                let [a, b, c, _] = v4.octets();
                Ipv4Addr::new(a, b, c, 0).into()
            }
            IpAddr::V6(v6) => {
                let [a, b, c, ..] = v6.segments();
                Ipv6Addr::new(a, b, c, 0, 0, 0, 0, 0).into()
            }
        };
        Self { address, full }
    }

    fn write(self, values: &mut Values<'_>) {
        let mut bytes = [0; 17];
        bytes[0] = u8::from(self.full);
        let len = match self.address {
            IpAddr::V4(v4) => {
                bytes[1..5].copy_from_slice(&v4.octets());
                5
            }
            IpAddr::V6(v6) => {
                bytes[1..17].copy_from_slice(&v6.octets());
                17
            }
        };
        values.put(tag::CLIENT_IP, &bytes[..len]);
    }

    fn read(bytes: &[u8]) -> Option<String> {
        let (full, bytes) = bytes.split_first()?;
        let address = if let Ok(v4) = <[u8; 4]>::try_from(bytes) {
            IpAddr::from(v4)
        } else {
            IpAddr::from(<[u8; 16]>::try_from(bytes).ok()?)
        };
        Some(storable_address(address, *full != 0))
    }
}

/// An intent with what the journal adds to it.
#[derive(Clone, Debug)]
pub(crate) struct Opened {
    pub(crate) intent: Intent,
    pub(crate) request_bytes: u64,
    pub(crate) address: Option<StoredAddress>,
    /// Of the address's commitment; drawn once, so that carrying the intent forward does not change the record.
    pub(crate) salt: [u8; 16],
}

impl Opened {
    pub(crate) fn new(intent: Intent, request_bytes: u64, full_addresses: bool) -> Self {
        let address = intent.client_ip.map(|ip| StoredAddress::new(ip, full_addresses));
        // 122 bits of the thread's cryptographic generator: enough to hide which of 2^24 networks was hashed.
        let salt = if address.is_some() { Uuid::new_v4().into_bytes() } else { [0; 16] };
        Self { intent, request_bytes, address, salt }
    }
}

/// Appends an intent, with `kind` saying whether it is a new or a carried one.
pub(crate) fn write_intent(out: &mut Vec<u8>, kind: Kind, opened: &Opened) {
    framed(out, kind, |values| {
        intent_values(values, opened);
        side_values(values, opened);
    });
}

/// Appends the outcome of the call `request_id`; never longer than [`OUTCOME_MAX`].
pub(crate) fn write_outcome(out: &mut Vec<u8>, request_id: Uuid, outcome: &Outcome) {
    framed(out, Kind::Outcome, |values| {
        values.put(tag::REQUEST_ID, request_id.as_bytes());
        outcome_values(values, outcome);
        values.put(tag::CALLS, &outcome.calls.to_le_bytes());
    });
}

/// Appends a refusal, which ends with the number of calls it stands for.
pub(crate) fn write_whole(out: &mut Vec<u8>, opened: &Opened, outcome: &Outcome) {
    framed(out, Kind::Whole, |values| {
        intent_values(values, opened);
        outcome_values(values, outcome);
        side_values(values, opened);
        values.put(tag::CALLS, &outcome.calls.to_le_bytes());
    });
}

/// Sets the number of calls of the refusal that is the whole of `entry`.
pub(crate) fn set_calls(entry: &mut [u8], calls: u32) {
    if let Some(at) = entry.len().checked_sub(4) {
        entry[at..].copy_from_slice(&calls.to_le_bytes());
        seal(entry);
    }
}

fn framed(out: &mut Vec<u8>, kind: Kind, write: impl FnOnce(&mut Values<'_>)) {
    let start = out.len();
    out.extend_from_slice(&[0; FRAME - 1]);
    out.push(kind as u8);
    write(&mut Values(out));
    seal(&mut out[start..]);
}

/// Fills in length and checksum of the one entry in `entry`.
fn seal(entry: &mut [u8]) {
    let crc = crc32fast::hash(&entry[8..]);
    let len = u32::try_from(entry.len() - 8).expect("an entry is bounded by ENTRY_MAX");
    entry[..4].copy_from_slice(&len.to_le_bytes());
    entry[4..8].copy_from_slice(&crc.to_le_bytes());
}

fn intent_values(values: &mut Values<'_>, opened: &Opened) {
    let intent = &opened.intent;
    values.put(tag::REQUEST_ID, intent.request_id.as_bytes());
    values.put(tag::CALLED_AT, &intent.called_at.0.to_le_bytes());
    values.uuid(tag::TARGET, intent.target_agent_id);
    values.uuid(tag::CALLER, intent.caller_agent_id);
    values.uuid(tag::CREDENTIAL, intent.credential_id);
    values.text(tag::AUTH_METHOD, Some(intent.auth_method.as_str()), OWN_WORD);
    values.text(tag::TRUST_LEVEL, Some(intent.trust_level.as_str()), OWN_WORD);
    values.uuid(tag::CONNECTION, intent.connection_id);
    values.text(tag::BINDING, Some(intent.binding.as_str()), OWN_WORD);
    values.text(tag::PROTOCOL_VERSION, intent.protocol_version.as_deref(), bound::WORD);
    values.text(tag::METHOD, intent.method.as_deref(), bound::METHOD);
    values.text(tag::OPERATION, Some(intent.operation.as_str()), OWN_WORD);
    values.text(tag::RPC_ID, intent.rpc_id.as_deref(), bound::ID);
    values.text(tag::TASK_ID, intent.task_id.as_deref(), bound::ID);
    values.text(tag::CONTEXT_ID, intent.context_id.as_deref(), bound::ID);
    values.text(tag::MESSAGE_ID, intent.message_id.as_deref(), bound::ID);
    values.text(tag::DECISION, Some(intent.decision.as_str()), OWN_WORD);
    values.text(tag::REASON, intent.reason, OWN_WORD);
    values.text(tag::POLICY_RULE, intent.policy_rule.as_deref(), OWN_WORD);
    values.text(tag::POLICY_DIGEST, intent.policy_digest.as_deref(), bound::WORD);
    values.put(tag::UNITS, &intent.units.to_le_bytes());
    values.text(tag::TRACE_ID, intent.trace_id.as_deref(), bound::WORD);
    values.put(tag::REQUEST_BYTES, &opened.request_bytes.to_le_bytes());
    if let Some(limit) = intent.limit {
        values.text(tag::LIMIT_NAME, Some(limit.name), OWN_WORD);
        values.put(tag::LIMIT_LEFT, &limit.left.to_le_bytes());
    }
}

fn outcome_values(values: &mut Values<'_>, outcome: &Outcome) {
    values.text(tag::OUTCOME, Some(outcome.ending.as_str()), OWN_WORD);
    values.put(tag::STATUS_CODE, &outcome.status_code.to_le_bytes());
    if let Some(status) = outcome.upstream_status {
        values.put(tag::UPSTREAM_STATUS, &status.to_le_bytes());
    }
    if let Some(code) = outcome.rpc_error_code {
        values.put(tag::RPC_ERROR_CODE, &code.to_le_bytes());
    }
    values.text(tag::TASK_STATE, outcome.task_state.as_deref(), bound::WORD);
    values.put(tag::RESPONSE_BYTES, &outcome.response_bytes.to_le_bytes());
    if let Some(events) = outcome.stream_events {
        values.put(tag::STREAM_EVENTS, &events.to_le_bytes());
    }
    if let Some(ttfb) = outcome.ttfb_ms {
        values.put(tag::TTFB_MS, &ttfb.to_le_bytes());
    }
    values.put(tag::LATENCY_MS, &outcome.latency_ms.to_le_bytes());
    values.text(tag::FINAL_REASON, outcome.reason, OWN_WORD);
    values.text(tag::FINAL_TASK_ID, outcome.task_id.as_deref(), bound::ID);
    values.text(tag::FINAL_CONTEXT_ID, outcome.context_id.as_deref(), bound::ID);
    values.put(tag::FINAL_REQUEST_BYTES, &outcome.request_bytes.to_le_bytes());
}

fn side_values(values: &mut Values<'_>, opened: &Opened) {
    if let Some(address) = opened.address {
        values.put(tag::SALT, &opened.salt);
        address.write(values);
    }
    if let Some(charge) = opened.intent.charge {
        let mut bytes = [0; 28];
        bytes[..16].copy_from_slice(&charge.key);
        bytes[16..24].copy_from_slice(&charge.refill_us.to_le_bytes());
        bytes[24..].copy_from_slice(&charge.units.to_le_bytes());
        values.put(tag::CHARGE, &bytes);
    }
}

struct Values<'a>(&'a mut Vec<u8>);

impl Values<'_> {
    fn put(&mut self, tag: u8, value: &[u8]) {
        let [low, high] = u16::try_from(value.len()).expect("every value is bounded by ENTRY_MAX").to_le_bytes();
        self.0.extend_from_slice(&[tag, low, high]);
        self.0.extend_from_slice(value);
    }

    fn text(&mut self, tag: u8, value: Option<&str>, max: usize) {
        if let Some(value) = value {
            self.put(tag, &value.as_bytes()[..value.floor_char_boundary(max)]);
        }
    }

    fn uuid(&mut self, tag: u8, value: Option<Uuid>) {
        if let Some(value) = value {
            self.put(tag, value.as_bytes());
        }
    }
}

/// What stands at the beginning of some bytes of a segment.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Next<'a> {
    /// An entry; it ends `len` bytes on.
    Entry { kind: Kind, payload: &'a [u8], len: usize },
    /// The bytes end before the entry does.
    Short,
    /// A length of zero, or of what is left of it.
    End,
    /// Not an entry: an impossible length, an unknown kind or a wrong checksum.
    Damaged,
}

/// Reads the entry at the beginning of `bytes`.
pub(crate) fn next(bytes: &[u8]) -> Next<'_> {
    let Some((head, rest)) = bytes.split_first_chunk::<8>() else {
        return if bytes.iter().all(|byte| *byte == 0) { Next::End } else { Next::Short };
    };
    let [l0, l1, l2, l3, c0, c1, c2, c3] = *head;
    let len = u32::from_le_bytes([l0, l1, l2, l3]) as usize;
    if len == 0 {
        return Next::End;
    }
    if len > ENTRY_MAX {
        return Next::Damaged;
    }
    let Some(body) = rest.get(..len) else { return Next::Short };
    match (Kind::from_byte(body[0]), crc32fast::hash(body) == u32::from_le_bytes([c0, c1, c2, c3])) {
        (Some(kind), true) => Next::Entry { kind, payload: &body[1..], len: 8 + len },
        _ => Next::Damaged,
    }
}

/// The request id that a payload begins with.
pub(crate) fn request_id(payload: &[u8]) -> Option<Uuid> {
    let value = payload.strip_prefix(&[tag::REQUEST_ID, 16, 0])?.first_chunk::<16>()?;
    Some(Uuid::from_bytes(*value))
}

/// How many calls an entry begins.
pub(crate) fn begun(kind: Kind, payload: &[u8]) -> u64 {
    match kind {
        Kind::Intent => 1,
        Kind::Whole => {
            let calls = payload.last_chunk::<7>().and_then(|last| last.strip_prefix(&[tag::CALLS, 4, 0]));
            calls.and_then(<[u8]>::first_chunk).map_or(1, |calls| u64::from(u32::from_le_bytes(*calls)))
        }
        Kind::Outcome | Kind::Carried => 0,
    }
}

/// A row being put together from the payloads of a call.
#[derive(Debug)]
pub(crate) struct Draft {
    pub(crate) row: CallRow,
    pub(crate) charge: Option<Charge>,
}

impl Draft {
    /// A call of which nothing is known yet but that the gateway did not end it properly.
    pub(crate) fn new(node_id: Uuid) -> Self {
        let row = CallRow {
            id: Uuid::nil(),
            node_id,
            seq: 0,
            target_agent_id: None,
            caller_agent_id: None,
            credential_id: None,
            auth_method: String::new(),
            client_ip: None,
            personal_salt: None,
            client_ip_commitment: None,
            trust_level: String::new(),
            connection_id: None,
            binding: String::new(),
            protocol_version: None,
            method: None,
            operation: String::new(),
            rpc_id: None,
            task_id: None,
            context_id: None,
            message_id: None,
            decision: String::new(),
            reason: None,
            policy_rule: None,
            policy_digest: None,
            units: 0,
            outcome: crate::audit::record::Ending::Interrupted.as_str().to_owned(),
            status_code: 0,
            upstream_status: None,
            rpc_error_code: None,
            task_state: None,
            request_bytes: 0,
            response_bytes: 0,
            stream_events: None,
            ttfb_ms: None,
            latency_ms: 0,
            calls: 1,
            trace_id: None,
            limit_name: None,
            limit_left: None,
            called_at: Timestamp::default(),
            leaf_hash: [0; 32],
            erased_at: None,
        };
        Self { row, charge: None }
    }

    /// Adds what a payload says; `None` if it cannot be read, which a matching checksum makes a bug, not an accident.
    pub(crate) fn apply(&mut self, mut payload: &[u8]) -> Option<()> {
        while let Some(([tag, low, high], rest)) = payload.split_first_chunk::<3>() {
            let (value, rest) = rest.split_at_checked(usize::from(u16::from_le_bytes([*low, *high])))?;
            self.set(*tag, value)?;
            payload = rest;
        }
        payload.is_empty().then_some(())
    }

    fn set(&mut self, tag: u8, value: &[u8]) -> Option<()> {
        let row = &mut self.row;
        match tag {
            tag::REQUEST_ID => row.id = uuid(value)?,
            tag::CALLED_AT => row.called_at = Timestamp(int(value)?),
            tag::TARGET => row.target_agent_id = Some(uuid(value)?),
            tag::CALLER => row.caller_agent_id = Some(uuid(value)?),
            tag::CREDENTIAL => row.credential_id = Some(uuid(value)?),
            tag::AUTH_METHOD => row.auth_method = text(value)?,
            tag::TRUST_LEVEL => row.trust_level = text(value)?,
            tag::CONNECTION => row.connection_id = Some(uuid(value)?),
            tag::BINDING => row.binding = text(value)?,
            tag::PROTOCOL_VERSION => row.protocol_version = Some(text(value)?),
            tag::METHOD => row.method = Some(text(value)?),
            tag::OPERATION => row.operation = text(value)?,
            tag::RPC_ID => row.rpc_id = Some(text(value)?),
            tag::TASK_ID | tag::FINAL_TASK_ID => row.task_id = Some(text(value)?),
            tag::CONTEXT_ID | tag::FINAL_CONTEXT_ID => row.context_id = Some(text(value)?),
            tag::MESSAGE_ID => row.message_id = Some(text(value)?),
            tag::DECISION => row.decision = text(value)?,
            tag::REASON | tag::FINAL_REASON => row.reason = Some(text(value)?),
            tag::POLICY_RULE => row.policy_rule = Some(text(value)?),
            tag::POLICY_DIGEST => row.policy_digest = Some(text(value)?),
            tag::UNITS => row.units = int(value)?,
            tag::TRACE_ID => row.trace_id = Some(text(value)?),
            tag::LIMIT_NAME => row.limit_name = Some(text(value)?),
            tag::LIMIT_LEFT => row.limit_left = Some(int(value)?),
            tag::REQUEST_BYTES | tag::FINAL_REQUEST_BYTES => row.request_bytes = int(value)?,
            tag::OUTCOME => row.outcome = text(value)?,
            tag::STATUS_CODE => row.status_code = int(value)?,
            tag::UPSTREAM_STATUS => row.upstream_status = Some(int(value)?),
            tag::RPC_ERROR_CODE => row.rpc_error_code = Some(int(value)?),
            tag::TASK_STATE => row.task_state = Some(text(value)?),
            tag::RESPONSE_BYTES => row.response_bytes = int(value)?,
            tag::STREAM_EVENTS => row.stream_events = Some(int(value)?),
            tag::TTFB_MS => row.ttfb_ms = Some(int(value)?),
            tag::LATENCY_MS => row.latency_ms = int(value)?,
            tag::SALT => row.personal_salt = Some(value.try_into().ok()?),
            tag::CLIENT_IP => row.client_ip = Some(StoredAddress::read(value)?),
            tag::CHARGE => self.charge = Some(charge(value)?),
            tag::CALLS => row.calls = int(value)?,
            _ => return None,
        }
        Some(())
    }
}

fn text(value: &[u8]) -> Option<String> {
    std::str::from_utf8(value).ok().map(str::to_owned)
}

fn uuid(value: &[u8]) -> Option<Uuid> {
    Uuid::from_slice(value).ok()
}

/// An integer of 2, 4 or 8 bytes; only those of 8 bytes may be negative.
fn int(value: &[u8]) -> Option<i64> {
    match value.len() {
        2 => Some(i64::from(u16::from_le_bytes(value.try_into().ok()?))),
        4 => Some(i64::from(u32::from_le_bytes(value.try_into().ok()?))),
        8 => Some(i64::from_le_bytes(value.try_into().ok()?)),
        _ => None,
    }
}

fn charge(value: &[u8]) -> Option<Charge> {
    let (key, rest) = value.split_first_chunk::<16>()?;
    let (refill, rest) = rest.split_first_chunk::<8>()?;
    let units = u32::from_le_bytes(rest.try_into().ok()?);
    Some(Charge { key: *key, refill_us: u64::from_le_bytes(*refill), units })
}
