"""What the Python clients share: their command line, the placeholders, and how results are told.

A client prints one JSON line per scenario, `{"scenario": ..., "result": ...}`. Ids, times and the base URL are replaced by
placeholders, numbered in order of appearance, so that two runs of the same scenario can be compared for equality.
"""

import argparse
import asyncio
import json
import logging
import re
import uuid

import httpx

MISSING = "00000000-0000-4000-8000-000000000000"
ID = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}")
TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?(Z|\+00:00)")


def arguments(description):
    """The command line of a test client."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--base", required=True, help="the agent's base URL: the only thing a user changes")
    parser.add_argument("--key", help="sent as a bearer token")
    parser.add_argument("--auth", choices=["header", "card"], default="header", help="how the key gets on the wire")
    parser.add_argument("--only", help="scenario names, separated by commas")
    parser.add_argument("--binding", choices=["jsonrpc", "rest"], default="jsonrpc")
    return parser.parse_args()


def http_client(options):
    """The HTTP client handed to the SDK: with the key on every request, unless the card is to say where it goes."""
    headers = {"Authorization": f"Bearer {options.key}"} if options.key and options.auth == "header" else {}
    return httpx.AsyncClient(headers=headers, timeout=30)


def new_id():
    return str(uuid.uuid4())


def normalised(base, value):
    """The value with everything that differs from run to run replaced by a placeholder."""
    ids = {MISSING: "<missing>"}

    def placeholder(found):
        return ids.setdefault(found.group(), f"<id {len(ids)}>")

    text = json.dumps(value).replace(base.rstrip("/"), "<base>")
    return json.loads(TIME.sub("<time>", ID.sub(placeholder, text)))


class Events(list):
    """Events in order; equal ones that follow each other count once, since ticks come as often as time allows."""

    def note(self, event):
        if not self or self[-1] != event:
            self.append(event)


def run(options, scenarios, connect, failure):
    """Plays the wanted scenarios one after another with one client, and prints what came of each."""
    logging.disable(logging.CRITICAL)

    async def play():
        wanted = options.only.split(",") if options.only else list(scenarios)
        client = None
        for name in wanted:
            try:
                client = client or await connect(options)
                async with asyncio.timeout(15):
                    result = await scenarios[name](client)
            except Exception as error:  # whatever the SDK throws is the result
                result = {"error": type(error).__name__, **failure(error)}
            print(json.dumps({"scenario": name, "result": normalised(options.base, result)}), flush=True)

    asyncio.run(play())
