"""Who may come in and how much each may use: keys, tokens, tickets, limits.

`gateway.admission` is the port; `gateway.security.door.Door` is what stands behind it.
"""
