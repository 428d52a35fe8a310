"""The session core: a state machine without I/O, and the interfaces its adapters implement."""
