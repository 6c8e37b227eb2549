use super::*;

async fn pair(api: &Api) -> [(String, String); 2] {
    [api.agent("asker").await, api.agent("asked").await]
}

#[tokio::test]
async fn both_dialects_ask_and_answer() {
    let api = Api::new().await;
    let [(asker, asker_key), (asked, asked_key)] = pair(&api).await;
    let (third, third_key) = api.agent("third").await;
    // As the code has it.
    let wish = json!({"target_agent_id": asked, "message": "hello"});
    let made = api.public(Method::POST, "/api/connections", Some(&asker_key), Some(wish)).await;
    assert_eq!(made.status, 201, "{}", made.text);
    assert_eq!((made.body["status"].clone(), made.body["auto_accepted"].clone()), (json!("pending"), json!(false)));
    assert_eq!(made.body["requester"]["slug"], "asker");
    let path = format!("/api/connections/{}", made.body["id"].as_str().expect("an id"));
    let done = api.public(Method::PUT, &path, Some(&asked_key), Some(json!({"action": "accept"}))).await;
    assert_eq!((done.status.as_u16(), done.body["status"].clone()), (200, json!("connected")), "{}", done.text);
    assert!(done.body["resolved_at"].is_string());
    // As the documentation has it.
    let wish = json!({"requester_id": third, "target_id": asker});
    let made = api.public(Method::POST, "/api/connections", Some(&third_key), Some(wish)).await;
    let path = format!("/api/connections/{}", made.body["id"].as_str().expect("an id"));
    let done = api.public(Method::PUT, &path, Some(&asker_key), Some(json!({"status": "declined"}))).await;
    assert_eq!(done.body["status"], "declined");
    let list = api.public(Method::GET, "/api/connections?status=connected", Some(&asker_key), None).await.body;
    assert_eq!(list["connections"].as_array().expect("a list").len(), 1);
    let count = api.public(Method::GET, "/api/agents/asked", None, None).await.body["connections_count"].clone();
    assert_eq!(count, 1);
}

#[tokio::test]
async fn a_second_request_is_409_and_shows_the_first() {
    let api = Api::new().await;
    let [(asker, asker_key), (asked, asked_key)] = pair(&api).await;
    let made = api.public(Method::POST, "/api/connections", Some(&asker_key), Some(json!({"target_id": asked}))).await;
    for (key, target) in [(&asker_key, &asked), (&asked_key, &asker)] {
        let again = api.public(Method::POST, "/api/connections", Some(key), Some(json!({"target_id": target}))).await;
        again.is_problem(409);
        assert_eq!(again.body["error"], "Connection already exists");
        assert_eq!(again.body["connection"], json!({"id": made.body["id"], "status": "pending"}));
    }
}

#[tokio::test]
async fn whoever_accepts_by_itself_is_connected_at_once() {
    let api = Api::new().await;
    let [(_, asker_key), (_, asked_key)] = pair(&api).await;
    let open = json!({"auto_accept_connections": true});
    api.public(Method::PUT, "/api/agents/asked", Some(&asked_key), Some(open)).await;
    let made =
        api.public(Method::POST, "/api/connections", Some(&asker_key), Some(json!({"target_id": "asked"}))).await;
    assert_eq!((made.body["status"].clone(), made.body["auto_accepted"].clone()), (json!("connected"), json!(true)));
}

#[tokio::test]
async fn requests_that_make_no_sense_say_why() {
    let api = Api::new().await;
    let [(asker, asker_key), (asked, _)] = pair(&api).await;
    let post = |body: Value| api.public(Method::POST, "/api/connections", Some(&asker_key), Some(body));
    post(json!({})).await.is_problem(400);
    post(json!({"target_id": asker})).await.is_problem(400);
    post(json!({"target_id": asked, "message": "x".repeat(151)})).await.is_problem(400);
    post(json!({"target_id": "nobody"})).await.is_problem(404);
    post(json!({"target_id": asker, "requester_id": asked})).await.is_problem(403);
    post(json!({"target_id": asked, "status": "connected"})).await.is_problem(403);
    post(json!({"target_id": asked, "limits": {"daily": 1}})).await.is_problem(403);
    post(json!({"target_id": asked, "status": "declined"})).await.is_problem(400);
    api.public(Method::POST, "/api/connections", None, Some(json!({"target_id": asked}))).await.is_problem(401);
    assert_eq!(post(json!({"target_id": asked})).await.status, 201, "none of these left anything behind");
}

