"""The networks: a file for each architecture, with both halves of it."""

from .base import Architecture, Decoder, Encoder, Level, Network
from .pyramid import ARCHITECTURE as PYRAMID
from .student import ARCHITECTURE as STUDENT
from .vgg import ARCHITECTURE as VGG

# A further architecture is registered here, under the name that network files give.
ARCHITECTURES: dict[str, Architecture] = {each.encoder.architecture: each for each in (VGG, PYRAMID, STUDENT)}

__all__ = ["ARCHITECTURES", "Architecture", "Decoder", "Encoder", "Level", "Network"]
