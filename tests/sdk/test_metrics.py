"""/metrics as Prometheus reads it: the official parser takes it, the counts are those of the log, and no label is a caller's."""

import httpx
import pytest
from prometheus_client.openmetrics.parser import text_string_to_metric_families

from gateway import Gateway

RPC = {"jsonrpc": "2.0", "id": 1, "params": {"message": {"messageId": "1", "role": "ROLE_USER", "parts": [{"text": "x"}]}}}
HOSTILE = ["x" * 300, 'a"b\\c\n', "tasks/évil", "{}", "SendMessage\u2028"]


@pytest.fixture
def gateway(tmp_path):
    """A gateway of its own: every count is of this test."""
    started = Gateway(tmp_path / "data")
    yield started
    started.stop()


def families(gateway):
    answer = gateway.operator.get("/metrics")
    assert answer.status_code == 200, answer.text
    assert answer.headers["content-type"].startswith("application/openmetrics-text")
    return {family.name: family for family in text_string_to_metric_families(answer.text)}


def test_the_counts_are_those_of_the_log_and_labels_are_of_fixed_sets(gateway, agents):
    target = gateway.register("Echo", slug="echo", url=f"{agents['py10'].url}/")
    caller = gateway.register("Caller")
    gateway.connect(caller, target)
    key = {"Authorization": f"Bearer {caller['api_key']}"}
    with httpx.Client(base_url=gateway.public, timeout=30) as client:
        for method in ["SendMessage", "GetTask", *HOSTILE]:
            client.post("/api/proxy/echo", json={**RPC, "method": method}, headers={**key, "A2A-Version": "1.0"})
            client.post("/api/proxy/echo", json={**RPC, "method": method}, headers={"A2A-Version": "x" * 50})
        for path in ["/api/proxy/nobody", "/api/proxy/" + "n" * 200, "/relay/echo/../x", "/api/proxy/echo/nothing"]:
            client.post(path, json=RPC, headers=key)
        client.get("/api/proxy/echo/.well-known/agent-card.json")
        client.post("/api/proxy/echo", content=b"{", headers=key)

    rows = gateway.calls()
    told = families(gateway)
    counts = {}
    for sample in told["trust_gateway_calls"].samples:
        assert sample.name == "trust_gateway_calls_total"
        counts[tuple(sample.labels[name] for name in ("operation", "decision", "outcome"))] = (
            counts.get(tuple(sample.labels[name] for name in ("operation", "decision", "outcome")), 0) + sample.value
        )
        assert sample.labels["agent"] in ("echo", "none")
    expected = {}
    for row in rows:
        kind = (row["operation"], row["decision"], row["outcome"])
        expected[kind] = expected.get(kind, 0) + row["calls"]
    assert counts == expected
    reasons = {sample.labels["reason"]: sample.value for sample in told["trust_gateway_call_reasons"].samples}
    of_rows = {}
    for row in rows:
        if row["reason"]:
            of_rows[row["reason"]] = of_rows.get(row["reason"], 0) + row["calls"]
    assert reasons == of_rows
    durations = [s for s in told["trust_gateway_call_duration_seconds"].samples if s.name.endswith("_count")]
    assert sum(sample.value for sample in durations) == sum(row["calls"] for row in rows)
    assert told["trust_gateway_bodies_bytes"].type == "counter"
    assert told["trust_gateway_process_resident_bytes"].samples[0].value > 1_000_000
    for family in told.values():
        for sample in family.samples:
            assert all(len(value) < 60 and value.isprintable() for value in sample.labels.values()), sample


def test_prometheus_needs_an_operators_token(gateway):
    assert httpx.get(f"{gateway.admin}/metrics").status_code == 401
    assert httpx.get(f"{gateway.public}/metrics").status_code == 404
