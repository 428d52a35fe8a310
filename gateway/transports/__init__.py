"""The client side: WebSocket connections, the HTTP API, the server that runs them, the pages."""
