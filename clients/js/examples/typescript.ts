// What a service does with it: a timeout, failures, what befalls the session, bodies of all kinds.
import { MessageError, SessionClient, type Done } from "session-gateway-client";
import { WebSocket } from "ws"; // before Node 22, which has its own

const client = new SessionClient(process.argv[2] ?? "ws://127.0.0.1:8080/ws", { WebSocket });

client.addEventListener("opened", ({ detail }) => {
  if (detail.replaces !== null) console.error("The model has forgotten what was said.");
});
client.addEventListener("state", ({ detail }) => {
  if (detail === "waiting") console.error(client.reason);
});
client.connect();

/** The reply's text, or undefined where it takes too long or the model has failed. */
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
