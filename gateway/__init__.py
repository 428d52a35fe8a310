"""A WebSocket gateway for stateful models on Amazon SageMaker."""
