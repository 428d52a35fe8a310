"""What stands between sessions and their endpoint: how many turns are at the model, in whose turn,
and whether to ask at all. So neither a sick endpoint nor a greedy principal is felt more than it
must.

- A limit on turns at the model that adapts (`AdaptiveLimit`): an endpoint that throttles or slows
  down is asked less, and what waits does so here, where it costs nothing.
- A queue with a line for each principal (`FairQueue`), of which that is served whose principal has
  the fewest turns at the model: one with a thousand sessions waits as long for its next as one with
  a single session.
- A circuit breaker (`Breaker`): while an endpoint fails, it is asked by probes alone, and clients
  are told at once when to come back. Sessions are closed all the same.

`gateway.guard.model.GuardedModel` is all three in front of a model.
"""
