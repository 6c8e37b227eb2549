"""A gateway under test: the real binary on ports of its own choice, with a data directory that goes away afterwards."""

import ctypes
import json
import os
import pathlib
import signal
import subprocess
import uuid

import httpx

from processes import ROOT, stop


def binary():
    """The binary to test: `TRUST_GATEWAY_BIN`, else what `cargo build` left behind."""
    built = pathlib.Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target")) / "debug" / "trust-gateway"
    found = pathlib.Path(os.environ.get("TRUST_GATEWAY_BIN", built))
    if not found.exists():
        raise FileNotFoundError(f"{found} is missing: run `cargo build --locked` first, or set TRUST_GATEWAY_BIN")
    return str(found)


def end_with_parent():
    """Asks Linux to end this process when the test run dies: unlike the agents, the gateway reads no standard input."""
    parent_death_signal = 1
    ctypes.CDLL(None).prctl(parent_death_signal, signal.SIGTERM)


def store():
    """Where a gateway keeps its state: SQLite, or with TEST_STORE=postgres a new database at TEST_POSTGRES_URL."""
    kind = os.environ.get("TEST_STORE")
    if kind is None:
        return {}
    assert kind == "postgres", f'TEST_STORE={kind}: only "postgres" is known'
    server, name = os.environ["TEST_POSTGRES_URL"], f"sdk_{uuid.uuid4().hex}"
    subprocess.run(["psql", "-q", "-c", f"CREATE DATABASE {name}", server], check=True)
    return {"TRUST_GATEWAY__STORE__URL": str(httpx.URL(server).copy_with(path=f"/{name}"))}


class Gateway:
    """A running gateway with the operator's view of it."""

    def __init__(self, data_dir, settings=None):
        self.data_dir = data_dir
        self.log = data_dir.with_suffix(".stderr")
        self.errors = open(self.log, "w", encoding="utf-8")
        environment = {name: value for name, value in os.environ.items() if not name.startswith("TRUST_GATEWAY__")}
        environment |= {
            "TRUST_GATEWAY__SERVER__LISTEN": "127.0.0.1:0",
            "TRUST_GATEWAY__ADMIN__LISTEN": "127.0.0.1:0",
            "TRUST_GATEWAY__DATA_DIR": str(data_dir),
            **store(),
            **(settings or {}),
        }
        self.process = subprocess.Popen(
            [binary(), "serve"],
            preexec_fn=end_with_parent,
            cwd=data_dir.parent,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=self.errors,
            text=True,
        )
        said = {}
        for line in self.process.stdout:
            name, _, value = line.strip().partition(" ")
            said[name] = value
            if {"public", "admin"} <= said.keys():
                break
        else:
            stop(self.process)
            raise RuntimeError(f"the gateway did not start:\n{self.log.read_text()}")
        self.public, self.admin = said["public"], said["admin"]
        token = (data_dir / "admin-token").read_text().strip()
        self.operator = httpx.Client(base_url=self.admin, headers={"Authorization": f"Bearer {token}"}, timeout=30)

    def register(self, name, slug=None, url=None, **more):
        """Registers an agent, or a client if it has no URL, and gives what only the registration tells: id and secrets."""
        body = {"name": name, "slug": slug, "url": url, **more}
        answer = self.operator.post(
            "/api/agents", json={key: value for key, value in body.items() if value is not None}
        )
        assert answer.status_code == 201, answer.text
        return answer.json()

    def connect(self, caller, target):
        """Makes two registered agents connected, and gives the connection."""
        body = {"requester_id": caller["id"], "target_id": target["id"], "accept": True}
        answer = self.operator.post("/api/connections", json=body)
        assert answer.status_code == 201, answer.text
        return answer.json()

    def base(self, agent):
        """The base URL a client of a registered agent uses."""
        return f"{self.public}/api/proxy/{agent['slug']}"

    def calls(self, **filters):
        """The rows of the call log, newest first, over all pages."""
        filters = {"limit": 200, **filters}
        rows, page = [], self.operator.get("/api/calls", params=filters)
        while True:
            assert page.status_code == 200, page.text
            rows += page.json()["calls"]
            if not page.json().get("next"):
                return rows
            page = self.operator.get("/api/calls", params={**filters, "next": page.json()["next"]})

    def stop(self):
        self.operator.close()
        stop(self.process)
        self.errors.close()


def told(answer):
    """An answer in one readable piece, for assertion messages."""
    return f"{answer.status_code} {json.dumps(dict(answer.headers))}\n{answer.text}"
