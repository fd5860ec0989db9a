"""The course: what the notebooks work with, exercises, widgets, results, and the run of the whole series."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(__name__, submodules=["widgets"])
