"""The seed's Flask agent: `tasks/send` at /a2a and a bare card. Changed: its address, and `do_research` is a stub.

`flask_agent.py --log FILE [NAME SKILL]` prints `{"url": ...}` once it listens on a port chosen by the OS.
"""

import json
import sys
import threading
import uuid

from flask import Flask, jsonify, request
from werkzeug.serving import WSGIRequestHandler, make_server

log = open(sys.argv[sys.argv.index("--log") + 1], "a", buffering=1, encoding="utf-8")
name, skill = sys.argv[3:5] if len(sys.argv) > 4 else ("ResearchAgent", "web-search")

app = Flask(__name__)


def do_research(message):
    return f"{name} on: {message}"


@app.before_request
def note_request():
    line = {
        "method": request.method,
        "path": request.path,
        "headers": [[header.lower(), value] for header, value in request.headers],
        "body": request.get_data(as_text=True),
    }
    log.write(json.dumps(line) + "\n")


@app.route('/.well-known/agent-card.json')
def agent_card():
    return jsonify({
        "name": name,
        "description": "Finds and synthesizes information from multiple sources",
        "url": f"{address}/a2a",
        "version": "1.0",
        "skills": [{
            "id": skill,
            "name": "Web Search & Synthesis",
            "description": "Searches the web and produces structured summaries",
            "tags": ["research", "search", "summarize"]
        }]
    })


@app.route('/a2a', methods=['POST'])
def handle_task():
    rpc = request.json
    task_params = rpc['params']
    user_message = task_params['message']['parts'][0]['text']
    # Your agent logic here
    result = do_research(user_message)
    return jsonify({
        "jsonrpc": "2.0",
        "id": rpc['id'],
        "result": {
            "id": task_params['id'],
            "sessionId": task_params.get('sessionId', str(uuid.uuid4())),
            "status": {"state": "completed"},
            "artifacts": [{
                "parts": [{"type": "text", "text": result}]
            }]
        }
    })


class Quiet(WSGIRequestHandler):
    def log(self, *_):
        pass


server = make_server("127.0.0.1", 0, app, threaded=True, request_handler=Quiet)
address = f"http://127.0.0.1:{server.server_port}"
print(json.dumps({"url": address}), flush=True)
threading.Thread(target=lambda: (sys.stdin.read(), server.shutdown()), daemon=True).start()
server.serve_forever()
