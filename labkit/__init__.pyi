from . import errors, must, plots, turtle
from .course import widgets
from .course.diagrams import diagram
from .course.setup import TODO, Lab, check, hint, setup, show
from .data.datasets import load_dataset
from .data.images import ImageDataset
from .data.manifests import list_manifests, load_manifest
from .data.schema import Manifest
from .errors import LabkitError
from .evaluation.baselines import KMeans, LinearProbe
from .evaluation.metrics import (
    accuracy,
    adjusted_rand_index,
    calibration,
    clustering_accuracy,
    clustering_mean_per_class_accuracy,
    expected_calibration_error,
    match_clusters,
    mean_per_class_accuracy,
    normalized_mutual_info,
)
from .must import MUST, MustConfig
from .spaces.backbones import Backbone, load_backbone
from .spaces.features import extract_features
from .spaces.geometry import Geometry
from .spaces.shards import ShardedFeatures, extract_shards
from .turtle import Turtle
from .turtle.counting import estimate_n_clusters
from .turtle.selection import generalization_score, label_free_scores
from .turtle.sweep import sweep
from .zeroshot.classifier import ZeroShot, text_classifier
from .zeroshot.gaussians import TextGaussians
from .zeroshot.naming import Names, name_clusters
from .zeroshot.prompts import Prompts, load_prompts

__version__: str

__all__ = [
    "MUST",
    "TODO",
    "Backbone",
    "Geometry",
    "ImageDataset",
    "KMeans",
    "Lab",
    "LabkitError",
    "LinearProbe",
    "Manifest",
    "MustConfig",
    "Names",
    "Prompts",
    "ShardedFeatures",
    "TextGaussians",
    "Turtle",
    "ZeroShot",
    "__version__",
    "accuracy",
    "adjusted_rand_index",
    "calibration",
    "check",
    "clustering_accuracy",
    "clustering_mean_per_class_accuracy",
    "diagram",
    "errors",
    "estimate_n_clusters",
    "expected_calibration_error",
    "extract_features",
    "extract_shards",
    "generalization_score",
    "hint",
    "label_free_scores",
    "list_manifests",
    "load_backbone",
    "load_dataset",
    "load_manifest",
    "load_prompts",
    "match_clusters",
    "mean_per_class_accuracy",
    "must",
    "name_clusters",
    "normalized_mutual_info",
    "plots",
    "setup",
    "show",
    "sweep",
    "text_classifier",
    "turtle",
    "widgets",
]
