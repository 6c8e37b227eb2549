"""What every Python test agent shares: a request log, a port chosen by the OS, and an end when its parent goes away.

The agent says where it is with one JSON line on stdout, `{"url": "http://127.0.0.1:PORT"}`, and writes one JSON line per
request to the file named by `--log`. It stops when its standard input is closed, so it cannot outlive the test run.
"""

import argparse
import json
import logging
import os
import socket
import sys
import threading
import time

import uvicorn


class RequestLog:
    """ASGI middleware: one line per request, written when its body has been read, before anything is answered."""

    def __init__(self, app, path):
        self.app = app
        self.file = open(path, "a", buffering=1, encoding="utf-8")

    async def __call__(self, scope, receive, send):
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        body = b""
        more = True
        while more:
            message = await receive()
            body += message.get("body", b"")
            more = message.get("more_body", False)
        self.file.write(
            json.dumps(
                {
                    "method": scope["method"],
                    "path": scope["raw_path"].decode("latin-1"),
                    "query": scope["query_string"].decode("latin-1"),
                    "headers": [[name.decode("latin-1"), value.decode("latin-1")] for name, value in scope["headers"]],
                    "body": body[:65536].decode("utf-8", "replace"),
                    "peer": scope["client"][0] if scope["client"] else None,
                }
            )
            + "\n"
        )
        handed_over = False

        async def replay():
            nonlocal handed_over
            if handed_over:
                return await receive()
            handed_over = True
            return {"type": "http.request", "body": body, "more_body": False}

        await self.app(scope, replay, send)


def arguments(description):
    """The command line of a test agent."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--log", required=True, help="file that gets one JSON line per request")
    parser.add_argument("--prefix", default="", help="path under which everything is mounted, such as /deploy/apps/one")
    return parser.parse_args()


def serve(options, build):
    """Serves `build(base_url)` on a free port of 127.0.0.1 until standard input ends."""
    logging.getLogger("a2a").setLevel(logging.CRITICAL)
    listener = socket.create_server(("127.0.0.1", 0))
    base = f"http://127.0.0.1:{listener.getsockname()[1]}{options.prefix}"
    config = uvicorn.Config(
        RequestLog(build(base), options.log),
        log_level="critical",
        lifespan="off",
        timeout_graceful_shutdown=1,
        timeout_keep_alive=5,
    )
    server = uvicorn.Server(config)

    def stop_with_parent():
        sys.stdin.read()
        server.should_exit = True
        # A task that nobody reads any more may refuse to end; nothing of it is worth waiting for.
        time.sleep(3)
        os._exit(0)

    threading.Thread(target=stop_with_parent, daemon=True).start()
    print(json.dumps({"url": base}), flush=True)
    server.run(sockets=[listener])
