"""Agents that share an origin below paths of their own, as hosting services mount them."""

import pytest

from processes import Agent, play

PREFIX = "/deploy/apps/one"
SCENARIOS = ["discover", "send", "stream", "get", "get_unknown"]


@pytest.fixture(scope="module")
def mounted(tmp_path_factory, gateway):
    """`mounted(kind)` is an agent below a path, its registration, and a caller connected to it."""
    started = {}

    def make(kind):
        if kind not in started:
            agent = Agent(kind, tmp_path_factory.mktemp("mounted"), extra=("--prefix", PREFIX))
            row = gateway.register(f"Mounted {kind}", url=f"{agent.url}/")
            caller = gateway.register(f"Caller of mounted {kind}")
            gateway.connect(caller, row)
            started[kind] = agent, row, caller
        return started[kind]

    yield make
    for agent, _, _ in started.values():
        agent.stop()


@pytest.mark.parametrize(
    ("kind", "more", "paths"),
    [
        ("py03", (), {"/"}),
        ("py10", (), {"/"}),
        ("py10", ("--binding", "rest"), {"/message:send", "/message:stream"}),
    ],
)
def test_an_agent_below_a_path_answers_as_it_does_directly(kind, more, paths, mounted, gateway):
    agent, row, caller = mounted(kind)
    assert agent.url.endswith(PREFIX)
    direct = play(kind, agent.url, only=SCENARIOS, more=more)
    before = len(agent.requests())
    through = play(kind, gateway.base(row), key=caller["api_key"], only=SCENARIOS, more=more)
    assert through == direct and "error" not in through["send"]
    posts = {each.path for each in agent.requests(since=before) if each.method == "POST"}
    assert posts == {PREFIX + path for path in paths}
