"""Calls to SageMaker Runtime, and how containers keep sessions."""
