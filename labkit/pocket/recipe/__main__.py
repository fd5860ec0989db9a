"""Make Pocket CLIP and Pocket ViT from nothing but packages.

By `make pocket`, or python -m labkit.pocket.recipe [--smoke] WORK_DIR.

Fetches icons and fonts with npm and needs the optional packages `pip install 'labkit[pocket]'`. Every stage is kept in
WORK_DIR, so a run that was stopped resumes where it was. Writes the models' files to OUT_DIR.
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
from labkit.pocket.recipe import glyphs, text_tower
from labkit.pocket.recipe import pocket_clip as clip
from labkit.pocket.recipe import pocket_vit as vit


def make(work: Path, out: Path, scale: clip.Scale) -> dict[str, dict[str, Any]]:
    """Run all stages; returns the facts of both models about the run: data, seconds, digests."""
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

    with timed("images"):
        pictures, sets = clip.gather(work, scale)
    with timed("trunk"):
        maps = clip.trunk_maps(work, pictures, scale)
    with timed("alignment"):
        alignment = clip.align(maps, pictures, work, scale)
    with timed("text tower"):
        text = text_tower.train_text_tower(alignment, pictures.captions, work, scale)
    with timed("student"):
        captions = clip.caption_embeddings(alignment, pictures, work, scale)
        student = vit.train(alignment, maps, pictures, captions, text, work, scale)
    with atomic_write(out / BPE) as temporary:
        shutil.copyfile(work / BPE, temporary)
    for name, config, state in (
        ("pocket-clip", clip.CONFIG, text_tower.assemble(alignment, text)),
        ("pocket-vit", vit.CONFIG, vit.assemble(student)),
    ):
        with atomic_write(out / f"{name}.json") as temporary:
            temporary.write_text(json.dumps(config, indent=2) + "\n", "utf-8")
        with atomic_write(out / f"{name}.safetensors") as temporary:
            save_file(state, temporary)
    machine = f"{platform.machine()}, {torch.get_num_threads()} threads, torch {torch.__version__}"
    facts: dict[str, dict[str, Any]] = {
        "pocket-clip": {
            "n_pictures": len(pictures.rgba),
            "n_captions": len({name for several in pictures.captions for name in several}),
            "corpus_sha256": hashlib.sha256(pictures.rgba.tobytes()).hexdigest(),
            "seconds": {stage: seconds[stage] for stage in ("images", "trunk", "alignment", "text tower")},
            "sets": sets,
            "fonts": list(glyphs.FONTS[: scale.n_fonts]),
        },
        "pocket-vit": {"seconds": {"student": seconds["student"]}},
    }
    for name, own in facts.items():
        files = (f"{name}.json", f"{name}.safetensors", BPE)
        own |= {"machine": machine, "sha256": {file: file_sha256(out / file) for file in files}}
        with atomic_write(out / f"{name}.facts.json") as temporary:
            temporary.write_text(json.dumps(own, indent=1) + "\n", "utf-8")
    return facts


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("work", type=Path, metavar="WORK_DIR")
    parser.add_argument("--out", type=Path, default=MODELS, metavar="OUT_DIR", help="default: the package's own folder")
    parser.add_argument("--smoke", action="store_true", help="all stages on a hundredth of the data, in minutes")
    arguments = parser.parse_args()
    facts = make(arguments.work, arguments.out, clip.SMOKE if arguments.smoke else clip.Scale())
    of_clip = facts["pocket-clip"]
    print(f"{of_clip['n_pictures']:,} images, {of_clip['n_captions']:,} captions: {arguments.out}")


if __name__ == "__main__":
    main()
