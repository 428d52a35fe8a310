"""The model's side: how containers keep sessions, and calls to SageMaker Runtime."""

from gateway.sagemaker.model import Defaults, SageMakerModel
from gateway.sagemaker.profiles import PROFILES, Profile
from gateway.sagemaker.runtime import NotConfigured, Runtime, runtime_client

__all__ = [
    "PROFILES",
    "Defaults",
    "NotConfigured",
    "Profile",
    "Runtime",
    "SageMakerModel",
    "runtime_client",
]
