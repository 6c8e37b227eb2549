"""Runs that take minutes: silence on a stream, and many clients at once. They run with `--long` only."""

import itertools
import time
from concurrent.futures import ThreadPoolExecutor

import httpx
import pytest

from processes import play
from test_matrix import CELLS

pytestmark = pytest.mark.long
SILENCE = 50
ROUNDS = 5


def test_a_silent_stream_stays_open_and_its_comments_pass(gateway, targets, connected):
    """The SDK's server writes a comment every 15 seconds; nothing may end the stream or keep these back."""
    caller = connected("A patient caller", "py03")
    parts = [{"kind": "text", "text": f"quiet {SILENCE}"}]
    call = {
        "jsonrpc": "2.0",
        "id": 1,
        "method": "message/stream",
        "params": {"message": {"messageId": "m", "role": "user", "parts": parts}},
    }
    headers = {"Authorization": f"Bearer {caller['api_key']}"}
    began = time.monotonic()
    comments = []
    with httpx.stream(
        "POST", gateway.base(targets["py03"]), json=call, headers=headers, timeout=SILENCE + 30
    ) as stream:
        body = ""
        for text in stream.iter_text():
            body += text
            if text.startswith(": ping"):
                comments.append(time.monotonic() - began)
    assert len(comments) >= SILENCE // 15
    assert comments[0] < SILENCE / 2, "the first comment came while the agent was silent"
    assert '"completed"' in body


def test_answers_stay_equal_while_many_clients_call_at_once(agents, gateway, targets, connected):
    direct = {cell: play(client, agents[kind].url, more=more) for cell, (client, kind, more) in CELLS.items()}

    def through(job):
        number, cell = job
        client, kind, more = CELLS[cell]
        caller = connected(f"Caller {number} of {cell}", kind)
        return cell, play(client, gateway.base(targets[kind]), key=caller["api_key"], more=more)

    with ThreadPoolExecutor(max_workers=4) as pool:
        for cell, results in pool.map(through, itertools.product(range(ROUNDS), CELLS)):
            assert results == direct[cell], cell
