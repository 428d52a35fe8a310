"""Protects an endpoint from overload, and principals from each other: limits how many turns are at
the model, decides whose turn is next, and stops calling an endpoint that fails.

- An adaptive limit on concurrent turns (`AdaptiveLimit`): an endpoint that throttles or slows down
  gets fewer calls, and turns wait here, where waiting is cheap.
- A fair queue (`FairQueue`): the next turn is of the principal with the fewest turns at the model,
  so a principal with a thousand sessions waits as long for its next turn as one with a single
  session.
- A circuit breaker (`Breaker`): while an endpoint fails, only probes are sent to it, and clients
  are told immediately when to retry. Sessions are still closed.

`gateway.guard.model.GuardedModel` puts all three in front of a model.
"""
