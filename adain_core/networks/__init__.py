"""The networks: a file for each architecture, with its encoder and its decoder."""

from .base import Architecture, Decoder, Encoder, Level, Network
from .student import ARCHITECTURE as STUDENT
from .vgg import ARCHITECTURE as VGG

# A new architecture is registered here, under its name in network files.
ARCHITECTURES: dict[str, Architecture] = {each.encoder.architecture: each for each in (VGG, STUDENT)}

__all__ = ["ARCHITECTURES", "Architecture", "Decoder", "Encoder", "Level", "Network"]
