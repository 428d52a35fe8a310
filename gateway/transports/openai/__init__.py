"""OpenAI's API in front of sessions, for clients that know no other.

A response or a chat completion is one message of a session. What is said here is OpenAI's: the
shapes of requests, of responses, of events and of errors. Whatever the API has and a route's model
does not is refused by the parameter's name, never ignored.

- `gate` is in front of every path, `errors` are what it and the paths answer with, `ids` lead to
  sessions.
- `models`, `chat`, `responses`, `conversations` and `socket` serve the paths, which `paths` puts
  together.
- A response: `requests` parses what is asked for, `past` finds what it goes on from, `saying` says
  that to a model, `opening` sends it to a session, `turns` reads its log, `reading` and `output`
  make a response and events of that, `keeping` keeps what it ends in.
"""
