"""Responses by clients in Node, unmodified: OpenAI's, and Vercel's for Open Responses."""

from pathlib import Path
from typing import Any

from tests.support import node
from tests.support.openresponses import check_response, check_stream
from tests.support.responding import Chat

OPENAI = """
import OpenAI from "openai";
import { ResponsesWS } from "openai/resources/responses/ws";
import { zodTextFormat } from "openai/helpers/zod";
import { z } from "zod";

const sdk = new OpenAI({ baseURL: `${process.env.GATEWAY}/openai/v1`, apiKey: "any" });
"""

VERCEL = """
import { createOpenResponses } from "@ai-sdk/open-responses";
import { generateText, streamText, tool, stepCountIs } from "ai";
import { z } from "zod";

const provider = createOpenResponses({
  name: "gateway",
  url: `${process.env.GATEWAY}/openai/v1/responses`,
  apiKey: "any",
});
const model = provider("chat");
"""

WEATHER = """
const weather = {
  type: "function",
  name: "get_weather",
  parameters: { type: "object", properties: { location: { type: "string" } } },
};
"""


def run(chat: Chat, folder: Path, head: str, script: str) -> Any:
    """What a script prints."""
    return node.run(folder, head + script, GATEWAY=chat.url)


def test_openais_client(chat: Chat, tmp_path: Path) -> None:
    script = """
const one = await sdk.responses.create({ model: "chat", input: "node one" });
const stream = await sdk.responses.create({
  model: "chat", input: "/count 5", previous_response_id: one.id, stream: true,
});
const events = [];
for await (const event of stream) events.push(event);
const two = events.at(-1).response;
const rest = [];
const again = await sdk.responses.retrieve(two.id, { stream: true, starting_after: 5 });
for await (const event of again) rest.push(event);
const items = [];
for await (const item of sdk.responses.inputItems.list(two.id)) items.push(item.content[0].text);
const background = await sdk.responses.create({
  model: "chat", input: "/count 3000", background: true,
});
const cancelled = await sdk.responses.cancel(background.id);
const conversation = await sdk.conversations.create({ metadata: { a: "b" } });
await sdk.responses.create({ model: "chat", input: "node three", conversation: conversation.id });
const said = [];
for await (const item of sdk.conversations.items.list(conversation.id, { order: "asc" })) {
  said.push(item.content[0].text);
}
await sdk.responses.delete(one.id);
const gone = await sdk.responses.retrieve(one.id).catch((error) => [error.status, error.code]);
const wrong = await sdk.responses
  .create({ model: "chat", input: "x", tools: [{ type: "web_search" }] })
  .catch((error) => [error.status, error.code, error.param]);
console.log(JSON.stringify({
  text: one.output_text, responses: [two, cancelled], events, rest, items, said, gone, wrong,
}));
"""
    told = run(chat, tmp_path, OPENAI, script)
    assert told["text"] == "[Be kind.] You said: node one"
    two, cancelled = (check_response(each) for each in told["responses"])
    assert check_stream(told["events"]) == two
    assert told["rest"] == told["events"][6:]
    assert told["items"] == ["/count 5"]
    assert cancelled["status"] == "cancelled"
    assert told["said"] == ["node three", "[Be kind.] You said: node three"]
    assert told["gone"] == [404, "not_found"]
    assert told["wrong"] == [400, "unsupported", "tools[0].type"]


def test_openais_helpers(chat: Chat, tmp_path: Path) -> None:
    script = """
const Said = z.object({ said: z.string(), words: z.number() });
const parsed = await sdk.responses.parse({
  model: "chat", input: "hello Node", text: { format: zodTextFormat(Said, "said") },
});
const stream = sdk.responses.stream({ model: "chat", input: "/count 3" });
let text = "";
stream.on("response.output_text.delta", (event) => { text += event.delta; });
const final = await stream.finalResponse();
console.log(JSON.stringify([parsed.output_parsed, text, final.output_text]));
"""
    said, text, final = run(chat, tmp_path, OPENAI, script)
    assert said == {"said": "Node", "words": 2}
    assert text == final == "1 2 3 "


def test_openais_websocket(chat: Chat, tmp_path: Path) -> None:
    script = (
        WEATHER
        + """
const socket = new ResponsesWS(sdk);
const over = ["response.completed", "response.failed", "response.incomplete"];
const responses = [];
function ask(request) {
  return new Promise((resolve, reject) => {
    const events = [];
    const take = (event) => {
      events.push(event);
      if (!over.includes(event.type)) return;
      socket.off("event", take);
      responses.push(events);
      resolve(event.response);
    };
    socket.on("event", take);
    socket.once("error", reject);
    socket.send({ type: "response.create", model: "chat", ...request });
  });
}
await ask({ generate: false });
const asked = await ask({ input: "The weather in Oslo?", tools: [weather], store: false });
await ask({
  previous_response_id: asked.id,
  store: false,
  input: [{ type: "function_call_output", call_id: asked.output[0].call_id, output: "rain" }],
});
socket.close();
console.log(JSON.stringify(responses));
"""
    )
    told = run(chat, tmp_path, OPENAI, script)
    responses = [check_stream(events) for events in told]
    assert [len(each["output"]) for each in responses] == [0, 1, 1]
    assert responses[2]["output"][0]["content"][0]["text"] == "The tool says: rain"
    assert len({each["id"][5:37] for each in responses}) == 1


def test_vercels_client(chat: Chat, tmp_path: Path) -> None:
    script = """
const one = await generateText({ model, system: "Be brief.", prompt: "vercel one" });
const streamed = streamText({ model, prompt: "/count 4" });
let text = "";
for await (const piece of streamed.textStream) text += piece;
const usage = await streamed.usage;
const tools = {
  get_weather: tool({
    description: "The weather of a place.",
    inputSchema: z.object({ location: z.string() }),
    execute: async ({ location }) => `rain in ${location}`,
  }),
};
const asked = { model, tools, stopWhen: stepCountIs(3), prompt: "What is the weather in Oslo?" };
const called = await generateText(asked);
const calling = streamText(asked);
const told = await calling.text;
const image = await generateText({
  model,
  messages: [{
    role: "user",
    content: [
      { type: "text", text: "What is this?" },
      { type: "file", data: new Uint8Array([1, 2, 3]), mediaType: "image/png" },
    ],
  }],
});
const wrong = await generateText({ model: provider("none"), prompt: "x" }).catch(
  (error) => [error.statusCode, error.isRetryable],
);
const failed = await generateText({ model, prompt: "/fail 503", maxRetries: 3 }).catch(
  (error) => [error.statusCode, error.isRetryable],
);
console.log(JSON.stringify({
  one: one.text, text, tokens: usage.outputTokens, called: called.text, told, image: image.text,
  wrong, failed,
}));
"""
    told = run(chat, tmp_path, VERCEL, script)
    assert told == {
        "one": "[Be kind.\n\nBe brief.] You said: vercel one",
        "text": "1 2 3 4 ",
        "tokens": 4,
        "called": "The tool says: rain in Oslo",
        "told": "The tool says: rain in Oslo",
        "image": told["image"],
        "wrong": [404, False],
        "failed": [424, False],
    }
    assert told["image"].startswith("I see image/png of 3 bytes")
    assert len(chat.turns("/fail 503")) == 1
