"""Authentication and rate limits: API keys, tokens, tickets and what each principal may use.

`gateway.admission` is the port, and `gateway.security.door.Door` implements it.
"""
