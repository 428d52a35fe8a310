// A conversation in Node 22 or later: node node.js [ADDRESS]
import { SessionClient } from "session-gateway-client";

const client = new SessionClient(process.argv[2] ?? "ws://127.0.0.1:8080/ws");
client.connect();
await client.send("My name is Ada.");
for await (const part of client.send("What is my name?")) process.stdout.write(part);
console.log();
client.close();
