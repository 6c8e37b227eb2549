"""A test agent on a2a-sdk 0.3.26: protocol 0.3 over JSON-RPC. What it does is said by the first word of the message."""

import asyncio

from a2a.server.agent_execution import AgentExecutor
from a2a.server.apps import A2AStarletteApplication
from a2a.server.request_handlers import DefaultRequestHandler
from a2a.server.tasks import InMemoryTaskStore, TaskUpdater
from a2a.types import AgentCapabilities, AgentCard, AgentSkill, Part, TextPart, UnsupportedOperationError
from a2a.utils import new_agent_text_message, new_task
from a2a.utils.errors import ServerError
from starlette.applications import Starlette

import served


class Behaviours(AgentExecutor):
    """echo, message, stream, ask, fail, hold and release, quiet, unsupported, crash."""

    def __init__(self):
        self.held = {}

    async def execute(self, context, event_queue):
        word, _, rest = context.get_user_input().partition(" ")
        if word == "message":
            await event_queue.enqueue_event(new_agent_text_message(rest, context.context_id))
            return
        if word == "release":
            self.held[rest].set()
            await event_queue.enqueue_event(new_agent_text_message("released", context.context_id))
            return
        if word == "unsupported":
            raise ServerError(error=UnsupportedOperationError(message="this agent does not do that"))
        if word == "crash":
            raise RuntimeError("the agent's own code broke")

        task = context.current_task or new_task(context.message)
        if context.current_task is None:
            await event_queue.enqueue_event(task)
        updater = TaskUpdater(event_queue, task.id, task.context_id)
        if word == "echo":
            await updater.add_artifact([text(rest)], artifact_id="echo", name="echo")
            await updater.complete()
        elif word == "stream":
            await updater.start_work()
            for number in (1, 2, 3):
                await updater.add_artifact(
                    [text(f"part {number} · teil {number} · 部分 {number}")],
                    artifact_id="parts",
                    name="parts",
                    append=number > 1,
                    last_chunk=number == 3,
                )
            await updater.complete()
        elif word == "ask":
            await updater.requires_input(updater.new_agent_message([text("which colour?")]), final=True)
        elif word == "answer":
            await updater.add_artifact([text(f"painted {rest}")], artifact_id="answer")
            await updater.complete()
        elif word == "fail":
            await updater.failed(updater.new_agent_message([text("it did not work")]))
        elif word == "hold":
            released = self.held[task.id] = asyncio.Event()
            await updater.start_work()
            try:
                while not released.is_set():
                    await updater.add_artifact([text("tick")], artifact_id="tick", append=False)
                    await asyncio.sleep(0.05)
            except asyncio.CancelledError:
                await updater.cancel()
            else:
                await updater.complete()
        elif word == "quiet":
            await asyncio.sleep(float(rest))
            await updater.complete()
        else:
            await updater.reject(updater.new_agent_message([text(f"unknown word {word}")]))

    async def cancel(self, context, event_queue):
        """Nothing: the SDK cancels the running `execute`, and its last event reaches both the stream and the canceller."""


def text(value):
    return Part(root=TextPart(text=value))


def build(base):
    card = AgentCard(
        name="Python 0.3 agent",
        description="Answers by the first word of a message.",
        url=f"{base}/",
        version="1.2.3",
        default_input_modes=["text/plain"],
        default_output_modes=["text/plain"],
        capabilities=AgentCapabilities(streaming=True, push_notifications=False),
        skills=[AgentSkill(id="echo", name="Echo", description="Says it again", tags=["echo", "test"])],
    )
    app = A2AStarletteApplication(card, DefaultRequestHandler(Behaviours(), InMemoryTaskStore())).build()
    if not options.prefix:
        return app
    outer = Starlette()
    outer.mount(options.prefix, app)
    return outer


options = served.arguments(__doc__)
served.serve(options, build)
