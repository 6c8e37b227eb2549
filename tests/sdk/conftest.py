"""Fixtures: one set of agents and one gateway for the whole run, since starting them is what takes the time."""

import pathlib
import sys

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent))

import pytest

from gateway import Gateway
from processes import AGENTS, Agent


def pytest_addoption(parser):
    parser.addoption("--long", action="store_true", help="also run the tests that take minutes")


def pytest_configure(config):
    config.addinivalue_line("markers", "long: takes minutes; runs with --long only")


def pytest_collection_modifyitems(config, items):
    if not config.getoption("--long"):
        long = [item for item in items if item.get_closest_marker("long")]
        config.hook.pytest_deselected(items=long)
        items[:] = [item for item in items if item not in long]


def pytest_sessionfinish(session):
    """A skipped test is a failed one: what cannot run has to say so."""
    if session.config.pluginmanager.get_plugin("terminalreporter").stats.get("skipped"):
        session.exitstatus = 1


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item):
    """A failing test shows what the gateway wrote, which is where the reason often is."""
    report = (yield).get_result()
    started = getattr(item, "funcargs", {}).get("gateway")
    if report.failed and started:
        report.sections.append(("the gateway's log, its end", started.log.read_text()[-4000:]))


@pytest.fixture(scope="session")
def agents(tmp_path_factory):
    """The three SDK agents, by kind."""
    directory = tmp_path_factory.mktemp("agents")
    started = {}
    try:
        for kind in AGENTS:
            started[kind] = Agent(kind, directory)
        yield started
    finally:
        for agent in started.values():
            agent.stop()


@pytest.fixture(scope="session")
def gateway(tmp_path_factory):
    """A gateway with the default policy and nothing registered yet."""
    started = Gateway(tmp_path_factory.mktemp("gateway") / "data")
    yield started
    started.stop()


@pytest.fixture(scope="session")
def targets(gateway, agents):
    """The three agents as registered with the gateway, by kind."""
    return {
        kind: gateway.register(f"The {kind} agent", slug=f"{kind}-agent", url=f"{agent.url}/")
        for kind, agent in agents.items()
    }


@pytest.fixture(scope="session")
def connected(gateway, targets):
    """`connected(name, kind)` is a new caller that is connected to the agent of that kind."""

    def make(name, kind):
        caller = gateway.register(name)
        gateway.connect(caller, targets[kind])
        return caller

    return make
