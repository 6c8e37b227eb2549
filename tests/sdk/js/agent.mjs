// A test agent on @a2a-js/sdk 1.3.0: protocol 1.0 over JSON-RPC. The first word of a message says what it does.
//
// Like the Python ones it prints `{"url": ...}` when it listens, writes one JSON line per request to `--log FILE`,
// and ends when its standard input does.
import { appendFileSync } from "node:fs";
import { setTimeout as sleep } from "node:timers/promises";
import express from "express";
import { AgentCard, Message, Task, TaskArtifactUpdateEvent, TaskStatusUpdateEvent } from "@a2a-js/sdk";
import { AgentEvent, DefaultRequestHandler, InMemoryTaskStore } from "@a2a-js/sdk/server";
import { UserBuilder, agentCardHandler, jsonRpcHandler } from "@a2a-js/sdk/server/express";

// The SDK reports each failing behaviour on the console; here failing is what they are for.
console.error = console.warn = () => {};
const log = process.argv[process.argv.indexOf("--log") + 1];

class Behaviours {
  held = new Map();

  async execute(context, bus) {
    const { taskId, contextId, userMessage, task } = context;
    const said = Message.toJSON(userMessage).parts[0].text;
    const [word] = said.split(" ", 1);
    const rest = said.slice(word.length + 1);
    const reply = (text) => Message.fromJSON({ messageId: crypto.randomUUID(), contextId, role: "ROLE_AGENT", parts: [{ text }] });
    const status = (state, text) =>
      bus.publish(
        AgentEvent.statusUpdate(
          TaskStatusUpdateEvent.fromJSON({
            taskId,
            contextId,
            status: { state, timestamp: new Date().toISOString(), message: text && Message.toJSON(reply(text)) },
          }),
        ),
      );
    const artifact = (artifactId, text, more = {}) =>
      bus.publish(
        AgentEvent.artifactUpdate(
          TaskArtifactUpdateEvent.fromJSON({ taskId, contextId, artifact: { artifactId, parts: [{ text }] }, ...more }),
        ),
      );

    if (word === "message") return bus.publish(AgentEvent.message(reply(rest)));
    if (word === "release") {
      this.held.set(rest, true);
      return bus.publish(AgentEvent.message(reply("released")));
    }
    if (word === "crash" || word === "unsupported") throw new Error("the agent's own code broke");

    bus.publish(
      AgentEvent.task(
        task ??
          Task.fromJSON({
            id: taskId,
            contextId,
            status: { state: "TASK_STATE_SUBMITTED", timestamp: new Date().toISOString() },
            history: [Message.toJSON(userMessage)],
          }),
      ),
    );
    if (word === "echo") {
      artifact("echo", rest);
      status("TASK_STATE_COMPLETED");
    } else if (word === "stream") {
      status("TASK_STATE_WORKING");
      for (const number of [1, 2, 3]) {
        artifact("parts", `part ${number} · teil ${number} · 部分 ${number}`, { append: number > 1, lastChunk: number === 3 });
      }
      status("TASK_STATE_COMPLETED");
    } else if (word === "ask") {
      status("TASK_STATE_INPUT_REQUIRED", "which colour?");
    } else if (word === "answer") {
      artifact("answer", `painted ${rest}`);
      status("TASK_STATE_COMPLETED");
    } else if (word === "fail") {
      status("TASK_STATE_FAILED", "it did not work");
    } else if (word === "hold") {
      this.held.set(taskId, false);
      status("TASK_STATE_WORKING");
      while (this.held.get(taskId) === false) {
        artifact("tick", "tick", { append: false });
        await sleep(50);
      }
      status(this.held.get(taskId) === "canceled" ? "TASK_STATE_CANCELED" : "TASK_STATE_COMPLETED");
    } else {
      status("TASK_STATE_REJECTED", `unknown word ${word}`);
    }
  }

  cancelTask = async (taskId) => {
    this.held.set(taskId, "canceled");
  };
}

const app = express();
app.use(express.text({ type: () => true, limit: "10mb" }), (request, _response, next) => {
  const headers = [];
  for (let at = 0; at < request.rawHeaders.length; at += 2) {
    headers.push([request.rawHeaders[at].toLowerCase(), request.rawHeaders[at + 1]]);
  }
  const body = typeof request.body === "string" ? request.body : "";
  const { pathname, search } = new URL(request.originalUrl, "http://agent");
  appendFileSync(
    log,
    JSON.stringify({
      method: request.method,
      path: pathname,
      query: search.slice(1),
      headers,
      body: body.slice(0, 65536),
      peer: request.socket.remoteAddress,
    }) + "\n",
  );
  // The SDK's own middleware parses JSON unless the body was read already, so it is handed the parsed value.
  try {
    request.body = body === "" ? undefined : JSON.parse(body);
  } catch {
    return next(Object.assign(new SyntaxError("broken JSON"), { type: "entity.parse.failed", status: 400 }));
  }
  next();
});

const listener = app.listen(0, "127.0.0.1", () => {
  const base = `http://127.0.0.1:${listener.address().port}`;
  const card = AgentCard.fromJSON({
    name: "JavaScript agent",
    description: "Answers by the first word of a message.",
    version: "1.2.3",
    capabilities: { streaming: true, pushNotifications: false },
    defaultInputModes: ["text/plain"],
    defaultOutputModes: ["text/plain"],
    supportedInterfaces: [{ url: `${base}/`, protocolBinding: "JSONRPC", protocolVersion: "1.0" }],
    skills: [{ id: "echo", name: "Echo", description: "Says it again", tags: ["echo", "test"] }],
  });
  const requestHandler = new DefaultRequestHandler(card, new InMemoryTaskStore(), new Behaviours());
  app.use("/.well-known/agent-card.json", agentCardHandler({ agentCardProvider: requestHandler }));
  app.use("/", jsonRpcHandler({ requestHandler, userBuilder: UserBuilder.noAuthentication }));
  console.log(JSON.stringify({ url: base }));
});

process.stdin.on("end", () => process.exit(0)).resume();
