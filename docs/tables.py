"""Makes the tables of README.md, docs/ and weights/README.md anew from the numbers in docs/numbers/, and measures these:

    python docs/tables.py                                # the tables
    python docs/tables.py lite speed                     # first the numbers lite.json and speed.json

Losses are measured on the pictures of `../shared/pictures`, by the reference weights in `../shared/reference`; networks of the
experiments are trained on those pictures.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import sys
import tempfile
import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from statistics import fmean

import torch
from make_styles import ROOT

from adain_core import channel_statistics, encode_style, load_decoder, load_encoder, refine, stylize
from adain_core.cli import main as adain
from adain_core.evaluation.losses import layer_features, load_loss_network, pair_losses
from adain_core.evaluation.report import draw_pairs, load_square
from adain_core.images import list_images

DOCUMENTS = [ROOT / "README.md", ROOT / "weights" / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
NUMBERS = ROOT / "docs" / "numbers"

PICTURES = "--contents ../shared/pictures/validation/contents --styles ../shared/pictures/validation/styles"
TRAINING = "--contents ../shared/pictures/contents --styles ../shared/pictures/styles"
ENCODER = "../shared/reference/vgg_normalised.safetensors"
JUDGE = f"--loss-encoder {ENCODER}"
DECODER, PUBLISHED = "weights/vgg19-decoder.safetensors", "../shared/reference/decoder.safetensors"
ALL = f"--model lite --model {ENCODER} {DECODER} --model {ENCODER} {PUBLISHED}"
EXPERIMENTS = {
    "comparison": f"evaluate comparison {PICTURES} {JUDGE} {ALL} --training-contents ../shared/pictures/contents",
    "paper-speed": "evaluate speed",
    "ablation": f"evaluate ablation {TRAINING} {JUDGE} --steps 300",
    "controls": f"evaluate controls {PICTURES} {JUDGE} --model {ENCODER} {PUBLISHED}",
    "normalization": f"evaluate normalization {PICTURES} {JUDGE} --training-contents ../shared/pictures/contents",
    "sheet": f"evaluate sheet {PICTURES} {JUDGE} {ALL}",
}
# What each file in docs/numbers/ was measured by, in the project's folder: `adain ... -o docs/numbers/NAME.json`.
MEASUREMENTS = {
    "lite": f"evaluate {PICTURES} {JUDGE} --pairs 120 --flat 8",
    "vgg19": f"evaluate {PICTURES} {JUDGE} --encoder {ENCODER} --decoder {DECODER} --pairs 120 --flat 8",
    "published": f"evaluate {PICTURES} {JUDGE} --encoder {ENCODER} --decoder {PUBLISHED} --pairs 120 --flat 8",
    "speed": "bench --sizes 256 512 --runs 7",
    **EXPERIMENTS,
}
MODELS = {"`lite`": "lite", "`vgg19`": "vgg19", "the published decoder": "published"}
# how the experiments name them
NAMES = {"lite": "`lite`", "vgg_normalised + vgg19": "`vgg19`", "vgg_normalised + decoder": "the published decoder"}

FOLDERS = [Path("../shared/pictures/validation", kind) for kind in ("contents", "styles")]
CONTRASTS = {"photographs": 1.0, "photographs with a twentieth of their contrast": 0.05}


def measure(name: str) -> None:
    """Write docs/numbers/NAME.json."""
    path = NUMBERS / f"{name}.json"
    if measure_here := MEASURED_HERE.get(name):
        path.write_text(json.dumps(measure_here(), indent=1) + "\n", encoding="utf-8")
        return
    with tempfile.TemporaryDirectory() as folder:  # the experiments write a figure too
        written = Path(folder, path.name)
        if adain([*MEASUREMENTS[name].split(), "-o", str(written)]) != 0:
            sys.exit(1)
        found = json.loads(written.read_text(encoding="utf-8"))
    found.pop("curves", None)  # of each step of an experiment; no table has them
    path.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")


def measure_refining(count: int = 10) -> list[dict]:
    """The losses of `vgg19` on `count` validation pairs, before 30 steps of refining and after, and the seconds of a core."""
    encoder, decoder = load_encoder(ENCODER, dtype="float32"), load_decoder("vgg19", dtype="float32")
    judge = load_loss_network(ENCODER, torch.device("cpu"))
    found = []
    for content, painting in draw_pairs(*map(list_images, FOLDERS), count):
        before, look = load_square(content, 256), load_square(painting, 256)
        result = stylize(encoder, decoder, before, encode_style(encoder, look, size=0))
        start = time.process_time()
        better = refine(encoder, result, before, encode_style(encoder.for_losses(), look, size=0))
        seconds = time.process_time() - start
        features, statistics = layer_features(judge, before), [channel_statistics(x) for x in layer_features(judge, look)]
        first, last = (vars(pair_losses(layer_features(judge, each), features, statistics)) for each in (result, better))
        names = {"content": content.name, "style": painting.name}
        found.append(names | {"before": first, "after": last, "seconds": seconds})
        print(content.name, painting.name, flush=True)
    return found


def measure_number_types(size: int = 256) -> dict[str, dict[str, list[float]]]:
    """What bfloat16 changes, as a PSNR in dB of each validation photograph, in a style each: of it, and of a paler copy."""
    pairs = list(zip(*map(list_images, FOLDERS), strict=False))
    found = {}
    for label, (encoder, decoder) in {"`lite`": ("lite", "lite"), "the published decoder": (ENCODER, PUBLISHED)}.items():
        networks = {
            dtype: (load_encoder(encoder, dtype=dtype), load_decoder(decoder, dtype=dtype)) for dtype in ("float32", "bfloat16")
        }
        found[label] = {kind: [] for kind in CONTRASTS}
        for content, painting in pairs:
            look = encode_style(networks["float32"][0], load_square(painting, size), size=0)
            for kind, contrast in CONTRASTS.items():
                photo = 0.5 + contrast * (load_square(content, size) - 0.5)
                exact, rounded = (stylize(*pair, photo, look) for pair in networks.values())
                found[label][kind].append(-10 * (exact - rounded).square().mean().log10().item())
    return found


def numbers(name: str):
    return json.loads((NUMBERS / f"{name}.json").read_text(encoding="utf-8"))


def rows(head: Sequence[str], lines: Sequence[Sequence[str]]) -> str:
    return "\n".join("| " + " | ".join(line) + " |" for line in (head, ["---"] * len(head), *lines))


def losses_table() -> str:
    lines = []
    for label, name in MODELS.items():
        means = numbers(name)["means"]
        values = [*means["model"].values(), means["flat"]["texture"], means["flat"]["grid"]]
        lines.append([label, *(f"{value:.{digits}f}" for value, digits in zip(values, (3, 3, 1, 3), strict=True))])
    untouched = numbers("published")["means"]["untouched"]
    lines.append(["the photograph as it is", f"{untouched['content']:.3f}", f"{untouched['style']:.3f}", "", ""])
    return rows(["model", "content loss", "style loss", "texture of flat areas", "grid in it"], lines)


def boil_table() -> str:
    found = {label: numbers(name)["boils"] for label, name in MODELS.items()}
    common = set.intersection(*({(one["content"], one["style"]) for one in boils} for boils in found.values()))
    lines = []
    for label, boils in found.items():
        kept = [one["boil"] for one in boils if (one["content"], one["style"]) in common]
        for motion, modes in kept[0].items():
            lines.append([f"{label}, {motion}", *(f"{fmean(each[motion][mode] for each in kept):.4f}" for mode in modes)])
    return rows([f"{len(common)} pairs", *(f"`{mode}`" for mode in ("image", "batch", "running"))], lines)


def speed_table() -> str:
    result = numbers("speed")
    machine, lines = result["machine"], []
    for row in result["rows"]:
        seconds = [f"{row['seconds'][part]:.3f} s" for part in ("encode", "decode", "whole")]
        what = [f"{row['size']}x{row['size']}", f"{row['pipeline']}, {row['dtype']}"]
        lines.append([*what, *seconds, f"{row['speedup']:.1f}", f"{row['memory'] / 1e6:.0f} MB"])
    head = ["pixels", "networks", "encode", "decode", "whole", "times faster", "added memory"]
    threads = "one core" if machine["threads"] == 1 else f"{machine['threads']} cores"
    where = f"On {threads} of an {machine['cpu']} (virtual), PyTorch {machine['torch']}, medians of {result['config']['runs']}."
    return f"{rows(head, lines)}\n\n{where}"


def refining_means() -> tuple[dict[str, dict[str, float]], float]:
    """The mean losses before and after refining, and the mean seconds it takes."""
    pairs = numbers("refining")
    means = {
        when: {part: fmean(pair[when][part] for pair in pairs) for part in ("content", "style")} for when in ("before", "after")
    }
    return means, fmean(pair["seconds"] for pair in pairs)


def refining_table() -> str:
    means, seconds = refining_means()
    labels = {"before": "`vgg19`", "after": f"refined, {seconds:.0f} s a pair"}
    lines = [[label, *(f"{means[when][part]:.3f}" for part in ("content", "style"))] for when, label in labels.items()]
    return rows([f"{len(numbers('refining'))} pairs", "content loss", "style loss"], lines)


def models_table() -> str:
    whole = {(row["pipeline"], row["dtype"]): row["seconds"]["whole"] for row in numbers("speed")["rows"] if row["size"] == 512}
    lite, paper = (f"{min(s for (one, _), s in whole.items() if one == kind):.2f} s" for kind in ("lite", "vgg19"))
    means = {name: numbers(name)["means"]["model"] for name in ("lite", "vgg19", "published")}

    def line(label: str, use: str, name: str, speed: str, losses: str = "") -> list[str]:
        against = losses or ", ".join(f"{means[name][part] / means['published'][part]:.2f}" for part in ("content", "style"))
        return [label, use, f'<img src="docs/pictures/model-{name}.jpg" width="250" alt="">', speed, against]

    refined, seconds = refining_means()
    shares = ", ".join(f"{refined['after'][part] / refined['before'][part]:.2f}" for part in ("content", "style"))
    took, file = f"{seconds:.0f} s at 256x256", "[its file](docs/command.md#networks)"
    lines = [
        line("`lite`", "everything at first, clips, CPUs; it is bundled", "lite", lite),
        line("`vgg19`", "results closer to the photo, and the paper's encoder; pulls 80 MB once", "vgg19", paper),
        line("the published decoder", f"closer still, if you have {file}", "published", paper, "1, 1"),
        line("`vgg19`, refined", "a single picture at its best", "refined", took, f"{shares} of `vgg19`'s"),
    ]
    return rows(["model", "take it for", "the city above", "512x512", "content, style loss"], lines)


def number_types_table() -> str:
    found = numbers("number-types")
    lines = [
        [label, *(f"{fmean(values):.1f}, {min(values):.1f} dB" for values in kinds.values())] for label, kinds in found.items()
    ]
    return rows(["mean, lowest", *CONTRASTS], lines)


MEASURED_HERE = {"refining": measure_refining, "number-types": measure_number_types}


def experiment_tables(name: str, digits: int = 3) -> str:
    """The tables of an experiment, and what it found."""

    def text(cell: float | str | None) -> str:
        return "" if cell is None else f"{cell:.{digits}f}" if isinstance(cell, float) else str(cell)

    result, parts = numbers(name), []
    for title, lines in result["tables"].items():
        cells = [[NAMES.get(row, row), *map(text, line.values())] for row, line in lines.items()]
        parts.append(rows([title, *next(iter(lines.values()))], cells))
    if result["findings"]:
        parts.append("\n".join(f"- {finding}" for finding in result["findings"]))
    return "\n\n".join(parts)


TABLES = {
    "losses": losses_table, "boil": boil_table, "refining": refining_table, "speed": speed_table, "models": models_table,
    "number-types": number_types_table, **{name: partial(experiment_tables, name) for name in EXPERIMENTS},
}  # fmt: skip


def filled(text: str) -> str:
    """A document with the tables between `<!-- table NAME -->` and `<!-- end of table -->` made anew."""
    pattern = r"(<!-- table ([\w-]+) -->\n).*?(?=<!-- end of table -->)"
    return re.sub(pattern, lambda found: f"{found[1]}\n{TABLES[found[2]]()}\n\n", text, flags=re.DOTALL)


def renew() -> None:
    """Write the tables into the documents."""
    for path in DOCUMENTS:
        before = path.read_text(encoding="utf-8")
        if (after := filled(before)) != before:
            path.write_text(after, encoding="utf-8")
            print(f"the tables of {path.relative_to(ROOT)}")


def main() -> None:
    parser = argparse.ArgumentParser(description="Make the tables of the documents anew.")
    choices = [*MEASUREMENTS, *MEASURED_HERE]
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"numbers to measure first, of {', '.join(choices)}")
    arguments = parser.parse_args()
    if unknown := set(arguments.names) - set(choices):
        parser.error(f"there are no numbers {', '.join(sorted(unknown))}")
    os.chdir(ROOT)  # for paths to ../shared
    for name in arguments.names:
        measure(name)
    renew()


if __name__ == "__main__":
    main()
