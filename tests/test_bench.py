import json

import pytest
import torch

from adain_core import devices
from adain_core.cli import main
from adain_core.evaluation import bench as measurements
from adain_core.evaluation import plain


@pytest.fixture(autouse=True)
def small_steps(monkeypatch):
    monkeypatch.setattr(measurements, "BATCH_SIZE", 2)
    monkeypatch.setattr(measurements, "CROP_SIZE", 32)
