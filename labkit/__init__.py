"""labkit: what can be done with foundation models and no labels.

The straight line, from pictures to labels without labels::

    import labkit as lk

    manifest = lk.load_manifest("fashion-mini")
    names = ("efficientnet-lite0", "pixels")
    spaces = [lk.extract_features(lk.load_backbone(name), manifest, split="train") for name in names]
    turtle = lk.Turtle(n_clusters=manifest.n_classes, random_state=0).fit(spaces)  # sees no label
    lk.clustering_accuracy(manifest.labels("train"), turtle.labels_)

The names are listed in __init__.pyi; each is loaded at first use, so `import labkit` is quick.
"""

import lazy_loader

__version__ = "0.1.0"

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
