"""labkit: what can be done with foundation models and no labels.

The straight line, from images to labels without labels::

    import labkit as lk

    images = lk.load_dataset("fashion-mini", "train")
    names = ("efficientnet-lite0", "pixels")
    spaces = [lk.extract_features(lk.load_backbone(name), images) for name in names]
    turtle = lk.Turtle(n_clusters=10, random_state=0).fit(spaces)  # sees no label
    lk.clustering_accuracy(images.labels, turtle.labels_)

The names are listed in __init__.pyi; each is loaded at first use, so `import labkit` is quick. The wings, from the
ground up: `data` and `evaluation`; `spaces`, `turtle` and `plots`; `zeroshot`; `must`; `own` (your own images);
`course` (the notebooks); `cli`. A wing imports only wings below it.
"""

import lazy_loader

__version__ = "0.1.0"

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
