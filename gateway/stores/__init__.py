"""Session stores: implementations of `gateway.session.ports.Store`."""
