"""`adain info`: versions, devices, styles and weights."""

from __future__ import annotations

import argparse
import platform
from importlib.metadata import PackageNotFoundError, version

from ..catalog import Entry, catalog
from ..devices import available_devices
from .gallery import bundled_styles, saved_styles


def add_parser(subparsers: argparse._SubParsersAction) -> None:
    parser = subparsers.add_parser("info", help="list versions, devices, the number of styles, and weights")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    print("\n".join(versions()))
    print(f"devices    {', '.join(available_devices())}")
    print(f"styles     {len(bundled_styles())} bundled, {len(saved_styles())} saved (adain style list)")
    print("weights")
    for entry in catalog():
        print(f"  {entry.name} {entry.role}: {entry.about} ({entry.licence})")
        print(f"    {_where(entry)}")
    return 0


def versions() -> list[str]:
    """A line for Python and the system, and one for each package that results depend on."""
    packages = "adain", "torch", "torchvision", "pillow", "safetensors", "huggingface-hub"
    system = f"python     {platform.python_version()} on {platform.platform()}"
    return [system, *(f"{package:10} {_version(package)}" for package in packages)]


def _where(entry: Entry) -> str:
    if entry.path.is_file():
        return f"{'bundled' if entry.bundled else 'pulled'}: {entry.path}"
    if not entry.mirrors:
        return "not bundled with this version yet"
    others = len(entry.mirrors) - 1
    return f"to pull: {entry.size / 1e6:.1f} MB from {entry.mirrors[0]}" + (f" or {others} other places" if others else "")


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "not installed"
