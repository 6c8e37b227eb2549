"""The seed's orchestrator. Changed: the addresses of its agents and of the registry, which are arguments.

`orchestrator.py fixed RESEARCH WRITER SEO TASK` calls the three in a row; `orchestrator.py find REGISTRY SKILL TASK` finds an
agent that is online by its skill first.
"""

import asyncio
import sys
import uuid

import httpx

AGENTS = {}


async def orchestrate(task: str):
    # Step 1: Research
    research = await call_agent("research", f"Research this topic: {task}")
    # Step 2: Write draft using research
    draft = await call_agent("writer", f"Write an article using this research:\n{research}")
    # Step 3: Optimize for SEO
    final = await call_agent("seo", f"Optimize this article for SEO:\n{draft}")
    return final


async def call_agent(agent_name: str, message: str):
    async with httpx.AsyncClient() as client:
        response = await client.post(AGENTS[agent_name], json={
            "jsonrpc": "2.0",
            "method": "tasks/send",
            "id": str(uuid.uuid4()),
            "params": {
                "id": str(uuid.uuid4()),
                "message": {
                    "role": "user",
                    "parts": [{"type": "text", "text": message}]
                }
            }
        })
        result = response.json()['result']
        return result['artifacts'][0]['parts'][0]['text']


async def find_agent(skill: str):
    """Find the best available agent for a skill via the registry"""
    async with httpx.AsyncClient() as client:
        response = await client.get(
            f"{REGISTRY}/api/agents",
            params={"skill": skill}
        )
        agents = response.json()['agents']
        # Pick the first online agent
        for agent in agents:
            if agent['health_status'] == 'online':
                return agent['url']
        return None


async def found(skill, task):
    AGENTS["found"] = await find_agent(skill)
    return await call_agent("found", task) if AGENTS["found"] else None


if sys.argv[1] == "fixed":
    AGENTS = dict(zip(("research", "writer", "seo"), sys.argv[2:5]))
    print(asyncio.run(orchestrate(sys.argv[5])))
else:
    REGISTRY = sys.argv[2]
    print(asyncio.run(found(*sys.argv[3:5])))
