"""Make Pocket CLIP from nothing but packages: `make pocket`, or python -m labkit.pocket.recipe [--smoke] WORK_DIR.

Fetches icons and fonts with npm and needs the optional packages `pip install 'labkit[pocket]'`. Every stage is kept in
WORK_DIR, so a run that was stopped goes on where it was. Writes the model's files to OUT_DIR.
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import json
import platform
import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file

from labkit._files import atomic_write, file_sha256
from labkit.pocket import BPE, MODELS
from labkit.pocket.recipe import glyphs
from labkit.pocket.recipe import pocket_clip as clip


def make(work: Path, out: Path, scale: clip.Scale) -> dict[str, Any]:
    """Run all stages; returns what pocket-clip.facts.json says of the run: data, seconds, digests."""
    work.mkdir(parents=True, exist_ok=True)
    out.mkdir(parents=True, exist_ok=True)
    kept = work / f"seconds-{scale.fraction:g}.json"
    seconds: dict[str, float] = json.loads(kept.read_text("utf-8")) if kept.exists() else {}

    @contextlib.contextmanager
    def timed(name: str) -> Iterator[None]:
        """Keep how long a stage took when it ran: a later run only loads its result."""
        start = time.perf_counter()
        yield
        seconds[name] = max(seconds.get(name, 0.0), round(time.perf_counter() - start, 1))
        with atomic_write(kept) as temporary:
            temporary.write_text(json.dumps(seconds), "utf-8")

    with timed("pictures"):
        pictures, sets = clip.gather(work, scale)
    with timed("trunk"):
        maps = clip.trunk_maps(work, pictures, scale)
    with timed("alignment"):
        alignment = clip.align(maps, pictures, work, scale)
    with timed("text tower"):
        text = clip.train_text_tower(alignment, pictures.captions, work, scale)
    with atomic_write(out / "pocket-clip.json") as temporary:
        temporary.write_text(json.dumps(clip.CONFIG, indent=2) + "\n", "utf-8")
    with atomic_write(out / BPE) as temporary:
        shutil.copyfile(work / BPE, temporary)
    with atomic_write(out / "pocket-clip.safetensors") as temporary:
        save_file(clip.assemble(alignment, text), temporary)
    facts = {
        "sha256": {name: file_sha256(out / name) for name in ("pocket-clip.json", "pocket-clip.safetensors", BPE)},
        "n_pictures": len(pictures.rgba),
        "n_captions": len({name for several in pictures.captions for name in several}),
        "corpus_sha256": hashlib.sha256(pictures.rgba.tobytes()).hexdigest(),
        "seconds": seconds,
        "machine": f"{platform.machine()}, {torch.get_num_threads()} threads, torch {torch.__version__}",
        "sets": sets,
        "fonts": list(glyphs.FONTS[: scale.n_fonts]),
    }
    with atomic_write(out / "pocket-clip.facts.json") as temporary:
        temporary.write_text(json.dumps(facts, indent=1) + "\n", "utf-8")
    return facts


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("work", type=Path, metavar="WORK_DIR")
    parser.add_argument("--out", type=Path, default=MODELS, metavar="OUT_DIR", help="default: the package's own folder")
    parser.add_argument("--smoke", action="store_true", help="all stages on a hundredth of the data, in minutes")
    arguments = parser.parse_args()
    facts = make(arguments.work, arguments.out, clip.SMOKE if arguments.smoke else clip.Scale())
    print(f"{facts['n_pictures']:,} pictures, {facts['n_captions']:,} captions: {arguments.out}")


if __name__ == "__main__":
    main()
