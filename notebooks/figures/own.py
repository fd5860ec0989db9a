"""The image of a review page at the top of the README: python notebooks/figures/own.py

Makes the folder of notebook 09, clusters it as a person would, and takes a screenshot of clusters.html with Chromium.
"""

from __future__ import annotations

import io
import os
import shutil
import sys
import tempfile
from pathlib import Path

from PIL import Image
from playwright.sync_api import sync_playwright

from labkit.own.cluster import cluster_folder
from labkit.own.sample import make_sample_folder

IMAGE = Path(__file__).resolve().parents[1] / "own_images.png"
SIZE = {"width": 1240, "height": 640}  # pixels
COLORS = 96  # of the image, whose file is small so


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)  # the page shows paths as they are given
        photos, out = Path("photos"), Path("sorted")
        make_sample_folder(photos, random_state=0)
        cluster_folder(photos, out, progress=True)
        with sync_playwright() as playwright:
            browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"])
            page = browser.new_page(viewport=SIZE)  # type: ignore[arg-type]
            page.goto((out / "clusters.html").absolute().as_uri())
            page.wait_for_load_state("networkidle")
            shot = Image.open(io.BytesIO(page.screenshot())).convert("RGB")
            browser.close()
    shot.quantize(COLORS, dither=Image.Dither.NONE).save(IMAGE, optimize=True)
    print(f"{IMAGE}: {IMAGE.stat().st_size:,} bytes", file=sys.stderr)


if __name__ == "__main__":
    main()
