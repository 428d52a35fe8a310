// The JavaScript client as a program that does what its input's lines say: see tests/client/driven.py.
import { createInterface } from "node:readline";
import { MessageError, SessionClient } from "session-gateway-client";
import { answering } from "./sessions.mjs";

const WebSocket = globalThis.WebSocket ?? (await import("ws")).WebSocket;
const answer = answering({ MessageError, SessionClient, WebSocket });

for await (const line of createInterface({ input: process.stdin })) {
  const request = JSON.parse(line);
  answer(request).then((answered) => {
    console.log(JSON.stringify(answered));
    if (request.do === "leave") process.exit();
  });
}
