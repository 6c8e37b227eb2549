"""The same bytes sent directly and through the gateway bring the same bytes back."""

import json
import re

import httpx
import pytest

from gateway import told

ID = re.compile(rb"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}")
TIME = re.compile(rb"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?(Z|\+00:00)")


def message(words, dialect):
    if dialect == "0.3":
        return {"messageId": "m-1", "role": "user", "parts": [{"kind": "text", "text": words}]}
    return {"messageId": "m-1", "role": "ROLE_USER", "parts": [{"text": words}]}


def call(method, params, id_=1):
    return json.dumps({"jsonrpc": "2.0", "id": id_, "method": method, "params": params}).encode()


def bodies(dialect):
    """What is sent, by name: calls that work, calls that fail, and spellings no serializer would make."""
    send, stream, get = (
        ("message/send", "message/stream", "tasks/get")
        if dialect == "0.3"
        else ("SendMessage", "SendStreamingMessage", "GetTask")
    )
    spaced = call(send, {"message": message("message spaced", dialect)}).replace(b'": ', b'" :\n\t ')
    return {
        "send": call(send, {"message": message("echo ü \u2028 🤝", dialect)}),
        "string id": call(send, {"message": message("message hi", dialect)}, id_="seven"),
        "stream": call(stream, {"message": message("stream", dialect)}),
        "streamed message": call(stream, {"message": message("message hi", dialect)}),
        "unknown task": call(get, {"id": "no-such-task"}),
        "unknown method": call("no/such/method", {}),
        "legacy method": call("tasks/send", {"id": "t", "message": {"role": "user", "parts": [{"type": "text"}]}}),
        "wrong params": call(send, {"message": "not an object"}),
        "no params": call(send, None),
        "odd spacing": spaced,
        "escaped": call(send, {"message": message("message \\u0041 é", dialect)}),
        "broken json": b'{"jsonrpc": "2.0", "id": 1, "method": ',
        "batch": b"[" + call(get, {"id": "x"}) + b"]",
    }


# The envelope errors are the gateway's own answers; the SDKs' wording of them differs among themselves.
ENVELOPE = {"broken json": -32700, "batch": -32600}
CASES = [
    (kind, dialect, name)
    for kind, dialect in (("py03", "0.3"), ("py10", "1.0"), ("py10", "0.3"), ("js", "1.0"))
    for name in bodies(dialect)
]


def ask(base, body, dialect, key=None):
    headers = {"Content-Type": "application/json", "Accept": "application/json, text/event-stream"}
    if dialect == "1.0":
        headers["A2A-Version"] = "1.0"
    if key:
        headers["Authorization"] = f"Bearer {key}"
    return httpx.post(f"{base}/", content=body, headers=headers, timeout=30)


def settled(body):
    """The bytes with ids and times replaced, which are new in every run."""
    names = {}
    body = ID.sub(lambda found: names.setdefault(found.group(), b"<id %d>" % len(names)), body)
    return TIME.sub(b"<time>", body)


@pytest.fixture(scope="module")
def keys(agents, connected):
    return {kind: connected(f"Wire caller of {kind}", kind)["api_key"] for kind in agents}


@pytest.mark.parametrize(("kind", "dialect", "name"), CASES)
def test_status_type_and_bytes_are_the_agents_own(kind, dialect, name, agents, gateway, targets, keys):
    body = bodies(dialect)[name]
    direct = ask(agents[kind].url, body, dialect)
    through = ask(gateway.base(targets[kind]), body, dialect, key=keys[kind])
    if name in ENVELOPE:
        assert through.status_code == 200, told(through)
        assert through.json()["error"]["code"] == ENVELOPE[name] and through.json()["id"] is None
        return
    assert (through.status_code, through.headers["content-type"]) == (
        direct.status_code,
        direct.headers["content-type"],
    )
    assert settled(through.content) == settled(direct.content)


@pytest.mark.parametrize("kind", ["py03", "py10", "js"])
def test_the_agent_receives_the_bytes_that_were_sent(kind, agents, gateway, targets, keys):
    dialect = "0.3" if kind == "py03" else "1.0"
    body = bodies(dialect)["odd spacing"]
    before = len(agents[kind].requests())
    ask(gateway.base(targets[kind]), body, dialect, key=keys[kind])
    [request] = [each for each in agents[kind].requests(since=before) if each.method == "POST"]
    assert request.body.encode() == body
    assert request.headers.get("a2a-version") == ("1.0" if dialect == "1.0" else None)


