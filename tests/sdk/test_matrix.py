"""Stock clients on stock agents: through the gateway everything is as it is directly, and nothing goes past the gateway."""

import pytest

from processes import play

# client, agent, further options of the client
CELLS = {
    "py03-py03": ("py03", "py03", ()),
    "py03-py10": ("py03", "py10", ()),
    "py03-py10-rest": ("py03", "py10", ("--binding", "rest")),
    "py10-py03": ("py10", "py03", ()),
    "py10-py10": ("py10", "py10", ()),
    "py10-py10-rest": ("py10", "py10", ("--binding", "rest")),
    "py10-js": ("py10", "js", ()),
    "js-js": ("js", "js", ()),
    "js-py10": ("js", "py10", ()),
    "js-py10-rest": ("js", "py10", ("--binding", "rest")),
    "js-py03-legacy": ("js", "py03", ("--legacy",)),
}
WORKING = "discover send big message stream stream_message two_turns failed get list cancel resubscribe".split()
FAILING = (
    "get_unknown cancel_unknown resubscribe_unknown cancel_finished crash crash_stream unsupported unsupported_stream"
).split()
# A 0.3 agent has no way to list tasks. The JavaScript agent turns what its code throws into a failed task.
NOT_LISTED = {"py10-py03", "js-py03-legacy"}
FAILED_TASKS = {"crash", "crash_stream", "unsupported", "unsupported_stream"}


def scenarios(cell):
    return [name for name in WORKING + FAILING if name != "list" or not cell.startswith("py03")]


class Runs:
    """Both runs of every cell, each made once, when the first test asks for it."""

    def __init__(self, request):
        self.fixture = request.getfixturevalue
        self.made = {}

    def direct(self, cell):
        return self.once(self.play_directly, cell)

    def through(self, cell):
        return self.once(self.play_through, cell)

    def once(self, play_it, cell):
        if (play_it, cell) not in self.made:
            try:
                self.made[play_it, cell] = play_it(cell), None
            except Exception as error:  # told to every test that asks, instead of made again for each
                self.made[play_it, cell] = None, error
        result, error = self.made[play_it, cell]
        if error:
            raise error
        return result

    def play_directly(self, cell):
        client, kind, more = CELLS[cell]
        return play(client, self.fixture("agents")[kind].url, more=more)

    def play_through(self, cell):
        client, kind, more = CELLS[cell]
        caller = self.fixture("connected")(f"Caller {cell}", kind)
        agent = self.fixture("agents")[kind]
        base = self.fixture("gateway").base(self.fixture("targets")[kind])
        before = len(agent.requests())
        results = play(client, base, key=caller["api_key"], more=more)
        return caller, results, agent.requests(since=before)


@pytest.fixture(scope="module")
def runs(request):
    return Runs(request)


@pytest.mark.parametrize("cell", CELLS)
def test_a_direct_run_does_what_the_scenarios_mean(cell, runs):
    """Without this, a client that always fails would be equal to itself."""
    results = runs.direct(cell)
    assert list(results) and set(results) == set(scenarios(cell))
    for name, result in results.items():
        broken = isinstance(result, dict) and "error" in result
        if name in WORKING:
            assert not broken or (name == "list" and cell in NOT_LISTED), (name, result)
        else:
            assert broken or (name in FAILED_TASKS and CELLS[cell][1] == "js"), (name, result)
    assert results["discover"]["elsewhere"] == []
    assert results["discover"]["streaming"] is True
    assert len(results["stream"]) == 6, "a task, working, three parts, completed"


@pytest.mark.parametrize(("cell", "scenario"), [(cell, scenario) for cell in CELLS for scenario in scenarios(cell)])
def test_the_answer_equals_that_of_a_direct_run(cell, scenario, runs):
    _, results, _ = runs.through(cell)
    assert results[scenario] == runs.direct(cell)[scenario]


@pytest.mark.parametrize("cell", CELLS)
def test_every_request_came_through_the_gateway(cell, runs):
    caller, _, requests = runs.through(cell)
    assert requests, "the agent saw nothing at all"
    for request in requests:
        if is_health_probe(request):
            continue
        headers = request.headers
        assert "via" in headers and "x-openagora-signature" in headers, request
        assert headers["x-openagora-caller-id"] == caller["id"], request
        assert headers["x-openagora-caller-name"] == f"Caller {cell}", request
        assert headers["x-openagora-trust-level"] == "connected", request


@pytest.mark.parametrize("cell", CELLS)
def test_the_agent_never_sees_the_callers_key(cell, runs):
    caller, _, requests = runs.through(cell)
    for request in requests:
        assert caller["api_key"] not in repr(request)
        assert "authorization" not in request.headers


@pytest.mark.parametrize("cell", CELLS)
def test_every_request_the_agent_saw_has_its_row_in_the_call_log(cell, runs, gateway):
    caller, _, requests = runs.through(cell)
    seen = [each.headers["x-openagora-request-id"] for each in requests if not is_health_probe(each)]
    assert len(set(seen)) == len(seen), "a request id was used twice"
    rows = {row["id"]: row for row in gateway.calls(caller=caller["id"])}
    assert set(seen) <= set(rows)
    for request_id in seen:
        assert rows[request_id]["trust_level"] == "connected"
        assert rows[request_id]["caller_agent_id"] == caller["id"]


def is_health_probe(request):
    """The gateway itself fetches cards now and then; what names an SDK's HTTP library is a client that came past it."""
    library = request.headers.get("user-agent", "")
    return (
        request.method == "GET"
        and "/.well-known/" in request.path
        and not any(name in library for name in ("httpx", "requests", "node"))
    )
