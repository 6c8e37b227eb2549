"""A test agent on a2a-sdk 1.3.0: JSON-RPC and REST, protocols 1.0 and 0.3, a hybrid card. The first word says what it does."""

import asyncio

from a2a.helpers import new_task_from_user_message, new_text_message, new_text_part
from a2a.server.agent_execution import AgentExecutor
from a2a.server.request_handlers import DefaultRequestHandler
from a2a.server.routes import create_agent_card_routes, create_jsonrpc_routes, create_rest_routes
from a2a.server.tasks import InMemoryTaskStore, TaskUpdater
from a2a.types.a2a_pb2 import AgentCapabilities, AgentCard, AgentInterface, AgentSkill
from a2a.utils.errors import UnsupportedOperationError
from starlette.applications import Starlette

import served


class Behaviours(AgentExecutor):
    """echo, message, stream, ask, fail, hold and release, unsupported, crash."""

    def __init__(self):
        self.held = {}

    async def execute(self, context, event_queue):
        word, _, rest = context.get_user_input().partition(" ")
        if word == "message":
            await event_queue.enqueue_event(new_text_message(rest, context_id=context.context_id))
            return
        if word == "release":
            self.held[rest].set()
            await event_queue.enqueue_event(new_text_message("released", context_id=context.context_id))
            return
        if word == "unsupported":
            raise UnsupportedOperationError(message="this agent does not do that")
        if word == "crash":
            raise RuntimeError("the agent's own code broke")

        task = context.current_task or new_task_from_user_message(context.message)
        if context.current_task is None:
            await event_queue.enqueue_event(task)
        updater = TaskUpdater(event_queue, task.id, task.context_id)
        if word == "echo":
            await updater.add_artifact([new_text_part(rest)], artifact_id="echo", name="echo")
            await updater.complete()
        elif word == "stream":
            await updater.start_work()
            for number in (1, 2, 3):
                await updater.add_artifact(
                    [new_text_part(f"part {number} · teil {number} · 部分 {number}")],
                    artifact_id="parts",
                    name="parts",
                    append=number > 1,
                    last_chunk=number == 3,
                )
            await updater.complete()
        elif word == "ask":
            await updater.requires_input(updater.new_agent_message([new_text_part("which colour?")]))
        elif word == "answer":
            await updater.add_artifact([new_text_part(f"painted {rest}")], artifact_id="answer")
            await updater.complete()
        elif word == "fail":
            await updater.failed(updater.new_agent_message([new_text_part("it did not work")]))
        elif word == "hold":
            released = self.held[task.id] = asyncio.Event()
            await updater.start_work()
            while not released.is_set():
                await updater.add_artifact([new_text_part("tick")], artifact_id="tick", append=False)
                await asyncio.sleep(0.05)
            await updater.complete()
        else:
            await updater.reject(updater.new_agent_message([new_text_part(f"unknown word {word}")]))

    async def cancel(self, context, event_queue):
        await TaskUpdater(event_queue, context.task_id, context.context_id).cancel()


def build(base):
    card = AgentCard(
        name="Python 1.0 agent",
        description="Answers by the first word of a message.",
        version="1.2.3",
        default_input_modes=["text/plain"],
        default_output_modes=["text/plain"],
        capabilities=AgentCapabilities(streaming=True, push_notifications=False),
        supported_interfaces=[
            AgentInterface(url=f"{base}/", protocol_binding="JSONRPC", protocol_version="1.0"),
            AgentInterface(url=base, protocol_binding="HTTP+JSON", protocol_version="1.0"),
            AgentInterface(url=f"{base}/", protocol_binding="JSONRPC", protocol_version="0.3"),
            AgentInterface(url=base, protocol_binding="HTTP+JSON", protocol_version="0.3"),
        ],
        skills=[AgentSkill(id="echo", name="Echo", description="Says it again", tags=["echo", "test"])],
    )
    handler = DefaultRequestHandler(agent_executor=Behaviours(), task_store=InMemoryTaskStore(), agent_card=card)
    prefix = options.prefix
    return Starlette(
        routes=[
            *create_agent_card_routes(card, card_url=f"{prefix}/.well-known/agent-card.json"),
            *create_jsonrpc_routes(handler, f"{prefix}/", enable_v0_3_compat=True),
            *create_rest_routes(handler, enable_v0_3_compat=True, path_prefix=prefix),
        ]
    )


options = served.arguments(__doc__)
served.serve(options, build)
