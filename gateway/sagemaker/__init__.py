"""The model's side: how containers keep sessions, and calls to SageMaker Runtime."""
