"""The running API is held to its own description: schemathesis makes requests from /openapi.json, good ones and bad ones."""

import collections
import json
import re
import subprocess

import httpx
import pytest

import processes
from gateway import Gateway, told

# A fixed seed: a run that fails can be repeated.
SEED = 20260401
REPORT = "report.ndjson"
# A run has at least so many answers, or it was none.
LEAST = 200
# With these a run would take away what it runs with: the operator, the agent, its key.
SUICIDE = {
    "admin": ["remove_operator", "rotate_operator"],
    "auditor": ["remove_operator", "rotate_operator"],
    "agent": ["delete_agent", "update_agent", "update_agent_partly", "revoke_key"],
    "nobody": [],
}
CHECKS = [
    "not_a_server_error",
    "status_code_conformance",
    "content_type_conformance",
    "response_headers_conformance",
    "response_schema_conformance",
    "unsupported_method",
]


# As many as one run may be told to come back later, of all its answers: it is made to find out what the others say.
TURNED_AWAY = 0.1


@pytest.fixture(scope="module")
def gateway(tmp_path_factory):
    """A gateway of its own: an admin's run leaves nothing as it was. What comes from one address is hardly limited in it."""
    directory = tmp_path_factory.mktemp("fuzzed")
    policy = directory / "policy.toml"
    told, found = re.subn(
        r'(?m)^(source|credentials|api) = \{[^}]*\}',
        r'\1 = { rate = "60000/min", burst = 60000 }',
        (processes.ROOT / "policies/default.toml").read_text(),
    )
    assert found == 3, "the default policy's abuse limits are not where they were"
    policy.write_text(told)
    started = Gateway(directory / "data", {"TRUST_GATEWAY__POLICY__FILE": str(policy)})
    yield started
    started.stop()


def door(gateway, who, name):
    """Listener and credential of one who asks, made for one run: an admin's run may take away what another asks with."""
    if who in ("admin", "auditor"):
        made = gateway.operator.post("/api/operators", json={"name": name, "role": who})
        assert made.status_code == 201, made.text
        return gateway.admin, made.json()["token"]
    agent = gateway.register(name, url=f"https://{name}.example.com/")
    gateway.connect(gateway.register(f"A caller of {name}"), agent)
    return gateway.public, agent["api_key"] if who == "agent" else None


def explore(directory, url, credential, who, examples):
    command = [*processes.command("openapi"), "run", f"{url}/openapi.json", "--url", url]
    command += ["--phases", "examples,coverage,fuzzing", "--max-examples", str(examples), "--seed", str(SEED)]
    command += ["--checks", ",".join(CHECKS), "--continue-on-failure", "--warnings", "off", "--no-color"]
    # Bad credentials are limited per source, and would keep the good ones from being tried: other tests have them.
    command += ["--suppress-health-check", "all", "--generation-with-security-parameters", "false"]
    for operation in SUICIDE[who]:
        command += ["--exclude-operation-id", operation]
    command += ["--report", "ndjson", "--report-ndjson-path", str(directory / REPORT)]
    if credential:
        command += ["--header", f"Authorization: Bearer {credential}"]
    return subprocess.run(command, cwd=directory, capture_output=True, text=True, check=False)


def statuses(value):
    """The status of every answer in a report, however deep."""
    if isinstance(value, dict):
        if isinstance(value.get("status_code"), int):
            yield value["status_code"]
        value = list(value.values())
    if isinstance(value, list):
        for member in value:
            yield from statuses(member)


def answered(report):
    """How many answers there were, and how many of them told the run to come back later."""
    counts = collections.Counter(
        status for line in report.read_text(encoding="utf-8").splitlines() for status in statuses(json.loads(line))
    )
    return counts.total(), counts[429] + counts[503], counts


def hold(tmp_path, gateway, who, examples):
    url, credential = door(gateway, who, f"fuzzing-{who}-{examples}")
    run = explore(tmp_path, url, credential, who, examples)
    assert run.returncode == 0, f"{run.stdout[-12000:]}\n{run.stderr[-2000:]}"
    total, turned_away, counts = answered(tmp_path / REPORT)
    assert total >= LEAST and turned_away <= TURNED_AWAY * total, f"this run has shown little: {counts}"
    # Whoever asked can still ask, or the run has shown less than it says.
    headers = {"Authorization": f"Bearer {credential}"} if credential else {}
    after = httpx.get(f"{url}/api/agents", headers=headers, timeout=30)
    assert after.status_code == 200, told(after)


@pytest.mark.parametrize("who", SUICIDE)
def test_the_api_answers_as_it_is_described(tmp_path, gateway, who):
    hold(tmp_path, gateway, who, examples=10)


@pytest.mark.long
@pytest.mark.parametrize("who", SUICIDE)
def test_the_api_answers_as_it_is_described_whatever_is_tried(tmp_path, gateway, who):
    hold(tmp_path, gateway, who, examples=300)
