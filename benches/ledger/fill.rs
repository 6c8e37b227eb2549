//! A log of many rows: a day of calls between a hundred pairs of agents, written as the drain writes them.

use std::io::Write as _;
use std::time::{Duration, Instant};

use trust_gateway::audit::canonical;
use trust_gateway::clock::Timestamp;
use trust_gateway::store::Store;
use trust_gateway::store::calls::DrainBatch;
use trust_gateway::store::ledger::Growth;
use trust_gateway::store::rows::CallRow;
use uuid::Uuid;

use crate::Fallible;

/// Rows per commit: the drain's most.
const BATCH: u64 = 4_096;
const DAY_US: u64 = 86_400_000_000;
const CALLERS: u64 = 10;
const TARGETS: u64 = 10;

/// A calling agent.
pub(crate) fn caller(n: u64) -> Uuid {
    Uuid::from_u128(0xa000 + u128::from(n % CALLERS))
}

/// An agent that is called.
pub(crate) fn target(n: u64) -> Uuid {
    Uuid::from_u128(0xb000 + u128::from(n % TARGETS))
}

/// Writes the calls of the day that begins at `begin`; how long that took.
pub(crate) async fn fill(store: Store, node: Uuid, rows: u64, begin: Timestamp) -> Fallible<Duration> {
    let begun = Instant::now();
    let mut tree = store.ledger_head(node).await?;
    let mut at = 0;
    while at < rows {
        let mut growth = Growth::of(tree);
        let batch = (at..rows.min(at + BATCH)).map(|n| {
            let mut row = row(node, n, time_of(n, rows, begin));
            row.leaf_hash = canonical::leaf_hash(&row);
            growth.push(row.leaf_hash);
            row.seq = growth.frontier.size().cast_signed();
            row
        });
        let batch = batch.collect();
        store
            .commit_drained(&DrainBatch { node, rows: batch, growth: growth.clone(), ..DrainBatch::default() })
            .await?;
        tree = growth.frontier;
        at += BATCH;
        if (at / BATCH).is_multiple_of(50) {
            eprint!("\r{} of {rows} rows written", at.min(rows));
            std::io::stderr().flush()?;
        }
    }
    eprintln!();
    let took = begun.elapsed();
    store.close().await;
    Ok(took)
}

/// When call `n` of `rows` arrives.
pub(crate) fn time_of(n: u64, rows: u64, begin: Timestamp) -> Timestamp {
    begin.plus_micros((n * DAY_US / rows).cast_signed())
}

/// The request id of call `n`, whose time is `at`.
pub(crate) fn request_id(n: u64, at: Timestamp) -> Uuid {
    let millis = u128::from(at.0.cast_unsigned() / 1_000);
    Uuid::from_u128(millis << 80 | 0x7 << 76 | 0x8 << 60 | u128::from(n))
}

fn row(node: Uuid, n: u64, called_at: Timestamp) -> CallRow {
    // Scattered, so that callers and targets meet in every pair and nothing is in step with time.
    let mixed = n.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 20;
    let refused = mixed.is_multiple_of(50);
    let word = |text: &str| Some(text.to_owned());
    let number = |n: u64| n.cast_signed();
    CallRow {
        id: request_id(n, called_at),
        node_id: node,
        seq: 0,
        target_agent_id: Some(target(mixed)),
        caller_agent_id: Some(caller(mixed / TARGETS)),
        credential_id: Some(caller(mixed / TARGETS)),
        auth_method: "api_key".to_owned(),
        client_ip: Some(format!("198.51.{}.0/24", mixed % 250)),
        personal_salt: Some(u128::from(mixed).to_be_bytes()),
        client_ip_commitment: None,
        trust_level: "connected".to_owned(),
        connection_id: Some(Uuid::from_u128(u128::from(mixed % 100))),
        binding: "jsonrpc".to_owned(),
        protocol_version: word("1.0"),
        method: word("SendMessage"),
        operation: "SendMessage".to_owned(),
        rpc_id: Some(n.to_string()),
        task_id: Some(format!("task-{}", n / 3)),
        context_id: Some(format!("context-{}", n / 20)),
        message_id: Some(format!("message-{n}")),
        decision: if refused { "refused" } else { "allowed" }.to_owned(),
        reason: refused.then(|| "RATE_LIMITED".to_owned()),
        policy_rule: word("connection.rate"),
        policy_digest: word("5f0f6b0c6d1e4a37"),
        units: number(1 - u64::from(refused)),
        outcome: if refused { "refused" } else { "completed" }.to_owned(),
        status_code: if refused { 429 } else { 200 },
        upstream_status: (!refused).then_some(200),
        rpc_error_code: None,
        task_state: (!refused).then(|| "TASK_STATE_COMPLETED".to_owned()),
        request_bytes: number(mixed % 4_000),
        response_bytes: number(mixed % 16_000),
        stream_events: None,
        ttfb_ms: (!refused).then(|| number(mixed % 300)),
        latency_ms: number(mixed % 1_500),
        calls: 1,
        trace_id: Some(format!("{:032x}", u128::from(mixed) << 40 | u128::from(n))),
        limit_name: word("connection.rate"),
        limit_left: Some(number(mixed % 300)),
        called_at,
        erased_at: None,
        leaf_hash: [0; 32],
    }
}
