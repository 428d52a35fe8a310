import { type FormEvent, StrictMode, useState } from "react";
import { createRoot } from "react-dom/client";
import { type TurnView, useSession } from "session-gateway-client/react";

const address = new URLSearchParams(location.search).get("gateway") ?? "ws://127.0.0.1:8080/ws";

function Chat() {
  const { state, reason, turns, send, cancel } = useSession(address);
  const [text, setText] = useState("");

  function submit(event: FormEvent) {
    event.preventDefault();
    if (text) send(text);
    setText("");
  }

  return (
    <main>
      <h1>Chat</h1>
      <p role="status">{reason || state}</p>
      <ol>
        {turns.map((turn) => (
          <Turn key={turn.key} turn={turn} stop={() => cancel(turn.id)} />
        ))}
      </ol>
      <form onSubmit={submit}>
        <label>
          Message <input value={text} onChange={({ target }) => setText(target.value)} />
        </label>
        <button disabled={state === "closed"}>Send</button>
      </form>
    </main>
  );
}

function Turn({ turn, stop }: { turn: TurnView; stop: () => void }) {
  return (
    <li aria-busy={!turn.done}>
      <p>{turn.sent?.text}</p>
      <p>{turn.text || turn.done?.text}</p>
      {turn.error && <p role="alert">{turn.error.message}</p>}
      {!turn.done && <button onClick={stop}>Stop</button>}
    </li>
  );
}

createRoot(document.getElementById("chat")!).render(
  <StrictMode>
    <Chat />
  </StrictMode>,
);
