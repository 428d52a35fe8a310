// The JavaScript client as a program that does what its input's lines say: see tests/client/driven.py.
import { createInterface } from "node:readline";
import { MessageError, SessionClient } from "session-gateway-client";

const WebSocket = globalThis.WebSocket ?? (await import("ws")).WebSocket;
const encoded = (part) => Buffer.from(part).toString("base64");

class Session {
  #turns = new Map();
  #notices = [];
  #kept = null;

  async open({ url, token, saved }) {
    this.#kept = saved;
    const storage = { getItem: () => this.#kept, setItem: (_, kept) => (this.#kept = kept) };
    const client = new SessionClient(url, { WebSocket, storage, token: token ?? undefined });
    this.client = client;
    client.addEventListener("opened", ({ detail }) =>
      this.#notices.push(detail.replaces === null ? "opened" : "replaced"),
    );
    client.addEventListener("resumed", () => this.#notices.push("resumed"));
    client.addEventListener("renewed", ({ detail }) =>
      this.#notices.push(`renewed ${detail.context}`),
    );
    for (const item of client.history) if ("id" in item) this.#turns.set(item.id, item);
    await new Promise((resolve, reject) => {
      client.addEventListener("state", ({ detail }) => {
        if (detail === "open") resolve();
        else if (detail === "closed") reject(client);
      });
      client.connect();
    });
  }

  send({ id, text, data, json, options }) {
    const body =
      text !== null ? { text } : data !== null ? { bytes: Buffer.from(data, "base64") } : { json };
    this.#turns.set(id, this.client.send({ ...body, ...options }, id));
  }

  async parts({ id, count }) {
    const parts = [];
    for await (const part of this.#turns.get(id)) {
      parts.push(encoded(part));
      if (parts.length === count) break;
    }
    return parts;
  }

  async end({ id }) {
    try {
      const { status, outcome, text, json, base64, deltas, content_type } =
        await this.#turns.get(id);
      const body = base64 ?? encoded(text ?? (json === undefined ? "" : JSON.stringify(json)));
      return { status, outcome: outcome ?? null, body, deltas, content_type: content_type ?? null };
    } catch (error) {
      if (!(error instanceof MessageError)) throw error;
      const { code, outcome } = error.failure;
      return { status: "failed", code, outcome };
    }
  }

  async cancel({ id }) {
    this.#turns.get(id).cancel();
    await this.#turns.get(id);
  }

  notices() {
    return this.#notices;
  }

  // As a page that is left: what is stored is there for the next one, and the session is not closed.
  leave() {
    const kept = this.#kept;
    setImmediate(() => process.exit());
    return kept;
  }

  async close() {
    if (this.client.state === "closed") return;
    const closed = new Promise((resolve) => {
      this.client.addEventListener("state", ({ detail }) => detail === "closed" && resolve());
    });
    this.client.close();
    await closed;
  }
}

const sessions = new Map();
for await (const line of createInterface({ input: process.stdin })) {
  const { number, session, do: name, ...given } = JSON.parse(line);
  if (!sessions.has(session)) sessions.set(session, new Session());
  Promise.resolve(sessions.get(session)[name](given)).then(
    (result) => console.log(JSON.stringify({ number, result: result ?? null })),
    (client) => console.log(JSON.stringify({ number, refused: client.code })),
  );
}
