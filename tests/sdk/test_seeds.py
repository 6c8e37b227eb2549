"""The programs people were shown, with nothing changed but addresses: they run through the gateway as they are."""

import subprocess
import time

import httpx
import pytest

from gateway import told
from processes import HERE, Agent, command

SEEDS = HERE / "seeds"


def run(program, *arguments):
    done = subprocess.run(
        [*command("driver"), str(SEEDS / program), *arguments], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def flask_agents(tmp_path_factory):
    """Three of the seed's Flask agents, by role."""
    started = {}
    roles = {
        "research": ("ResearchAgent", "web-search"),
        "writer": ("WriterAgent", "write"),
        "seo": ("SeoAgent", "seo"),
        "spare": ("SpareAgent", "spare-skill"),
    }
    try:
        for role, named in roles.items():
            directory = tmp_path_factory.mktemp(role)
            started[role] = Agent(role, directory, program=SEEDS / "flask_agent.py", extra=named, interpreter="driver")
        yield started
    finally:
        for agent in started.values():
            agent.stop()


@pytest.fixture(scope="module")
def registered(flask_agents, gateway):
    """The agents registered as the seed does it: the card each serves, posted as it is."""
    rows = {}
    for role, agent in flask_agents.items():
        card = httpx.get(f"{agent.url}/.well-known/agent-card.json").content
        answer = gateway.operator.post("/api/agents", content=card, headers={"Content-Type": "application/json"})
        assert answer.status_code == 201, told(answer)
        rows[role] = answer.json()
    return rows


def test_a_bare_card_registers_and_gets_a_slug_from_its_name(registered):
    assert registered["research"]["name"] == "ResearchAgent"
    assert registered["research"]["slug"]
    assert registered["research"]["api_key"].startswith("oag_")


def test_the_orchestrator_runs_with_its_agents_behind_the_gateway(flask_agents, registered, gateway):
    direct = run(
        "orchestrator.py",
        "fixed",
        *(f"{flask_agents[role].url}/a2a" for role in ("research", "writer", "seo")),
        "tides",
    )
    before = {role: len(agent.requests()) for role, agent in flask_agents.items()}
    through = run(
        "orchestrator.py", "fixed", *(gateway.base(registered[role]) for role in ("research", "writer", "seo")), "tides"
    )
    assert through == direct and "ResearchAgent on: Research this topic: tides" in through
    for role in ("research", "writer", "seo"):
        [request] = [each for each in flask_agents[role].requests(since=before[role]) if each.method == "POST"]
        assert request.path == "/a2a", "what reaches the agent is the registered URL"
        assert "via" in request.headers and "x-openagora-signature" in request.headers
        assert request.headers["x-openagora-trust-level"] == "unverified"


def test_a_post_only_agent_is_online_and_found_by_its_skill(flask_agents, registered, gateway):
    deadline = time.monotonic() + 30
    while True:
        [row] = httpx.get(f"{gateway.public}/api/agents", params={"skill": "spare-skill"}).json()["agents"]
        if row["health_status"] == "online":
            break
        assert time.monotonic() < deadline, row
        time.sleep(0.1)
    assert row["url"].startswith(gateway.public), "the real endpoint stays private"
    assert flask_agents["spare"].url not in str(row)
    before = len(flask_agents["spare"].requests())
    assert run("orchestrator.py", "find", gateway.public, "spare-skill", "tides") == "SpareAgent on: tides\n"
    [request] = [each for each in flask_agents["spare"].requests(since=before) if each.method == "POST"]
    assert "via" in request.headers and "x-openagora-signature" in request.headers


def test_no_agent_is_found_for_a_skill_nobody_has(registered, gateway):
    assert run("orchestrator.py", "find", gateway.public, "no-such-skill", "tides") == "None\n"


def test_the_flask_card_is_completed_so_that_a_stock_client_can_read_it(registered, gateway):
    card = httpx.get(f"{gateway.base(registered['research'])}/.well-known/agent-card.json").json()
    assert card["name"] == "ResearchAgent" and card["skills"][0]["id"] == "web-search"
    for member in ("capabilities", "defaultInputModes", "defaultOutputModes", "version", "description"):
        assert card[member] is not None


def test_the_requests_client_streams_as_it_does_directly(gateway, tmp_path):
    agent = Agent("streaming", tmp_path, program=SEEDS / "streaming_agent.py", interpreter="driver")
    try:
        row = gateway.register("Streaming Agent", slug="streaming-agent", url=f"{agent.url}/")
        direct = run("streaming_client.py", f"{agent.url}/")
        through = run("streaming_client.py", f"{gateway.base(row)}/")
        assert through == direct
        assert through.endswith("Quantum computing uses superposition and entanglement.\nStatus: completed\n")
        assert ["via" in each.headers for each in agent.requests()] == [False, True]
    finally:
        agent.stop()
