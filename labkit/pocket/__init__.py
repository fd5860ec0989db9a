"""Data and models that come with labkit and work with no download; `recipe` holds the scripts that made them.

The models are open_clip models. After `labkit.pocket.register()` open_clip knows them by name::

    model, _, transform = open_clip.create_model_and_transforms("pocket-clip", pretrained=weights_path("pocket-clip"))
    tokenizer = open_clip.get_tokenizer("pocket-clip")
"""

from __future__ import annotations

import functools
import json
import tempfile
from pathlib import Path

from labkit._files import temporary_folder
from labkit.errors import BackboneError

MODELS = Path(__file__).parent / "models"
DATA = Path(__file__).parent / "data"
NAMES = ("pocket-clip", "pocket-vit")
SEEN = {"pocket-vit": ("fashion-mini", "digits")}  # datasets whose unlabeled train images a model was trained on
BPE = "pocket-bpe.txt.gz"  # the merges of the tokenizer, the same for all


@functools.cache
def register() -> None:
    """Add the configurations of the pocket models to open_clip; once a process.

    Raises:
        BackboneError: the files of a model are missing.
    """
    import open_clip

    with temporary_folder(tempfile.gettempdir(), "labkit-") as folder:
        for name in NAMES:
            config = json.loads(_find(f"{name}.json").read_text("utf-8"))
            # open_clip wants the whole path, which only the installed package knows
            config["text_cfg"]["tokenizer_kwargs"] = {"bpe_path": str(_find(BPE))}
            path = Path(folder, f"{name}.json")  # open_clip reads it now, and names the model after the file
            path.write_text(json.dumps(config), "utf-8")
            open_clip.add_model_config(path)


def weights_path(name: str) -> str:
    """Where the weights of a pocket model lie, as open_clip's `pretrained` takes it.

    Raises:
        BackboneError: there is no such model, or its file is missing.
    """
    if name not in NAMES:
        raise BackboneError(f"there is no pocket model {name!r}. Expected one of {', '.join(NAMES)}.")
    return str(_find(f"{name}.safetensors"))


def _find(name: str) -> Path:
    path = (MODELS / name).resolve()
    if not path.is_file():
        raise BackboneError(
            f"{path} is missing, a file of the pocket models. Install labkit again, or run `make pocket`."
        )
    return path
