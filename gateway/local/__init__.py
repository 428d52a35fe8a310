"""SageMaker Runtime on this machine: the gateway is tested against it, and it can be played with.

A server speaks the HTTP API of InvokeEndpoint and InvokeEndpointWithResponseStream, signatures and
all, in front of instances that hold sessions, and can be told to fail. It shares no code with the
gateway: it imports nothing of it.

- `server.create_app` is the ASGI application, `server.running` runs it within an event loop.
- `platform.Endpoint` routes calls to instances, by session where there is one.
- `containers` reach a container by URL; `builtin` and `language` are models in this process, which
  answer in the `shapes` of real containers.
- `eventstream` is how streams are encoded.
- `faults.Faults` says what is to go wrong.
"""
