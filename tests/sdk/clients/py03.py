"""The scenarios of the SDK tests, played by a stock a2a-sdk 0.3.26 client."""

from a2a.client import (
    AuthInterceptor,
    ClientCallContext,
    ClientConfig,
    ClientFactory,
    InMemoryContextCredentialStore,
)
from a2a.client.errors import A2AClientHTTPError, A2AClientJSONRPCError
from a2a.types import Message, Part, Role, TaskIdParams, TaskQueryParams, TextPart, TransportProtocol

import scenarios
from scenarios import MISSING, Events, new_id


class Connected:
    """One client with a streaming and a unary face, as the SDK decides between the two by its configuration."""

    def __init__(self, streaming, unary, card, context):
        self.streaming, self.unary, self.card, self.context = streaming, unary, card, context

    async def send(self, words, **more):
        async for result in self.unary.send_message(said(words, **more), context=self.context):
            return plain(result[0] if isinstance(result, tuple) else result)

    async def stream(self, words):
        async for result in self.streaming.send_message(said(words), context=self.context):
            yield update(result)

    async def resubscribe(self, task_id):
        async for result in self.streaming.resubscribe(TaskIdParams(id=task_id), context=self.context):
            yield update(result)


async def connect(options):
    binding = TransportProtocol.http_json if options.binding == "rest" else TransportProtocol.jsonrpc
    credentials = InMemoryContextCredentialStore()
    context = ClientCallContext()
    interceptors = []
    if options.auth == "card":
        context.state["sessionId"] = "tests"
        interceptors = [AuthInterceptor(credentials)]
    clients = []
    for streaming in (True, False):
        config = ClientConfig(
            httpx_client=scenarios.http_client(options), supported_transports=[binding], streaming=streaming
        )
        card = clients[0]._card if clients else options.base
        clients.append(await ClientFactory.connect(card, client_config=config, interceptors=interceptors))
    card = clients[0]._card
    if options.auth == "card":
        for name in card.security_schemes or {}:
            await credentials.set_credentials("tests", name, options.key)
    return Connected(*clients, card, context)


def said(words, **more):
    return Message(message_id=new_id(), role=Role.user, parts=[Part(root=TextPart(text=words))], **more)


def plain(model):
    return model.model_dump(mode="json", by_alias=True, exclude_none=True)


def update(result):
    """What came on the wire: the SDK hands out the task so far together with the update that changed it."""
    if not isinstance(result, tuple):
        return plain(result)
    task, event = result
    return plain(event or task)


async def discover(client):
    card = plain(client.card)
    urls = [card["url"], *(each["url"] for each in card.get("additionalInterfaces", []))]
    return {
        **{name: card[name] for name in ("name", "description", "version", "skills", "defaultInputModes")},
        "streaming": card["capabilities"]["streaming"],
        "elsewhere": [url for url in urls if not url.startswith(options.base)],
    }


async def collect(stream):
    events = Events()
    async for event in stream:
        events.note(event)
    return events


async def two_turns(client):
    first = await client.send("ask")
    return [first, await client.send("answer blue", task_id=first["id"], context_id=first["contextId"])]


async def big(client):
    body = "0123456789é" * 20000
    return {"same": (await client.send(f"echo {body}"))["artifacts"][0]["parts"][0]["text"] == body}


async def get(client):
    task = await client.send("echo again")
    return plain(await client.unary.get_task(TaskQueryParams(id=task["id"]), context=client.context))


async def get_unknown(client):
    return plain(await client.unary.get_task(TaskQueryParams(id=MISSING), context=client.context))


async def cancel_task(client, task_id):
    return plain(await client.unary.cancel_task(TaskIdParams(id=task_id), context=client.context))


async def cancel(client):
    events, canceled = Events(), None
    async for event in client.stream("hold"):
        events.note(event)
        if event["kind"] == "artifact-update" and canceled is None:
            canceled = await cancel_task(client, event["taskId"])
    return {"canceled": canceled, "events": events}


async def cancel_finished(client):
    return await cancel_task(client, (await client.send("echo done"))["id"])


async def resubscribe(client):
    before, after, released = Events(), Events(), None
    stream = client.stream("hold")
    async for event in stream:
        before.note(event)
        if event["kind"] == "artifact-update":
            break
    await stream.aclose()
    task_id = before[0]["id"]
    async for event in client.resubscribe(task_id):
        after.note(event)
        if event["kind"] == "artifact-update" and released is None:
            released = await client.send(f"release {task_id}")
    return {"before": before, "released": released, "after": after}


def failure(error):
    told = {"message": str(error)}
    if isinstance(error, A2AClientJSONRPCError):
        told |= {"code": error.error.code, "data": error.error.data}
    if isinstance(error, A2AClientHTTPError):
        told["status"] = error.status_code
    return told


SCENARIOS = {
    "discover": discover,
    "send": lambda client: client.send('echo grüße 你好 🤝 \u2028 \\ " end'),
    "big": big,
    "message": lambda client: client.send("message just words"),
    "stream": lambda client: collect(client.stream("stream")),
    "stream_message": lambda client: collect(client.stream("message streamed words")),
    "two_turns": two_turns,
    "failed": lambda client: client.send("fail"),
    "get": get,
    "cancel": cancel,
    "resubscribe": resubscribe,
    "get_unknown": get_unknown,
    "cancel_unknown": lambda client: cancel_task(client, MISSING),
    "resubscribe_unknown": lambda client: collect(client.resubscribe(MISSING)),
    "cancel_finished": cancel_finished,
    "crash": lambda client: client.send("crash"),
    "crash_stream": lambda client: collect(client.stream("crash")),
    "unsupported": lambda client: client.send("unsupported"),
    "unsupported_stream": lambda client: collect(client.stream("unsupported")),
}

options = scenarios.arguments(__doc__)
scenarios.run(options, SCENARIOS, connect, failure)
