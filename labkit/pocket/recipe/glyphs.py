"""Letters and digits to learn from: drawn with open fonts, many of them handwritten, under captions that name them."""

from __future__ import annotations

import io
import string
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from labkit.errors import DataError
from labkit.pocket.recipe.corpus import DIGIT_WORDS, SIZE, fetch

# Packages @fontsource/… on npm: Google Fonts, all under the Open Font License or Apache-2.0.
FONTS_VERSION = "5.3.0"
FONTS = tuple(
    """caveat patrick-hand indie-flower architects-daughter shadows-into-light kalam permanent-marker gochi-hand
    nanum-pen-script reenie-beanie rock-salt covered-by-your-grace just-another-hand homemade-apple amatic-sc
    coming-soon schoolbell gloria-hallelujah handlee neucha sriracha mali short-stack delius zeyada
    annie-use-your-telescope cedarville-cursive la-belle-aurore over-the-rainbow waiting-for-the-sunrise
    loved-by-the-king gaegu hi-melody crafty-girls sue-ellen-francisco dekko swanky-and-moo-moo
    roboto open-sans lato merriweather playfair-display inconsolata oswald vt323 press-start-2p comic-neue
    courier-prime bitter""".split()
)
CHARACTERS = string.digits + string.ascii_uppercase + string.ascii_lowercase
WEIGHTS = (0, 1, 2, 3)  # strokes added around a glyph, in pixels of 64
DIGITS_REPEATED = 4  # digits stand this much more often in the corpus than letters: there are fewer of them


def captions_of(character: str) -> tuple[str, ...]:
    """What an image of a character is called."""
    if character in string.digits:
        word = DIGIT_WORDS[int(character)]
        return (f"the digit {character}", f"the number {word}", f"a handwritten {character}", word, f"digit {word}")
    kind = "capital" if character.isupper() else "lowercase"
    return (f"the letter {character.lower()}", f"a {kind} letter {character.lower()}")


def build(work: Path, *, n_fonts: int = len(FONTS)) -> tuple[np.ndarray, list[tuple[str, ...]]]:
    """Images (n, 64, 64, 4), RGBA uint8, black on transparent, and their captions; fonts are fetched to `work`.

    Raises:
        DataError: a font cannot be fetched or read.
    """
    pictures, captions = [], []
    for name in FONTS[:n_fonts]:
        files = fetch(f"@fontsource/{name}", FONTS_VERSION, work / "packages") / "files"
        path = files / f"{name}-latin-400-normal.woff"
        try:
            font = ImageFont.truetype(io.BytesIO(path.read_bytes()), 48)
        except OSError as error:
            raise DataError(
                f"the font {path} cannot be read ({error}). Delete its folder to fetch it again."
            ) from error
        for character in CHARACTERS:
            for weight in WEIGHTS * (DIGITS_REPEATED if character in string.digits else 1):
                pictures.append(draw(character, font, weight))
                captions.append(captions_of(character))
    return np.stack(pictures), captions


def draw(character: str, font: ImageFont.FreeTypeFont, weight: int) -> np.ndarray:
    """One character in the middle of an image (64, 64, 4), RGBA uint8, black on transparent, as large as fits."""
    left, top, right, bottom = font.getbbox(character, stroke_width=weight)
    glyph = Image.new("L", (int(right - left) + 1, int(bottom - top) + 1))
    ImageDraw.Draw(glyph).text((-left, -top), character, 255, font, stroke_width=weight)
    scale = 0.8 * SIZE / max(glyph.size)
    glyph = glyph.resize((max(1, round(glyph.width * scale)), max(1, round(glyph.height * scale))))
    picture = Image.new("RGBA", (SIZE, SIZE))
    ink = Image.new("RGBA", glyph.size, "black")
    picture.paste(ink, ((SIZE - glyph.width) // 2, (SIZE - glyph.height) // 2), glyph)
    return np.asarray(picture)
