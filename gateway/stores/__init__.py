"""Where sessions live: implementations of `gateway.session.ports.Store`."""
