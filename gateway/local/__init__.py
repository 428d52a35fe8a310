"""SageMaker Runtime on this machine, to test the gateway against and to try it out.

A server implements the HTTP API of InvokeEndpoint and InvokeEndpointWithResponseStream, signatures
included, in front of instances that hold sessions, and can inject faults. It shares no code with
the gateway, and imports nothing of it.

- `server.create_app` is the ASGI application, `server.running` runs it within an event loop.
- `platform.Endpoint` routes calls to instances, by session if there is one.
- `containers` reach a container by URL; `builtin` and `language` are models in this process, which
  reply in the `shapes` of real containers.
- `eventstream` encodes streams.
- `faults.Faults` are the faults to inject.
"""
