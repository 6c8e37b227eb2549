"""What a refused caller is told, as the HTTP answer says it and as each SDK shows it."""

import http.client
import json
import re
import socket

import httpx
import pytest

from gateway import told
from processes import play

SEND = {
    "jsonrpc": "2.0",
    "id": "call-7",
    "method": "message/send",
    "params": {"message": {"messageId": "m", "role": "user", "parts": [{"kind": "text", "text": "message hello"}]}},
}


def in_one_piece(url, call, key=None):
    """Posts with head and body in one segment: a refusal decided before the body is read echoes what has arrived by then."""
    body = json.dumps(call).encode()
    to = httpx.URL(url)
    head = [f"POST {to.path} HTTP/1.1", f"Host: {to.host}:{to.port}", "Content-Type: application/json"]
    head += [f"Content-Length: {len(body)}", *([f"Authorization: Bearer {key}"] if key else []), "", ""]
    with socket.create_connection((to.host, to.port), timeout=10) as connection:
        connection.sendall("\r\n".join(head).encode() + body)
        answer = http.client.HTTPResponse(connection)
        answer.begin()
        return httpx.Response(answer.status, headers=answer.getheaders(), content=answer.read())


@pytest.fixture(scope="module")
def spent(agents, gateway, targets):
    """What each SDK shows to an anonymous caller: its first call, and the next ones."""
    results = {}
    for client in agents:
        base = gateway.base(targets[client])
        results[client] = play(client, base, only=["message", "send", "stream", "discover"])
    return results


@pytest.mark.parametrize("client", ["py03", "py10", "js"])
def test_an_anonymous_caller_is_answered_once(client, spent):
    assert "error" not in spent[client]["message"], spent[client]["message"]


@pytest.mark.parametrize("scenario", ["send", "stream"])
@pytest.mark.parametrize("client", ["py03", "py10", "js"])
def test_the_next_anonymous_call_shows_as_429(client, scenario, spent):
    shown = spent[client][scenario]
    if client == "py03":
        assert shown["error"] == "A2AClientHTTPError" and shown["status"] == 429, shown
    elif client == "py10":
        assert "error" in shown and "429" in shown["message"], shown
    else:
        seconds = re.search(r"(\d+) seconds", shown["message"])
        assert "error" in shown and 1 <= int(seconds.group(1)) <= 300, shown


@pytest.mark.parametrize("client", ["py03", "py10", "js"])
def test_the_card_is_still_served_to_a_caller_that_spent_its_calls(client, spent):
    assert "error" not in spent[client]["discover"]


@pytest.mark.parametrize("kind", ["py03", "py10", "js"])
def test_a_429_says_truthfully_when_to_come_back(kind, spent, gateway, targets):
    answer = httpx.post(gateway.base(targets[kind]), json=SEND)
    assert answer.status_code == 429, told(answer)
    assert 1 <= int(answer.headers["retry-after"]) <= 300
    body = answer.json()
    assert body["jsonrpc"] == "2.0" and body["id"] == "call-7" and body["error"]["code"] == -32000
    [info] = body["error"]["data"]
    assert int(info["metadata"]["retry_after"]) == int(answer.headers["retry-after"])
    assert answer.headers["x-openagora-trust-level"] == "unverified"


def test_a_refusal_can_be_looked_up_by_its_request_id(spent, gateway, targets):
    answer = httpx.post(gateway.base(targets["py03"]), json=SEND)
    request_id = answer.headers["x-openagora-request-id"]
    [row] = gateway.calls(request_id=request_id)
    assert row["status_code"] == 429 and row["outcome"] == "refused" and row["policy_rule"]


def test_a_verified_stranger_is_answered_once_a_minute(gateway, targets):
    stranger = gateway.register("A stranger with a key")
    headers = {"Authorization": f"Bearer {stranger['api_key']}"}
    first, second = (httpx.post(gateway.base(targets["py03"]), json=SEND, headers=headers) for _ in range(2))
    assert first.status_code == 200, told(first)
    assert first.headers["x-openagora-trust-level"] == "verified"
    assert second.status_code == 429 and 1 <= int(second.headers["retry-after"]) <= 60, told(second)


@pytest.mark.parametrize("id_", ["text", 7, 12345678901234567890, None])
def test_a_wrong_key_is_401_and_the_id_comes_back_with_its_type(id_, agents, gateway, targets):
    before = len(agents["py03"].requests())
    answer = in_one_piece(gateway.base(targets["py03"]), {**SEND, "id": id_}, key="oag_wrong")
    assert answer.status_code == 401, told(answer)
    assert answer.headers["www-authenticate"].startswith("Bearer")
    assert answer.json()["id"] == id_ and answer.json()["error"]["code"] == -32000
    assert not [each for each in agents["py03"].requests(since=before) if each.method == "POST"]


@pytest.mark.parametrize("client", ["py03", "py10", "js"])
def test_each_sdk_shows_a_wrong_key(client, gateway, targets):
    """Every client is stopped at the card already: a wrong credential is refused whatever the path."""
    [shown] = play(client, gateway.base(targets[client]), key="oag_wrong", only=["message"]).values()
    assert "error" in shown and "401" in (shown["message"] + str(shown.get("status"))), shown


def test_an_unknown_agent_is_404_in_the_callers_dialect(gateway):
    answer = in_one_piece(f"{gateway.public}/api/proxy/nobody-here", SEND)
    assert answer.status_code == 404, told(answer)
    assert answer.json()["id"] == "call-7" and answer.json()["error"]["code"] == -32000


def test_a_blocked_caller_is_403_and_the_agent_never_hears_of_it(agents, gateway, targets):
    caller = gateway.register("The blocked caller")
    connection = gateway.connect(caller, targets["py03"])
    blocked = httpx.put(
        f"{gateway.public}/api/connections/{connection['id']}",
        json={"action": "block"},
        headers={"Authorization": f"Bearer {targets['py03']['api_key']}"},
    )
    assert blocked.status_code == 200, told(blocked)
    before = len(agents["py03"].requests())
    answer = httpx.post(
        gateway.base(targets["py03"]), json=SEND, headers={"Authorization": f"Bearer {caller['api_key']}"}
    )
    assert answer.status_code == 403, told(answer)
    assert not [each for each in agents["py03"].requests(since=before) if each.method == "POST"]


@pytest.mark.parametrize("client", ["py03", "py10"])
def test_an_sdk_finds_out_from_the_card_where_the_key_goes(client, gateway, connected, targets):
    caller = connected(f"Told by the card, {client}", client)
    results = play(
        client, gateway.base(targets[client]), key=caller["api_key"], only=["send", "get"], more=["--auth", "card"]
    )
    assert "error" not in results["send"] and "error" not in results["get"], results
    levels = {row["trust_level"] for row in gateway.calls(caller=caller["id"])}
    assert levels == {"connected"}
