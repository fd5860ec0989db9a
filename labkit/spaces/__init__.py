"""Feature spaces: backbones by name, the spaces of the papers, and the features of every image of a dataset."""
