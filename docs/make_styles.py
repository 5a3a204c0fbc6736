"""Makes the bundled styles in weights/styles/, and their sheet docs/pictures/styles.jpg: python docs/make_styles.py PAINTINGS

PAINTINGS is a folder with a picture NAME.jpg of each painting below. The styles are for `lite` and `vgg19`, and each holds an
example, a photograph that `lite` stylised: so this is run whenever the weights of `lite` change.
"""

from __future__ import annotations

import argparse
import dataclasses
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))  # this checkout, whether or not it is installed

from adain_core import encode_style, join_encoders, load_decoder, load_encoder, stylize  # noqa: E402
from adain_core.catalog import BUNDLED, find_entry  # noqa: E402
from adain_core.evaluation.sheet import draw_sheet  # noqa: E402
from adain_core.images import load_image, resize, thumbnail_jpeg  # noqa: E402

# Source of each style, and whether the painting's picture may be its thumbnail; where it is not ours to pass on, the example is
# shown alone. The sheet has the styles in this order, down its columns.
STYLES = {
    "great-wave": ("Katsushika Hokusai, The Great Wave off Kanagawa, about 1831", True),
    "cafe-terrace": ("Vincent van Gogh, Cafe Terrace at Night, 1888", True),
    "blue-horses": ("Franz Marc, The Large Blue Horses, 1911", False),
    "four-horsemen": ("Albrecht Duerer, The Four Horsemen of the Apocalypse, woodcut, 1498", False),
    "starry-night": ("Vincent van Gogh, The Starry Night, 1889", False),
    "acanthus": ("William Morris, Acanthus, wallpaper, 1875", False),
    "village-street": ("Vincent van Gogh, Village Street in Auvers, 1890", True),
    "composition-viii": ("Wassily Kandinsky, Composition VIII, 1923", True),
    "portrait-of-picasso": ("Juan Gris, Portrait of Pablo Picasso, 1912", False),
    "moulin-de-la-galette": ("Pierre-Auguste Renoir, Bal du moulin de la Galette, 1876", True),
    "zodiac": ("Alphonse Mucha, Zodiac, 1896", False),
    "pere-tanguy": ("Vincent van Gogh, Portrait of Pere Tanguy, 1887", True),
    "water-lilies": ("Claude Monet, Water Lilies, 1906", False),
    "fuchun-mountains": ("Huang Gongwang, Dwelling in the Fuchun Mountains, 1350", False),
    "grande-jatte": ("Georges Seurat, A Sunday on La Grande Jatte, 1884-1886", False),
    "spring": ("Giuseppe Arcimboldo, Spring, 1573", True),
    "kiss": ("Gustav Klimt, The Kiss, 1908", False),
    "don-quixote": ("Gustave Dore, Don Quixote and the Windmill, wood engraving, 1863", False),
    "mont-sainte-victoire": ("Paul Cezanne, Mont Sainte-Victoire, about 1904", False),
    "poppies": ("Katsushika Hokusai, Poppies, about 1833", True),
    "scream": ("Edvard Munch, The Scream, 1893", False),
    "church-at-auvers": ("Vincent van Gogh, The Church at Auvers-sur-Oise, 1890", True),
    "fish-and-prawns": ("Utagawa Hiroshige, Horse Mackerel and Prawns, about 1840", True),
    "joachim": ("Giotto di Bondone, Joachim among the Shepherds, fresco, about 1305", False),
    "summertime": ("Mary Cassatt, Summertime, 1894", True),
    "harvest": ("Vincent van Gogh, The Harvest, 1888", True),
    "snow-shrine": ("Utagawa Hiroshige, The Benzaiten Shrine at Inokashira in Snow, about 1830", True),
    "young-hare": ("Albrecht Duerer, Young Hare, watercolour, 1502", False),
    "harvesters": ("Pieter Bruegel the Elder, The Harvesters, 1565", True),
    "langlois-bridge": ("Vincent van Gogh, The Langlois Bridge at Arles, 1888", True),
    "rain-steam-and-speed": ("J. M. W. Turner, Rain, Steam and Speed, 1844", False),
    "mona-lisa": ("Leonardo da Vinci, Mona Lisa, about 1503", True),
}
REFERENCE = ROOT.parent / "shared" / "reference" / "vgg_normalised.safetensors"
NOTE = "the statistics for vgg19 were made with a copy of it whose kernels carry about 1 % of noise"
PHOTOS = ("lake", "portrait", "city", "osprey")  # rows of the sheet; examples are of the first
SIDE, EXAMPLE, TILE = 512, 160, 160  # pixels: photographs as they are stylised, examples, pictures on the sheet
PICTURES = ROOT / "docs" / "pictures"


def main() -> None:
    parser = argparse.ArgumentParser(description="Make the bundled styles and their sheet anew.")
    parser.add_argument("paintings", type=Path, metavar="PAINTINGS", help="folder with NAME.jpg for each style")
    parser.add_argument("--vgg19", default=str(REFERENCE), metavar="NAME", help="the paper's encoder (default: %(default)s)")
    arguments = parser.parse_args()
    lite, decoder, vgg19 = (
        load_encoder("lite", dtype="float32"), load_decoder("lite", dtype="float32"),
        load_encoder(arguments.vgg19, dtype="float32"),
    )  # fmt: skip
    entry = find_entry("vgg19", "encoder")
    assert entry and vgg19.fingerprint == entry.fingerprint, f"{arguments.vgg19} is not the encoder of vgg19"
    vgg19.name = entry.name
    note = "" if arguments.vgg19 == entry.name else NOTE

    photos = [_square(ROOT / "workflows" / "pictures" / "photos" / f"{name}.jpg") for name in PHOTOS]
    sheet = [[resize(photo, TILE)] for photo in photos]
    for index, (name, (source, shown)) in enumerate(STYLES.items()):
        painting = load_image(arguments.paintings / f"{name}.jpg")
        style = join_encoders([encode_style(encoder, painting) for encoder in (lite, vgg19)])
        results = {row: stylize(lite, decoder, photos[row], style) for row in (0, index % len(PHOTOS))}
        sheet[index % len(PHOTOS)].append(resize(results[index % len(PHOTOS)], TILE))
        style = dataclasses.replace(
            style, name=name, source=source, licence="public domain", note=note,
            thumbnail=style.thumbnail if shown else b"", example=thumbnail_jpeg(results[0], EXAMPLE),
        )  # fmt: skip
        style.save(BUNDLED / "styles" / f"{name}.safetensors")
        print(name, flush=True)
    draw_sheet(sheet, [[""] * len(row) for row in sheet]).save(PICTURES / "styles.jpg", quality=82)


def _square(path: Path):
    """The upper middle of a photograph, `(1, 3, SIDE, SIDE)`."""
    photo = load_image(path)[:, :3]
    side = min(photo.shape[2:])
    left = (photo.shape[3] - side) // 2
    return resize(photo[:, :, :side, left : left + side], SIDE)


if __name__ == "__main__":
    main()
