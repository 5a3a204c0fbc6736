"""Makes the bundled styles in weights/styles/, and their sheet docs/pictures/styles.jpg: python docs/make_styles.py PAINTINGS

PAINTINGS is a folder with a picture NAME.jpg of each painting below that is not in `../shared/pictures/styles`. The styles are
for `lite` and `vgg19`, and each holds an example, a photograph that `lite` stylised: so this is run whenever the weights of
`lite` change.
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

SHOWN = "in PAINTINGS, from the details and paintings of Debian's gcompris-qt-data 3.1-2: it may be the style's thumbnail"
HIDDEN = "in PAINTINGS, but not ours to pass on: the style shows its example alone, as do those of ../shared/pictures/styles"
# Source of each style, and where the painting's picture is. The sheet has the styles in this order, down its columns.
STYLES = {
    "great-wave": ("Katsushika Hokusai, The Great Wave off Kanagawa, about 1831", SHOWN),
    "cafe-terrace": ("Vincent van Gogh, Cafe Terrace at Night, 1888", SHOWN),
    "blue-horses": ("Franz Marc, The Large Blue Horses, 1911", "steven-0040"),
    "four-horsemen": ("Albrecht Duerer, The Four Horsemen of the Apocalypse, woodcut, 1498", "kamila-0008"),
    "starry-night": ("Vincent van Gogh, The Starry Night, 1889", HIDDEN),
    "acanthus": ("William Morris, Acanthus, wallpaper, 1875", "nouveau-0074"),
    "village-street": ("Vincent van Gogh, Village Street in Auvers, 1890", SHOWN),
    "composition-viii": ("Wassily Kandinsky, Composition VIII, 1923", SHOWN),
    "open-window": ("Juan Gris, Still Life before an Open Window, 1915", "gris-0025"),
    "moulin-de-la-galette": ("Pierre-Auguste Renoir, Bal du moulin de la Galette, 1876", SHOWN),
    "zodiac": ("Alphonse Mucha, Zodiac, 1896", "nouveau-0065"),
    "pere-tanguy": ("Vincent van Gogh, Portrait of Pere Tanguy, 1887", SHOWN),
    "water-lilies": ("Claude Monet, Water Lilies, 1906", "steven-0092"),
    "fuchun-mountains": ("Huang Gongwang, Dwelling in the Fuchun Mountains, 1350", "steven-0023"),
    "grande-jatte": ("Georges Seurat, A Sunday on La Grande Jatte, 1884-1886", "steven-0001"),
    "spring": ("Giuseppe Arcimboldo, Spring, 1573", SHOWN),
    "kiss": ("Gustav Klimt, The Kiss, 1908", "steven-0077"),
    "don-quixote": ("Gustave Dore, Don Quixote, wood engraving, 1863", "dore-0015"),
    "mont-sainte-victoire": ("Paul Cezanne, Mont Sainte-Victoire, about 1904", "steven-0046"),
    "poppies": ("Katsushika Hokusai, Poppies, about 1833", SHOWN),
    "scream": ("Edvard Munch, The Scream, 1893", HIDDEN),
    "church-at-auvers": ("Vincent van Gogh, The Church at Auvers-sur-Oise, 1890", SHOWN),
    "fish-and-prawns": ("Utagawa Hiroshige, Horse Mackerel and Prawns, about 1840", SHOWN),
    "joachim": ("Giotto di Bondone, Joachim among the Shepherds, fresco, about 1305", "kamila-0230"),
    "summertime": ("Mary Cassatt, Summertime, 1894", SHOWN),
    "harvest": ("Vincent van Gogh, The Harvest, 1888", SHOWN),
    "snow-shrine": ("Utagawa Hiroshige, The Benzaiten Shrine at Inokashira in Snow, about 1830", SHOWN),
    "young-hare": ("Albrecht Duerer, Young Hare, watercolour, 1502", "steven-0095"),
    "harvesters": ("Pieter Bruegel the Elder, The Harvesters, 1565", SHOWN),
    "langlois-bridge": ("Vincent van Gogh, The Langlois Bridge at Arles, 1888", SHOWN),
    "rain-steam-and-speed": ("J. M. W. Turner, Rain, Steam and Speed, 1844", "steven-0059"),
    "mona-lisa": ("Leonardo da Vinci, Mona Lisa, about 1503", SHOWN),
}
SHARED = ROOT.parent / "shared" / "pictures" / "styles"
REFERENCE = ROOT.parent / "shared" / "reference" / "vgg_normalised.safetensors"
NOTE = "the statistics for vgg19 were made with a copy of it whose kernels carry about 1 % of noise"
PHOTOS = ("lake", "portrait", "city", "osprey")  # rows of the sheet; examples are of the first
SIDE, EXAMPLE, TILE = 512, 160, 160  # pixels: photographs as they are stylised, examples, pictures on the sheet
PICTURES = ROOT / "docs" / "pictures"


def main() -> None:
    parser = argparse.ArgumentParser(description="Make the bundled styles and their sheet anew.")
    parser.add_argument("paintings", type=Path, metavar="PAINTINGS", help="folder with NAME.jpg for the styles that need it")
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
    sheet, captions = [[resize(photo, TILE)] for photo in photos], [[""] for _ in photos]
    for index, (name, (source, place)) in enumerate(STYLES.items()):
        folder, file = (arguments.paintings, name) if place in (SHOWN, HIDDEN) else (SHARED, place)
        painting = load_image(folder / f"{file}.jpg")
        style = join_encoders([encode_style(encoder, painting) for encoder in (lite, vgg19)])
        results = {row: stylize(lite, decoder, photos[row], style) for row in (0, index % len(PHOTOS))}
        sheet[index % len(PHOTOS)].append(resize(results[index % len(PHOTOS)], TILE))
        captions[index % len(PHOTOS)].append(name)
        style = dataclasses.replace(
            style, name=name, source=source, licence="public domain", note=note,
            thumbnail=style.thumbnail if place == SHOWN else b"", example=thumbnail_jpeg(results[0], EXAMPLE),
        )  # fmt: skip
        style.save(BUNDLED / "styles" / f"{name}.safetensors")
        print(name, flush=True)
    draw_sheet(sheet, captions).save(PICTURES / "styles.jpg", quality=82)


def _square(path: Path):
    """The upper middle of a photograph, `(1, 3, SIDE, SIDE)`."""
    photo = load_image(path)[:, :3]
    side = min(photo.shape[2:])
    left = (photo.shape[3] - side) // 2
    return resize(photo[:, :, :side, left : left + side], SIDE)


if __name__ == "__main__":
    main()
