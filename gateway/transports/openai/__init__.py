"""OpenAI's API on top of sessions, for clients that were written for OpenAI.

A response or a chat completion is one message of a session. Requests, responses, events and errors
have OpenAI's format. Parameters that a route's model doesn't support are refused by their names,
never ignored.

- `gate` handles what is common to all requests, `errors` formats errors, `ids` maps ids to
  sessions.
- `models`, `chat`, `responses`, `conversations` and `socket` serve the paths; `paths` lists them.
- For a response, `requests` parses the request, `past` finds its history, `saying` converts that
  to the model's format, `opening` sends it to a session, `turns` reads the session's log, `reading`
  and `output` convert that to a response and its events, and `keeping` stores the result.
"""
