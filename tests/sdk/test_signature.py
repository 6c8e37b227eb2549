"""An agent can tell a request of the gateway from any other with the few lines of docs/verify_signature.py."""

import importlib.util
from datetime import datetime, timedelta, timezone

import httpx
import pytest

from processes import ROOT

spec = importlib.util.spec_from_file_location("verify_signature", ROOT / "docs/verify_signature.py")
verify_signature = importlib.util.module_from_spec(spec)
spec.loader.exec_module(verify_signature)
verified_caller, verified_call = verify_signature.verified_caller, verify_signature.verified_call

TASK = {"jsonrpc": "2.0", "id": 1, "method": "tasks/get", "params": {"id": "none"}}


@pytest.fixture(scope="module")
def received(agents, gateway, targets, connected):
    """The one request that the agent really received, the caller, and the agent's own secret."""
    caller = connected("The signed caller", "py03")
    before = len(agents["py03"].requests())
    answer = httpx.post(
        gateway.base(targets["py03"]),
        json=TASK,
        headers={
            "Authorization": f"Bearer {caller['api_key']}",
            "X-OpenAgora-Caller-ID": "forged",
            "X-OpenAgora-Trust-Level": "connected",
            "X-OpenAgora-Signature": "forged",
            "X-OpenAgora-Unheard-Of": "forged",
            "X-User-ID": "forged",
        },
    )
    assert answer.status_code == 200, answer.text
    [request] = [each for each in agents["py03"].requests(since=before) if each.method == "POST"]
    return request, caller, targets["py03"]["signing_secret"]


def test_the_gateways_headers_verify_and_name_the_caller(received):
    request, caller, secret = received
    assert verified_caller(request.headers, secret) == caller["id"]


def test_what_the_caller_says_about_itself_never_arrives(received):
    request, _, _ = received
    assert not any("forged" in value for value in request.headers.values())


@pytest.mark.parametrize("name", ["request-id", "timestamp", "caller-id", "signature"])
def test_a_changed_header_does_not_verify(received, name):
    request, _, secret = received
    name = f"x-openagora-{name}"
    assert verified_caller({**request.headers, name: request.headers[name][:-1] + "0Z"}, secret) is None


def test_another_agents_secret_does_not_verify(received, targets):
    request, _, _ = received
    assert verified_caller(request.headers, targets["py10"]["signing_secret"]) is None


def test_old_headers_do_not_verify(received):
    request, _, secret = received
    later = datetime.now(timezone.utc) + timedelta(minutes=6)
    assert verified_caller(request.headers, secret, now=later) is None


def test_the_timestamp_is_iso_8601_in_milliseconds(received):
    timestamp = received[0].headers["x-openagora-timestamp"]
    assert datetime.strptime(timestamp, "%Y-%m-%dT%H:%M:%S.%fZ")
    assert len(timestamp) == len("2026-04-01T12:00:00.000Z")


def whole_call(received, targets, **changes):
    request, _, secret = received
    told = {
        "headers": request.headers,
        "http_method": request.method,
        "body": request.body.encode(),
        "own_agent_id": targets["py03"]["id"],
        "signing_secret": secret,
    }
    return verified_call(**{**told, **changes})


def test_the_second_signature_covers_the_whole_call(received, targets):
    assert whole_call(received, targets) == received[1]["id"]
    assert received[0].headers["x-trustgateway-method"] == "tasks/get"


def test_another_body_target_level_or_method_does_not_verify(received, targets):
    headers = received[0].headers
    assert whole_call(received, targets, body=b"{}") is None
    assert whole_call(received, targets, own_agent_id=targets["py10"]["id"]) is None
    assert whole_call(received, targets, http_method="PUT") is None
    assert whole_call(received, targets, headers={**headers, "x-openagora-trust-level": "verified"}) is None
    assert whole_call(received, targets, headers={**headers, "x-trustgateway-method": "tasks/cancel"}) is None
    no_digest = headers["x-trustgateway-signature"].replace("body=sha256", "body=none")
    assert whole_call(received, targets, headers={**headers, "x-trustgateway-signature": no_digest}, body=b"{}") is None


def test_the_lines_in_the_readme_verify_the_same(received, targets):
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    [code] = [block.split("```", 1)[0] for block in readme.split("```python\n")[1:]]
    scope = {}
    exec(compile(code, "README.md", "exec"), scope)
    request, caller, secret = received
    assert scope["verified_caller"](request.headers, secret) == caller["id"]
    assert scope["verified_caller"](request.headers, targets["py10"]["signing_secret"]) is None
    forged = {**request.headers, "x-openagora-caller-id": targets["py10"]["id"]}
    assert scope["verified_caller"](forged, secret) is None
    assert scope["verified_caller"](request.headers, secret, tolerance=timedelta(0)) is None
