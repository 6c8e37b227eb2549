// The scenarios of the SDK tests, played by a stock @a2a-js/sdk 1.3.0 client.
//
// `node client.mjs --base URL [--key KEY] [--only NAME,NAME] [--binding rest] [--legacy]` prints one JSON line per scenario,
// `{"scenario": ..., "result": ...}`, with every id, time and base URL replaced by a placeholder.
import { setTimeout as sleep } from "node:timers/promises";
import { parseArgs } from "node:util";
import {
  AgentCard,
  CancelTaskRequest,
  GetTaskRequest,
  ListTasksRequest,
  Message,
  SendMessageRequest,
  StreamResponse,
  SubscribeToTaskRequest,
  Task,
} from "@a2a-js/sdk";
import {
  ClientFactory,
  DefaultAgentCardResolver,
  JsonRpcTransportFactory,
  RestTransportFactory,
} from "@a2a-js/sdk/client";

const { values: options } = parseArgs({
  options: {
    base: { type: "string" },
    key: { type: "string" },
    only: { type: "string" },
    binding: { type: "string", default: "jsonrpc" },
    legacy: { type: "boolean", default: false },
  },
});
// Relative references resolve against a directory, so the base of an agent below a path has to end in a slash.
const base = options.base.replace(/\/*$/, "/");
const MISSING = "00000000-0000-4000-8000-000000000000";

const fetchImpl = (input, init = {}) => {
  const headers = new Headers(init.headers ?? (input instanceof Request ? input.headers : undefined));
  if (options.key) headers.set("Authorization", `Bearer ${options.key}`);
  return fetch(input, { ...init, headers });
};
const legacyCompat = { enabled: options.legacy };
const Transport = options.binding === "rest" ? RestTransportFactory : JsonRpcTransportFactory;
const factory = new ClientFactory({
  transports: [new Transport({ fetchImpl, legacyCompat })],
  cardResolver: new DefaultAgentCardResolver({ fetchImpl, legacyCompat }),
});

function normalised(value) {
  const ids = new Map();
  const text = JSON.stringify(value)
    .replaceAll(base.slice(0, -1), "<base>")
    .replace(/[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}/g, (id) => {
      if (id === MISSING) return "<missing>";
      if (!ids.has(id)) ids.set(id, `<id ${ids.size + 1}>`);
      return ids.get(id);
    })
    .replace(/\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?(Z|\+00:00)/g, "<time>");
  return JSON.parse(text);
}

const said = (text, more = {}) =>
  SendMessageRequest.fromJSON({
    message: { messageId: crypto.randomUUID(), role: "ROLE_USER", parts: [{ text }], ...more },
    configuration: {},
  });
const plain = (result) => ("messageId" in result ? { message: Message.toJSON(result) } : { task: Task.toJSON(result) });
const send = async (client, text, more) => plain(await client.sendMessage(said(text, more)));

// Ticks come as often as time allows, so equal events that follow each other count once.
function note(events, event) {
  const last = events.at(-1);
  if (JSON.stringify(last) !== JSON.stringify(event)) events.push(event);
}

async function collect(stream, onEvent = async () => {}) {
  const events = [];
  for await (const event of stream) {
    const shape = StreamResponse.toJSON(event);
    note(events, shape);
    await onEvent(shape);
  }
  return events;
}

// Starts a task that stays at work, and leaves its stream after the first tick.
async function hold(client) {
  const events = [];
  for await (const event of client.sendMessageStream(said("hold"))) {
    const shape = StreamResponse.toJSON(event);
    note(events, shape);
    if (shape.artifactUpdate) break;
  }
  return { id: events[0].task.id, events };
}

const scenarios = {
  async discover(client) {
    const card = AgentCard.toJSON(await client.getAgentCard());
    const { name, description, version, skills, defaultInputModes, defaultOutputModes } = card;
    const elsewhere = card.supportedInterfaces.map((each) => each.url).filter((url) => !url.startsWith(base.slice(0, -1)));
    return { name, description, version, skills, defaultInputModes, defaultOutputModes, streaming: card.capabilities.streaming, elsewhere };
  },
  send: (client) => send(client, "echo grüße 你好 🤝 \u2028 \\ \" end"),
  big: async (client) => {
    const body = "0123456789é".repeat(20000);
    const { task } = await send(client, `echo ${body}`);
    return { same: task.artifacts[0].parts[0].text === body };
  },
  message: (client) => send(client, "message just words"),
  stream: (client) => collect(client.sendMessageStream(said("stream"))),
  stream_message: (client) => collect(client.sendMessageStream(said("message streamed words"))),
  async two_turns(client) {
    const first = (await send(client, "ask")).task;
    return [first, await send(client, "answer blue", { taskId: first.id, contextId: first.contextId })];
  },
  failed: (client) => send(client, "fail"),
  async get(client) {
    const { task } = await send(client, "echo again");
    return Task.toJSON(await client.getTask(GetTaskRequest.fromJSON({ id: task.id })));
  },
  async list(client) {
    const { task } = await send(client, "echo listed");
    const listed = await client.listTasks(ListTasksRequest.fromJSON({ contextId: task.contextId }));
    return listed.tasks.map((each) => Task.toJSON(each));
  },
  async cancel(client) {
    let canceled;
    const events = await collect(client.sendMessageStream(said("hold")), async (event) => {
      if (!event.artifactUpdate || canceled) return;
      canceled = Task.toJSON(await client.cancelTask(CancelTaskRequest.fromJSON({ id: event.artifactUpdate.taskId })));
    });
    return { canceled, events };
  },
  async resubscribe(client) {
    const { id, events } = await hold(client);
    let released;
    const rest = await collect(client.resubscribeTask(SubscribeToTaskRequest.fromJSON({ id })), async (event) => {
      if (event.artifactUpdate && !released) released = await send(client, `release ${id}`);
    });
    return { before: events, released, after: rest };
  },
  get_unknown: (client) => client.getTask(GetTaskRequest.fromJSON({ id: MISSING })),
  cancel_unknown: (client) => client.cancelTask(CancelTaskRequest.fromJSON({ id: MISSING })),
  resubscribe_unknown: (client) => collect(client.resubscribeTask(SubscribeToTaskRequest.fromJSON({ id: MISSING }))),
  async cancel_finished(client) {
    const { task } = await send(client, "echo done");
    return client.cancelTask(CancelTaskRequest.fromJSON({ id: task.id }));
  },
  crash: (client) => send(client, "crash"),
  crash_stream: (client) => collect(client.sendMessageStream(said("crash"))),
  unsupported: (client) => send(client, "unsupported"),
  unsupported_stream: (client) => collect(client.sendMessageStream(said("unsupported"))),
};

const failure = (error) => ({
  error: error.constructor.name,
  message: error.message,
  code: error.code ?? error.envelope?.error?.code,
  status: error.statusCode,
  data: error.details ?? error.data,
});

const late = async () => {
  await sleep(15_000);
  throw Object.assign(new Error("no end after 15 seconds"), { name: "Late" });
};

let client;
let told = "";
const wanted = options.only ? options.only.split(",") : Object.keys(scenarios);
for (const scenario of wanted) {
  let result;
  try {
    client ??= await factory.createFromUrl(base);
    result = await Promise.race([scenarios[scenario](client), late()]);
  } catch (error) {
    result = failure(error);
  }
  told += JSON.stringify({ scenario, result: normalised(result ?? null) }) + "\n";
}
// Streams that were left early may still hold the process, and a pipe is written in the background.
process.stdout.write(told, () => process.exit(0));
