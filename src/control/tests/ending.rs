//! Ending a call that is open.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};

use http::Method;
use serde_json::json;
use uuid::Uuid;

use super::Api;
use super::calls::{id, log, open, row};

#[tokio::test]
async fn an_admin_ends_a_call_with_a_reason_and_nobody_else_does() {
    let api = Api::new().await;
    let (one, key) = api.agent("one").await;
    let (two, _) = api.agent("two").await;
    let call = open(id(&one), id(&two));
    let path = format!("/api/calls/active/{}/end", call.request_id);
    api.open_calls.lock().expect("lock").push(call.clone());
    api.operator(Method::POST, &path, Some(&api.auditor), Some(json!({}))).await.is_problem(403);
    api.operator(Method::POST, &path, None, None).await.is_problem(401);
    api.public(Method::POST, &path, Some(&key), None).await.is_problem(404);
    let long = api.admin(Method::POST, &path, Some(json!({"reason": "x".repeat(501)}))).await;
    long.is_problem(400);
    let event = async || api.admin(Method::GET, "/api/events?action=call.end", None).await.body["events"].clone();
    assert_eq!(event().await, json!([]), "nothing was ended");

    let ended = api.admin(Method::POST, &path, Some(json!({"reason": "too long"}))).await;
    assert_eq!((ended.status.as_u16(), &ended.body["call"]["target"]["slug"]), (200, &json!("two")), "{}", ended.text);
    let event = event().await[0].clone();
    assert_eq!((&event["actor"], &event["reason"]), (&json!("operator:root"), &json!("too long")));
    assert_eq!((&event["subject"], &event["before"]["caller_agent_id"]), (&json!(call.request_id), &json!(one)));
}

#[tokio::test]
async fn a_call_that_is_not_open_here_is_not_found_and_why_is_told() {
    let api = Api::new().await;
    let end = async |id: Uuid| api.admin(Method::POST, &format!("/api/calls/active/{id}/end"), None).await;
    let never = end(Uuid::from_u128(9)).await;
    never.is_problem(404);
    assert!(never.text.contains("/api/calls/active"), "{}", never.text);
    log(&api, vec![row(1, Uuid::nil(), Uuid::nil())]).await;
    let over = end(Uuid::from_u128(1)).await;
    over.is_problem(404);
    assert!(over.text.contains("is over: it ended as completed"), "{}", over.text);
    let odd = api.admin(Method::POST, "/api/calls/active/x/end", None).await;
    odd.is_problem(400);

    // It ended by itself while that was asked.
    let mut api = Api::new().await;
    let call = open(Uuid::nil(), Uuid::nil());
    api.open_calls.lock().expect("lock").push(call.clone());
    Arc::get_mut(&mut api.control).expect("nobody else has it").end_call = Arc::new(|_| false);
    let path = format!("/api/calls/active/{}/end", call.request_id);
    api.admin(Method::POST, &path, None).await.is_problem(404);
}

#[tokio::test]
async fn a_call_is_not_ended_where_that_cannot_be_written_down() {
    let mut api = Api::new().await;
    let call = open(Uuid::nil(), Uuid::nil());
    api.open_calls.lock().expect("lock").push(call.clone());
    let ended = Arc::new(AtomicBool::new(false));
    let told = Arc::clone(&ended);
    Arc::get_mut(&mut api.control).expect("nobody else has it").end_call = Arc::new(move |_| !told.swap(true, SeqCst));
    api.bench.database.by_hand("ALTER TABLE admin_events RENAME TO away").await;
    let path = format!("/api/calls/active/{}/end", call.request_id);
    api.admin(Method::POST, &path, None).await.is_problem(503);
    assert!(!ended.load(SeqCst));
}
