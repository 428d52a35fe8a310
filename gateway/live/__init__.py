"""``session-gateway check --live``: tests whether each route's endpoint works as configured.

- `trial` holds a short conversation on a route, with the same calls as a gateway; `speaker` sends
  its messages, and `findings` collects the results.
- `recall` tests whether a model remembers the conversation.
- `routes` tries one route after the other, for `command`.
- `report` prints the results.
"""