def test_the_rpc_url_works_with_and_without_its_slash(agents, gateway, targets, keys):
    answers = [
        httpx.post(
            gateway.base(targets["py03"]) + slash,
            content=bodies("0.3")["unknown task"],
            headers={"Authorization": f"Bearer {keys['py03']}", "Content-Type": "application/json"},
        )
        for slash in ("", "/")
    ]
    assert [each.status_code for each in answers] == [200, 200]
    assert answers[0].content == answers[1].content


@pytest.mark.parametrize("kind", ["py03", "py10", "js"])
def test_the_card_is_found_where_clients_look_for_it(kind, gateway, targets):
    base = gateway.base(targets[kind])
    cards = [httpx.get(base + path) for path in ("/.well-known/agent-card.json", "/.well-known/agent.json", "", "/")]
    for card in cards:
        assert card.status_code == 200 and card.headers["content-type"].startswith("application/json"), told(card)
        assert card.json() == cards[0].json()
    again = httpx.get(f"{base}/.well-known/agent-card.json", headers={"If-None-Match": cards[0].headers["etag"]})
    assert again.status_code == 304 and again.content == b""


@pytest.mark.parametrize("kind", ["py03", "py10", "js"])
def test_the_card_names_no_address_but_the_gateways(kind, agents, gateway, targets):
    card = httpx.get(f"{gateway.base(targets[kind])}/.well-known/agent-card.json").text
    assert agents[kind].url.removeprefix("http://") not in card
    assert gateway.public in card


@pytest.mark.parametrize("method", ["tasks/pushNotificationConfig/set", "CreateTaskPushNotificationConfig"])
def test_push_configurations_are_refused_before_the_agent_sees_them(method, agents, gateway, targets, keys):
    before = len(agents["py10"].requests())
    version = "0.3" if "/" in method else "1.0"
    params = {"taskId": "t", "url": "http://127.0.0.1:9/", "pushNotificationConfig": {"url": "http://127.0.0.1:9/"}}
    answer = ask(gateway.base(targets["py10"]), call(method, params), version, key=keys["py10"])
    assert answer.status_code == 200 and answer.json()["error"]["code"] == -32003, told(answer)
    assert not [each for each in agents["py10"].requests(since=before) if each.method == "POST"]


def test_the_first_event_arrives_while_the_agent_is_still_at_work(agents, gateway, targets, keys):
    """The task below never ends by itself: whatever arrives cannot have waited for the end of the stream."""
    body = call("message/stream", {"message": message("hold", "0.3")})
    headers = {"Authorization": f"Bearer {keys['py03']}", "Content-Type": "application/json"}
    with httpx.stream("POST", gateway.base(targets["py03"]), content=body, headers=headers, timeout=30) as stream:
        events = (json.loads(line[6:])["result"] for line in stream.iter_lines() if line.startswith("data: "))
        task = next(events)
        assert [next(events)["kind"] for _ in range(3)] == ["status-update", "artifact-update", "artifact-update"]
        cancel = ask(gateway.base(targets["py03"]), call("tasks/cancel", {"id": task["id"]}), "0.3", key=keys["py03"])
        assert cancel.json()["result"]["status"]["state"] == "canceled"
        assert [event["kind"] for event in events][-1] == "status-update"


def test_the_row_of_a_stream_tells_its_task_and_its_end(gateway, targets, keys):
    answer = ask(gateway.base(targets["py10"]), bodies("1.0")["stream"], "1.0", key=keys["py10"])
    request_id = answer.headers["x-openagora-request-id"]
    task = json.loads(answer.text.split("data: ", 1)[1].splitlines()[0])["result"]["task"]
    [row] = gateway.calls(request_id=request_id)
    assert (row["operation"], row["outcome"], row["task_id"]) == ("SendStreamingMessage", "completed", task["id"])
    assert row["task_state"] == "TASK_STATE_COMPLETED" and row["stream_events"] == 6
