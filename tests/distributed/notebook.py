"""What a notebook may do: fit alone, then launch two processes. `notebook.py MODEL FOLDER PORT`"""

from __future__ import annotations

import sys
from pathlib import Path

import torch
from accelerate import notebook_launcher

from tests.distributed import fits

if __name__ == "__main__":
    torch.set_num_threads(1)  # processes that are forked off one that has used OpenMP's threads would hang
    model, folder, port = sys.argv[1:]
    fits.run(model, [{"folder": Path(folder, "alone"), "settings": {"epochs": 1}}])
    jobs = [{"folder": Path(folder, "launched"), "settings": {"epochs": 1}}]
    notebook_launcher(fits.run, (model, jobs), num_processes=2, use_port=port)