#[tokio::test]
async fn only_the_two_sides_and_operators_see_a_connection() {
    let api = Api::new().await;
    let [(_, asker_key), (asked, asked_key)] = pair(&api).await;
    let (_, third_key) = api.agent("third").await;
    let made = api.public(Method::POST, "/api/connections", Some(&asker_key), Some(json!({"target_id": asked}))).await;
    let path = format!("/api/connections/{}", made.body["id"].as_str().expect("an id"));
    for key in [&asker_key, &asked_key] {
        assert_eq!(api.public(Method::GET, &path, Some(key), None).await.status, 200);
    }
    assert_eq!(api.admin(Method::GET, &path, None).await.status, 200);
    for method in [Method::GET, Method::PUT, Method::DELETE] {
        let body = Some(json!({"action": "accept"}));
        api.public(method.clone(), &path, Some(&third_key), body.clone()).await.is_problem(404);
        api.public(method, &path, None, body).await.is_problem(401);
    }
    api.public(Method::PUT, &path, Some(&asker_key), Some(json!({"action": "accept"}))).await.is_problem(403);
    api.public(Method::PUT, &path, Some(&asked_key), Some(json!({"action": "dance"}))).await.is_problem(400);
    api.public(Method::PUT, &path, Some(&asked_key), Some(json!({}))).await.is_problem(400);
    api.public(Method::GET, "/api/connections?agent_id=asked", Some(&asker_key), None).await.is_problem(403);
}

#[tokio::test]
async fn the_blocked_side_gets_out_of_it_by_no_way() {
    let api = Api::new().await;
    let [(asker, asker_key), (asked, asked_key)] = pair(&api).await;
    let post = |key: String, target: String| {
        let api = &api;
        async move { api.public(Method::POST, "/api/connections", Some(&key), Some(json!({"target_id": target}))).await }
    };
    let made = post(asker_key.clone(), asked.clone()).await;
    let path = format!("/api/connections/{}", made.body["id"].as_str().expect("an id"));
    let blocked = api.public(Method::PUT, &path, Some(&asked_key), Some(json!({"status": "blocked"}))).await;
    assert_eq!(blocked.body["status"], "blocked", "{}", blocked.text);
    for action in ["unblock", "accept"] {
        api.public(Method::PUT, &path, Some(&asker_key), Some(json!({"action": action}))).await.is_problem(403);
    }
    assert_eq!(api.public(Method::DELETE, &path, Some(&asker_key), None).await.status, 204);
    post(asker_key.clone(), asked.clone()).await.is_problem(403);
    post(asked_key.clone(), asker.clone()).await.is_problem(403);
    let shown = api.public(Method::GET, &path, Some(&asked_key), None).await.body;
    assert_eq!((shown["status"].clone(), shown["agreement"].clone()), (json!("blocked"), json!("declined")));
    let free = api.public(Method::PUT, &path, Some(&asked_key), Some(json!({"action": "unblock"}))).await;
    assert_eq!(free.body["status"], "declined");
    post(asker_key, asked).await.is_problem(409);
    let again = post(asked_key, asker).await;
    assert_eq!((again.status.as_u16(), again.body["id"].clone()), (201, made.body["id"].clone()), "the same row again");
    assert_eq!(again.body["requester"]["slug"], "asked", "now the other one asks");
}

