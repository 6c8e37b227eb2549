"""An agent can tell a request of the gateway from any other with the few lines of docs/verify_signature.py."""

import importlib.util
from datetime import datetime, timedelta, timezone

import httpx
import pytest

from processes import ROOT

spec = importlib.util.spec_from_file_location("verify_signature", ROOT / "docs/verify_signature.py")
verify_signature = importlib.util.module_from_spec(spec)
spec.loader.exec_module(verify_signature)
verified_caller = verify_signature.verified_caller

TASK = {"jsonrpc": "2.0", "id": 1, "method": "tasks/get", "params": {"id": "none"}}


@pytest.fixture(scope="module")
def received(agents, gateway, targets, connected):
    """The headers the agent really received for one call, the caller, and the agent's own secret."""
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
        },
    )
    assert answer.status_code == 200, answer.text
    [request] = [each for each in agents["py03"].requests(since=before) if each.method == "POST"]
    return request.headers, caller, targets["py03"]["signing_secret"]


def test_the_gateways_headers_verify_and_name_the_caller(received):
    headers, caller, secret = received
    assert verified_caller(headers, secret) == caller["id"]


def test_what_the_caller_says_about_itself_never_arrives(received):
    headers, _, _ = received
    assert not any("forged" in value for value in headers.values())


@pytest.mark.parametrize("name", ["request-id", "timestamp", "caller-id", "signature"])
def test_a_changed_header_does_not_verify(received, name):
    headers, _, secret = received
    name = f"x-openagora-{name}"
    assert verified_caller({**headers, name: headers[name][:-1] + "0Z"}, secret) is None


def test_another_agents_secret_does_not_verify(received, targets):
    headers, _, _ = received
    assert verified_caller(headers, targets["py10"]["signing_secret"]) is None


def test_old_headers_do_not_verify(received):
    headers, _, secret = received
    later = datetime.now(timezone.utc) + timedelta(minutes=6)
    assert verified_caller(headers, secret, now=later) is None


def test_the_timestamp_is_iso_8601_in_milliseconds(received):
    headers, _, _ = received
    assert datetime.strptime(headers["x-openagora-timestamp"], "%Y-%m-%dT%H:%M:%S.%fZ")
    assert len(headers["x-openagora-timestamp"]) == len("2026-04-01T12:00:00.000Z")


def test_there_is_a_second_signature_that_covers_more(received):
    headers, _, _ = received
    assert headers["x-trustgateway-signature"]
