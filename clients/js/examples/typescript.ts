// The client in a service: a time limit, failures, events of the session, and all kinds of bodies.
import { MessageError, SessionClient, type Done } from "session-gateway-client";
import { WebSocket } from "ws"; // not needed from Node 22 on, which has a global WebSocket

const client = new SessionClient(process.argv[2] ?? "ws://127.0.0.1:8080/ws", { WebSocket });

client.addEventListener("opened", ({ detail }) => {
  if (detail.replaces !== null) console.error("A new session was opened: the model has forgotten the conversation.");
});
client.addEventListener("state", ({ detail }) => {
  if (detail === "waiting") console.error(client.reason);
});
client.connect();

/** The reply's text; undefined if it takes too long or fails. */
async function ask(text: string, seconds: number): Promise<string | undefined> {
  const turn = client.send({ text, stream: false });
  const timer = setTimeout(() => turn.cancel(), seconds * 1000);
  try {
    const done: Done = await turn;
    return done.status === "completed" ? done.text : undefined;
  } catch (error) {
    if (!(error instanceof MessageError)) throw error;
    const { code, outcome } = error.failure;
    console.error(`${code}; did the model see it? ${outcome}`);
    return undefined;
  } finally {
    clearTimeout(timer);
  }
}

console.log(await ask("My name is Ada.", 30));
console.log(await ask("What is my name?", 30));
const length = await client.send({ bytes: Uint8Array.of(72, 105) }).then((done) => done.text?.length);
console.log(length?.toFixed(0));
for await (const part of client.send({ json: { inputs: "Hello" } })) {
  process.stdout.write(part);
}
console.log();
client.close();
