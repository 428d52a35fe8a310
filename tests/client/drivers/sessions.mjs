// What the drivers of the JavaScript client do, in Node and in a browser: see tests/client/driven.py.

const encoded = (part) => {
  const bytes = typeof part === "string" ? new TextEncoder().encode(part) : part;
  return btoa(String.fromCharCode(...bytes));
};
const decoded = (text) => Uint8Array.from(atob(text), (character) => character.charCodeAt(0));

class Session {
  #package;
  #turns = new Map();
  #notices = [];
  #kept = null;

  constructor(imported) {
    this.#package = imported;
  }

  async open({ url, token, saved }) {
    const { SessionClient, WebSocket } = this.#package;
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
    const body = text !== null ? { text } : data !== null ? { bytes: decoded(data) } : { json };
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
      if (!(error instanceof this.#package.MessageError)) throw error;
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

  // What is stored is there for the next program, and the session is not closed: this one ends.
  leave() {
    return this.#kept;
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

/** Answers requests with the client that was imported. */
export function answering(imported) {
  const sessions = new Map();
  return async ({ number, session, do: name, ...given }) => {
    if (!sessions.has(session)) sessions.set(session, new Session(imported));
    try {
      return { number, result: (await sessions.get(session)[name](given)) ?? null };
    } catch (client) {
      return { number, refused: client.code };
    }
  };
}