#[tokio::test]
async fn a_stranger_can_be_blocked_before_any_connection() {
    let api = Api::new().await;
    let [(asker, asker_key), (asked, asked_key)] = pair(&api).await;
    api.public(Method::PUT, "/api/agents/asker", Some(&asker_key), Some(json!({"listed": false}))).await;
    let block = json!({"target_agent_id": asker, "action": "block"});
    let made = api.public(Method::POST, "/api/connections", Some(&asked_key), Some(block)).await;
    assert_eq!((made.status.as_u16(), made.body["status"].clone()), (201, json!("blocked")), "{}", made.text);
    assert_eq!(made.body["blocked_by_requester"], true);
    let wish = json!({"target_agent_id": asked});
    api.public(Method::POST, "/api/connections", Some(&asker_key), Some(wish)).await.is_problem(403);
}

#[tokio::test]
async fn operators_connect_limit_pause_and_block() {
    let api = Api::new().await;
    let [(asker, asker_key), (asked, asked_key)] = pair(&api).await;
    let wish = json!({
        "requester_id": asker, "target_id": asked, "status": "connected", "ends_at": "2027-01-01T00:00:00Z",
        "limits": {"rate": 10, "period": "1min", "burst": 3, "daily": 100, "streams": 2},
    });
    let made = api.admin(Method::POST, "/api/connections", Some(wish)).await;
    assert_eq!((made.status.as_u16(), made.body["status"].clone()), (201, json!("connected")), "{}", made.text);
    let limits = json!({"rate": 10, "period_ms": 60_000, "burst": 3, "daily": 100, "streams": 2});
    assert_eq!(
        (made.body["limits"].clone(), made.body["ends_at"].clone()),
        (limits, json!("2027-01-01T00:00:00.000000Z"))
    );
    let path = format!("/api/connections/{}", made.body["id"].as_str().expect("an id"));
    for bad in [
        json!({"limits": {"rate": 0, "period": 1}}),
        json!({"limits": {"rate": 5}}),
        json!({"limits": {"rate": 1, "period": "soon"}}),
        json!({"limits": 7}),
        json!({"ends_at": "tomorrow"}),
        json!({"action": "pause", "status": "connected"}),
    ] {
        api.admin(Method::PUT, &path, Some(bad)).await.is_problem(400);
    }
    api.public(Method::PUT, &path, Some(&asker_key), Some(json!({"limits": null}))).await.is_problem(403);
    assert_eq!(api.admin(Method::PUT, &path, Some(json!({"action": "pause"}))).await.body["status"], "paused");
    api.public(Method::PUT, &path, Some(&asked_key), Some(json!({"action": "resume"}))).await.is_problem(403);
    assert_eq!(api.admin(Method::PUT, &path, Some(json!({"status": "connected"}))).await.body["status"], "connected");
    assert_eq!(
        api.admin(Method::PUT, &path, Some(json!({"status": "blocked"}))).await.body["blocked_by_operator"],
        true
    );
    for key in [&asker_key, &asked_key] {
        api.public(Method::PUT, &path, Some(key), Some(json!({"action": "unblock"}))).await.is_problem(403);
    }
    let free = api.admin(Method::PUT, &path, Some(json!({"action": "unblock"}))).await;
    assert_eq!(free.body["status"], "connected");
    // In an agent's place.
    let side = json!({"action": "block", "agent_id": asked});
    let blocked = api.admin(Method::PUT, &path, Some(side)).await;
    assert_eq!(
        (blocked.body["blocked_by_target"].clone(), blocked.body["blocked_by_requester"].clone()),
        (json!(true), json!(false))
    );
}

