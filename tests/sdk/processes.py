"""Child processes of the tests: where their interpreters are, how they say they are ready, and how they end.

Every child takes its port from the OS and tells it on stdout. All of them end when the test run does, by their process id.
"""

import json
import os
import pathlib
import subprocess

HERE = pathlib.Path(__file__).resolve().parent
ROOT = HERE.parent.parent
ENVIRONMENT = pathlib.Path(os.environ.get("TEST_ENV", ROOT / "target" / "test-env"))
COMMANDS = {
    "py03": [ENVIRONMENT / "py03/bin/python"],
    "py10": [ENVIRONMENT / "py10/bin/python"],
    "driver": [ENVIRONMENT / "driver/bin/python"],
    "js": [ENVIRONMENT / "bin/node"],
    "openapi": [ENVIRONMENT / "openapi/bin/python", "-m", "schemathesis.cli"],
}
CLIENTS = {"py03": HERE / "clients/py03.py", "py10": HERE / "clients/py10.py", "js": HERE / "js/client.mjs"}
AGENTS = {"py03": HERE / "agents/py03.py", "py10": HERE / "agents/py10.py", "js": HERE / "js/agent.mjs"}


def command(kind):
    """The interpreter for one kind of program; a test run without it fails and says how to get it."""
    found = COMMANDS[kind]
    if not found[0].exists():
        raise FileNotFoundError(f"{found[0]} is missing: run tests/run.sh, which installs what the tests need")
    return [str(part) for part in found]


def stop(process):
    """Ends a child: by the end of its input where it reads one, else by a polite signal, at last by a plain one."""
    for end in (process.stdin.close if process.stdin else process.terminate, process.terminate, process.kill):
        end()
        try:
            process.wait(timeout=10)
            break
        except subprocess.TimeoutExpired:
            continue
    process.stdout.close()


class Agent:
    """A running test agent: its base URL and the requests it has seen."""

    def __init__(self, kind, directory, program=None, extra=(), interpreter=None):
        self.kind = kind
        self.log = directory / f"{kind}.requests.jsonl"
        self.log.touch()
        self.errors = open(directory / f"{kind}.stderr", "w", encoding="utf-8")
        self.process = subprocess.Popen(
            [*command(interpreter or kind), str(program or AGENTS[kind]), "--log", str(self.log), *extra],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self.errors,
            text=True,
        )
        said = self.process.stdout.readline()
        if not said:
            stop(self.process)
            raise RuntimeError(f"the {kind} agent did not start:\n{pathlib.Path(self.errors.name).read_text()}")
        self.url = json.loads(said)["url"]

    def requests(self, since=0):
        """What the agent was asked, in order, from the given position on."""
        with open(self.log, encoding="utf-8") as lines:
            return [Request(json.loads(line)) for line in lines][since:]

    def stop(self):
        stop(self.process)
        self.errors.close()


class Request:
    """One request as an agent received it."""

    def __init__(self, line):
        self.method, self.path, self.body = line["method"], line["path"], line["body"]
        self.headers = {}
        for name, value in line["headers"]:
            name = name.lower()
            self.headers[name] = f"{self.headers[name]}, {value}" if name in self.headers else value

    def __repr__(self):
        return f"{self.method} {self.path} {self.headers}"


def play(client, base, key=None, only=None, more=()):
    """Runs one SDK client program and gives its results by scenario."""
    options = ["--base", base, *more]
    if key:
        options += ["--key", key]
    if only:
        options += ["--only", ",".join(only)]
    done = subprocess.run(
        [*command(client), str(CLIENTS[client]), *options], capture_output=True, text=True, timeout=300, check=False
    )
    assert done.returncode == 0, f"the {client} client broke:\n{done.stderr}"
    results = {}
    for line in done.stdout.strip().split("\n"):
        told = json.loads(line)
        results[told["scenario"]] = told["result"]
    return results
