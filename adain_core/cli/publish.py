"""`adain publish`: upload own networks to the Hugging Face Hub."""

from __future__ import annotations

import argparse
import json
import shlex
from pathlib import Path

from huggingface_hub import ModelCardData

from ..catalog import ROLES, network_file
from ..errors import AdainError
from ..hub import HubFile, upload
from ..weights import NetworkFile, read_network
from .fitting import other_option

CARD = "README.md"
# The Hub's names of common licences; for another one, the card gives its name.
LICENCES = ("mit", "apache-2.0", "bsd-3-clause", "cc0-1.0", "cc-by-4.0", "cc-by-sa-4.0", "cc-by-nc-4.0")


def add_parser(subparsers: argparse._SubParsersAction) -> None:
    parser = subparsers.add_parser("publish", help="upload own networks and a model card to the Hugging Face Hub")
    parser.add_argument(
        "networks", nargs="+", metavar="NETWORK",
        help=".safetensors files, or DIR/NAME for DIR/NAME-encoder.safetensors and DIR/NAME-decoder.safetensors",
    )  # fmt: skip
    parser.add_argument("--repo", required=True, metavar="OWNER/NAME", help="the repository; it is made if it does not exist")
    parser.add_argument("--private", action="store_true", help="make a new repository private")
    parser.add_argument("--dry-run", action="store_true", help="print what would be uploaded, and upload nothing")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    repo = HubFile(arguments.repo.removeprefix("hf:").strip("/"), CARD).repo
    networks = {path: _publishable(path) for name in arguments.networks for path in _files(name)}
    if len({path.name for path in networks}) < len(networks):
        raise AdainError("two of the files have the same name; rename one, or one would replace the other.")
    card = model_card(repo, {path.name: network for path, network in networks.items()})
    if not arguments.dry_run:
        print(upload(repo, {path.name: path for path in networks}, {CARD: card}, arguments.private))
        return 0
    print(f"to {repo}{' (private, if it is made anew)' if arguments.private else ''}:")
    for path in networks:
        print(f"  {path.name}  {path.stat().st_size} bytes, from {path}")
    print(f"  {CARD}  {len(card.encode())} bytes, unless the repository has one:\n\n{card}")
    return 0


def model_card(repo: str, networks: dict[str, NetworkFile]) -> str:
    """The card of a repository, in Markdown, from its networks by the names of their files."""
    licences = {network.licence for network in networks.values()}
    named_by_hub = [licence.lower() for licence in licences if licence.lower() in LICENCES]
    licence = named_by_hub[0] if len(licences) == len(named_by_hub) == 1 else "other"
    data = ModelCardData(
        license=licence,
        license_name=" and ".join(sorted(licences)) if licence == "other" else None,
        library_name="adain",
        pipeline_tag="image-to-image",
        tags=["style-transfer", "adain", "comfyui"],
    )
    commands = [f"    adain stylize photo.jpg painting.jpg -o result.png {options}" for options in _options(repo, networks)]
    rows = [
        f"| `{name}` | {network.role} | {network.architecture} | {sum(t.numel() for t in network.state.values()):,} |"
        f" {network.encoder_name} `{network.encoder_fingerprint[:12]}` | {network.licence} |"
        for name, network in networks.items()
    ]
    recipes = {name: {k: v for k, v in network.recipe.items() if k != "normalised"} for name, network in networks.items()}
    trained = [f"`{name}`:\n\n```json\n{json.dumps(recipe, indent=2)}\n```\n" for name, recipe in recipes.items() if recipe]
    return "\n".join(
        [
            f"---\n{data.to_yaml()}\n---\n",
            f"# {repo.split('/')[1]}\n",
            "Arbitrary style transfer by adaptive instance normalization (Huang and Belongie, ICCV 2017), for ComfyUI-AdaIN.\n",
            "\n".join(commands) + "\n",
            "In ComfyUI, give `hub_file` of Load Encoder and Load Decoder the same names without `hf:`.\n",
            "| file | role | architecture | parameters | encoder | licence |",
            "|---|---|---|---|---|---|",
            *rows,
            *(["\n## Training\n", *trained] if trained else []),
        ]
    )


def _options(repo: str, networks: dict[str, NetworkFile]) -> list[str]:
    """The options of a command for each of the decoders, or, where there is none, of the encoders."""
    names = {role: {name: network for name, network in networks.items() if network.role == role} for role in ROLES}
    alone = names["decoder"] or names["encoder"]
    missing = "encoder" if names["decoder"] else "decoder"
    found = []
    for name, network in alone.items():
        own = f"--{network.role} {shlex.quote(f'hf:{repo}/{name}')}"
        fits = (n for n, other in names[missing].items() if other.encoder_fingerprint == network.encoder_fingerprint)
        beside = next((f"--{missing} {shlex.quote(f'hf:{repo}/{n}')}" for n in fits), "")
        found.append(" ".join([beside, own] if beside else [own, other_option(network) or f"--{missing} FILE"]))
    return found


def _files(name: str) -> list[Path]:
    if Path(name).is_file():
        return [Path(name)]
    found = [path for role in ROLES if (path := Path(network_file(name, role))).is_file()]
    if not found:
        raise FileNotFoundError(f"there is no file {name}, {name}-encoder.safetensors or {name}-decoder.safetensors.")
    return found


def _publishable(path: Path) -> NetworkFile:
    if path.suffix.lower() != ".safetensors":
        raise AdainError(f"{path} is not a .safetensors file; make one with adain convert.")
    network = read_network(path)
    if not network.licence:
        raise AdainError(f"{path} does not say its licence; give it one with adain convert --licence.")
    return network
