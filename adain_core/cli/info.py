"""`adain info`: versions, devices and weights."""

from __future__ import annotations

import argparse
import platform
from importlib.metadata import PackageNotFoundError, version

from ..devices import available_devices
from ..weights import BUNDLED, bundled_names


def add_parser(subparsers: argparse._SubParsersAction) -> None:
    parser = subparsers.add_parser("info", help="list versions, devices and weights")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    print(f"python     {platform.python_version()} on {platform.platform()}")
    for package in ("adain", "torch", "torchvision", "pillow", "safetensors", "huggingface-hub"):
        print(f"{package:10} {_version(package)}")
    print(f"devices    {', '.join(available_devices())}")
    print(f"weights    {BUNDLED}")
    for role in ("encoder", "decoder"):
        print(f"  {role}s {', '.join(bundled_names(role)) or 'none'}")
    return 0


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "not installed"
