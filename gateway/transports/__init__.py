"""The client's side: WebSocket connections, the server that carries them, the pages."""
