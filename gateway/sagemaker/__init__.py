"""The model's side: how containers keep sessions, and calls to SageMaker Runtime."""

from gateway.sagemaker.checks import PlatformProblem, platform_problems
from gateway.sagemaker.formats import FORMATS, Format
from gateway.sagemaker.model import Defaults, SageMakerModel
from gateway.sagemaker.profiles import PROFILES, Profile
from gateway.sagemaker.runtime import NotConfigured, runtime_client
from gateway.sagemaker.streams import StreamKind, Text

__all__ = [
    "FORMATS",
    "PROFILES",
    "Defaults",
    "Format",
    "NotConfigured",
    "PlatformProblem",
    "Profile",
    "SageMakerModel",
    "StreamKind",
    "Text",
    "platform_problems",
    "runtime_client",
]
