"""The scenarios of the SDK tests, played by a stock a2a-sdk 1.3.0 client: protocol 1.0, or 0.3 where the card says so."""

from a2a.client import AuthInterceptor, ClientCallContext, ClientConfig, ClientFactory, InMemoryContextCredentialStore
from a2a.helpers import new_text_message
from a2a.types.a2a_pb2 import (
    CancelTaskRequest,
    GetTaskRequest,
    ListTasksRequest,
    Role,
    SendMessageRequest,
    SubscribeToTaskRequest,
)
from google.protobuf.json_format import MessageToDict

import scenarios
from scenarios import MISSING, Events


class Connected:
    """One client with a streaming and a unary face, as the SDK decides between the two by its configuration."""

    def __init__(self, streaming, unary, card, context):
        self.streaming, self.unary, self.card, self.context = streaming, unary, card, context

    async def send(self, words, **more):
        async for result in self.unary.send_message(said(words, **more), context=self.context):
            return plain(result)

    async def stream(self, words):
        async for result in self.streaming.send_message(said(words), context=self.context):
            yield plain(result)

    async def resubscribe(self, task_id):
        async for result in self.streaming.subscribe(SubscribeToTaskRequest(id=task_id), context=self.context):
            yield plain(result)


async def connect(options):
    binding = "HTTP+JSON" if options.binding == "rest" else "JSONRPC"
    credentials = InMemoryContextCredentialStore()
    context = ClientCallContext()
    interceptors = []
    if options.auth == "card":
        context.state["sessionId"] = "tests"
        interceptors = [AuthInterceptor(credentials)]
    clients = []
    for streaming in (True, False):
        factory = ClientFactory(
            ClientConfig(
                httpx_client=scenarios.http_client(options),
                supported_protocol_bindings=[binding],
                streaming=streaming,
            )
        )
        if clients:
            clients.append(factory.create(clients[0]._card, interceptors))
        else:
            clients.append(await factory.create_from_url(options.base, interceptors))
    card = clients[0]._card
    if options.auth == "card":
        for name in card.security_schemes:
            await credentials.set_credentials("tests", name, options.key)
    return Connected(*clients, card, context)


def said(words, **more):
    return SendMessageRequest(message=new_text_message(words, role=Role.ROLE_USER, **more))


def plain(message):
    return MessageToDict(message)


async def discover(client):
    card = plain(client.card)
    return {
        **{name: card[name] for name in ("name", "description", "version", "skills", "defaultInputModes")},
        "streaming": card["capabilities"]["streaming"],
        "elsewhere": [each["url"] for each in card["supportedInterfaces"] if not each["url"].startswith(options.base)],
    }


async def collect(stream):
    events = Events()
    async for event in stream:
        events.note(event)
    return events


async def two_turns(client):
    first = (await client.send("ask"))["task"]
    return [first, await client.send("answer blue", task_id=first["id"], context_id=first["contextId"])]


async def big(client):
    body = "0123456789é" * 20000
    return {"same": (await client.send(f"echo {body}"))["task"]["artifacts"][0]["parts"][0]["text"] == body}


async def get(client):
    task = (await client.send("echo again"))["task"]
    return plain(await client.unary.get_task(GetTaskRequest(id=task["id"]), context=client.context))


async def list_tasks(client):
    task = (await client.send("echo listed"))["task"]
    return plain(await client.unary.list_tasks(ListTasksRequest(context_id=task["contextId"]), context=client.context))


async def get_unknown(client):
    return plain(await client.unary.get_task(GetTaskRequest(id=MISSING), context=client.context))


async def cancel_task(client, task_id):
    return plain(await client.unary.cancel_task(CancelTaskRequest(id=task_id), context=client.context))


async def cancel(client):
    events, canceled = Events(), None
    async for event in client.stream("hold"):
        events.note(event)
        if "artifactUpdate" in event and canceled is None:
            canceled = await cancel_task(client, event["artifactUpdate"]["taskId"])
    return {"canceled": canceled, "events": events}


async def cancel_finished(client):
    return await cancel_task(client, (await client.send("echo done"))["task"]["id"])


async def resubscribe(client):
    before, after, released = Events(), Events(), None
    stream = client.stream("hold")
    async for event in stream:
        before.note(event)
        if "artifactUpdate" in event:
            break
    await stream.aclose()
    task_id = before[0]["task"]["id"]
    async for event in client.resubscribe(task_id):
        after.note(event)
        if "artifactUpdate" in event and released is None:
            released = await client.send(f"release {task_id}")
    return {"before": before, "released": released, "after": after}


def failure(error):
    return {"message": str(error), "data": getattr(error, "data", None)}


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
    "list": list_tasks,
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
