"""An agent that dies in the middle of its answer: the caller gets what the agent had sent, and then the cut."""

import socket
import threading

import httpx
import pytest

CALL = {"jsonrpc": "2.0", "id": 1, "method": "message/stream", "params": {}}
EVENT = (
    b'data: {"jsonrpc":"2.0","id":1,"result":{"kind":"task","id":"t","contextId":"c","status":{"state":"working"}}}\n\n'
)
STREAM_HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
ENDINGS = {
    "after the head": STREAM_HEAD,
    "after an event": STREAM_HEAD + b"%x\r\n%s\r\n" % (len(EVENT), EVENT),
    "inside an event": STREAM_HEAD + b"%x\r\n%s" % (len(EVENT), EVENT[:40]),
    "inside a plain answer": b'HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 100\r\n\r\n{"jsonrpc"',
}


class DyingAgent:
    """Answers every call with the same bytes and closes the connection at once."""

    def __init__(self, answer):
        self.answer = answer
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self.listener.getsockname()[1]}/"
        self.thread = threading.Thread(target=self.serve, daemon=True)
        self.thread.start()

    def serve(self):
        while True:
            try:
                connection, _ = self.listener.accept()
            except OSError:
                return
            with connection:
                connection.settimeout(5)
                if self.whole_request(connection).startswith(b"POST"):
                    connection.sendall(self.answer)
                else:
                    connection.sendall(b"HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\nconnection: close\r\n\r\n")

    @staticmethod
    def whole_request(connection):
        with connection.makefile("rb") as reader:
            request = reader.readline()
            length = 0
            for line in iter(reader.readline, b"\r\n"):
                if not line:
                    return b""
                name, _, value = line.partition(b":")
                length = int(value) if name.lower() == b"content-length" else length
            reader.read(length)
            return request

    def stop(self):
        self.listener.shutdown(socket.SHUT_RDWR)
        self.listener.close()
        self.thread.join(timeout=5)


def seen(url, key=None):
    """What a caller gets: status, the bytes, and how it ended."""
    headers = {"Authorization": f"Bearer {key}"} if key else {}
    body = b""
    status = None
    try:
        with httpx.stream("POST", url, json=CALL, headers=headers, timeout=10) as answer:
            status = answer.status_code
            for part in answer.iter_raw():
                body += part
        return status, body, "ended"
    except httpx.HTTPError as error:
        return status, body, type(error).__name__


@pytest.mark.parametrize("ending", ENDINGS)
def test_a_cut_is_passed_on_as_a_cut(ending, gateway):
    agent = DyingAgent(ENDINGS[ending])
    try:
        row = gateway.register(f"Dies {ending}", url=agent.url)
        caller = gateway.register(f"Caller of one that dies {ending}")
        gateway.connect(caller, row)
        direct = seen(agent.url)
        assert direct[0] == 200 and direct[2] == "RemoteProtocolError"
        for _ in range(20):
            assert seen(f"{gateway.base(row)}/", key=caller["api_key"]) == direct
        assert {each["outcome"] for each in gateway.calls(caller=caller["id"])} == {"agent_gone"}
    finally:
        agent.stop()
