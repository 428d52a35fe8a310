"""``session-gateway check --live``: whether each route's endpoint does what its route says.

- `trial` holds a short conversation on a route, by the calls that a gateway makes; `speaker` sends
  its messages, and `findings` keeps what shows.
- `recall` asks a model for what it was told, and judges the answer.
- `routes` does that with one route after the other, for `command`.
- `report` shows what was found, to people.
"""