#[tokio::test]
async fn limits_are_not_shaken_off_by_ending_and_asking_anew() {
    let api = Api::new().await;
    let [(asker, asker_key), (asked, asked_key)] = pair(&api).await;
    let wish = json!({"requester_id": asker, "target_id": asked, "accept": true, "limits": {"daily": 1}});
    let made = api.admin(Method::POST, "/api/connections", Some(wish)).await;
    let path = format!("/api/connections/{}", made.body["id"].as_str().expect("an id"));
    assert_eq!(api.public(Method::DELETE, &path, Some(&asker_key), None).await.status, 204);
    let again = api.public(Method::POST, "/api/connections", Some(&asker_key), Some(json!({"target_id": asked}))).await;
    assert_eq!((again.status.as_u16(), again.body["limits"]["daily"].clone()), (201, json!(1)));
    assert_eq!(again.body["status"], "pending");
    let done = api.public(Method::PUT, &path, Some(&asked_key), Some(json!({"action": "accept"}))).await;
    assert_eq!(done.body["limits"]["daily"], 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_twenty_requests_from_both_sides_one_is_made() {
    let api = Arc::new(Api::new().await);
    let [(asker, asker_key), (asked, asked_key)] = pair(&api).await;
    let mut tasks = tokio::task::JoinSet::new();
    for n in 0..20 {
        let (key, target) =
            if n % 2 == 0 { (asker_key.clone(), asked.clone()) } else { (asked_key.clone(), asker.clone()) };
        let api = Arc::clone(&api);
        tasks.spawn(async move {
            api.public(Method::POST, "/api/connections", Some(&key), Some(json!({"target_id": target})))
                .await
                .status
                .as_u16()
        });
    }
    let mut seen = tasks.join_all().await;
    seen.sort_unstable();
    assert_eq!((seen[0], seen[1], seen[19]), (201, 409, 409));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_agents_that_ask_each_other_at_the_same_instant_get_one_connection() {
    let api = Arc::new(Api::new().await);
    for round in 0..20 {
        let one = api.agent(&format!("one-{round}")).await;
        let two = api.agent(&format!("two-{round}")).await;
        let start = Arc::new(tokio::sync::Barrier::new(2));
        let mut asking = tokio::task::JoinSet::new();
        for (key, target) in [(one.1.clone(), two.0.clone()), (two.1.clone(), one.0.clone())] {
            let (api, start) = (Arc::clone(&api), Arc::clone(&start));
            asking.spawn(async move {
                start.wait().await;
                let wish = Some(json!({"target_id": target}));
                api.public(Method::POST, "/api/connections", Some(&key), wish).await
            });
        }
        let mut answers = asking.join_all().await;
        answers.sort_by_key(|answer| answer.status);
        let statuses: Vec<u16> = answers.iter().map(|answer| answer.status.as_u16()).collect();
        assert_eq!(statuses, [201, 409], "round {round}");
        assert_eq!(answers[1].body["connection"], json!({"id": answers[0].body["id"], "status": "pending"}));
        let list = api.public(Method::GET, "/api/connections", Some(&one.1), None).await.body;
        assert_eq!(list["connections"].as_array().expect("a list").len(), 1);
    }
}

#[tokio::test]
async fn connections_are_paged_without_gap_or_repeat() {
    let api = Api::new().await;
    let (_, key) = api.agent("hub").await;
    for n in 0..7 {
        let (id, _) = api.agent(&format!("spoke-{n}")).await;
        let made = api.public(Method::POST, "/api/connections", Some(&key), Some(json!({"target_id": id}))).await;
        assert_eq!(made.status, 201);
    }
    let (mut seen, mut next) = (Vec::new(), String::new());
    loop {
        let page = api.public(Method::GET, &format!("/api/connections?limit=3{next}"), Some(&key), None).await.body;
        let ids = page["connections"].as_array().expect("a list").iter().map(|row| row["id"].to_string());
        seen.extend(ids);
        match page["next"].as_str() {
            Some(cursor) => next = format!("&next={cursor}"),
            None => break,
        }
    }
    let distinct: std::collections::HashSet<_> = seen.iter().collect();
    assert_eq!((seen.len(), distinct.len()), (7, 7));
    api.public(Method::GET, "/api/connections?next=nonsense", Some(&key), None).await.is_problem(400);
}
