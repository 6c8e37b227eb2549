"""An agent shaped like the one the seed's streaming client is written for: Server-Sent Events without event names, LF line ends.

`streaming_agent.py --log FILE` prints `{"url": ...}` once it listens on a port chosen by the OS.
"""

import json
import sys
import threading

from flask import Flask, Response, request
from werkzeug.serving import WSGIRequestHandler, make_server

log = open(sys.argv[sys.argv.index("--log") + 1], "a", buffering=1, encoding="utf-8")
app = Flask(__name__)
TASK = {"taskId": "task_1", "contextId": "ctx_1"}
WORDS = ("Quantum computing ", "uses superposition ", "and entanglement.")


@app.get("/.well-known/agent-card.json")
def card():
    return {
        "protocolVersion": "0.3.0",
        "name": "Streaming Agent",
        "description": "You are a helpful assistant.",
        "version": "0.0.1",
        "url": "http://0.0.0.0:8000",
        "preferredTransport": "JSONRPC",
        "capabilities": {"streaming": True, "statefulness": True, "asyncProcessing": True},
        "defaultInputModes": ["application/json"],
        "defaultOutputModes": [],
        "skills": [{"id": "tool_explain", "name": "explain", "description": "Explains", "tags": []}],
        "provider": None,
    }


@app.post("/")
def stream():
    log.write(
        json.dumps(
            {
                "method": request.method,
                "path": request.path,
                "headers": [[name.lower(), value] for name, value in request.headers],
                "body": request.get_data(as_text=True),
            }
        )
        + "\n"
    )
    asked = request.json["id"]

    def events():
        yield {"kind": "task", "id": "task_1", "contextId": "ctx_1", "status": {"state": "working"}}
        for number, words in enumerate(WORDS):
            artifact = {"artifactId": "a", "parts": [{"kind": "text", "text": words}]}
            yield {"kind": "artifact-update", **TASK, "append": number > 0, "artifact": artifact}
        yield {"kind": "status-update", **TASK, "final": True, "status": {"state": "completed"}}

    framed = (f"data: {json.dumps({'jsonrpc': '2.0', 'id': asked, 'result': each})}\n\n" for each in events())
    return Response(framed, mimetype="text/event-stream", headers={"Cache-Control": "no-cache"})


class Quiet(WSGIRequestHandler):
    protocol_version = "HTTP/1.1"

    def log(self, *_):
        pass


server = make_server("127.0.0.1", 0, app, threaded=True, request_handler=Quiet)
print(json.dumps({"url": f"http://127.0.0.1:{server.server_port}"}), flush=True)
threading.Thread(target=lambda: (sys.stdin.read(), server.shutdown()), daemon=True).start()
server.serve_forever()
