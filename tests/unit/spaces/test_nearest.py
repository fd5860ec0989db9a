"""Names of backbones that are none: the one that was meant is offered."""

from __future__ import annotations

import pytest

from labkit.errors import BackboneError
from labkit.spaces.backbones import load_backbone


@pytest.mark.parametrize(
    ("given", "meant"),
    [
        ("resnet50", "Did you mean timm:resnet50?"),
        ("ResNet50", "Did you mean timm:resnet50?"),
        ("efficientnet_lite0", "Did you mean efficientnet-lite0?"),
        ("clip-vitb32", "Did you mean clip-vit-b32"),
        ("dinov2", "Did you mean dinov2-vit-"),
        ("ViT-B-32", "Did you mean open_clip:ViT-B-32/openai"),
        ("open_clip:ViT-B-32", "Did you mean open_clip:ViT-B-32/openai"),
        ("open_clip:ViT-B32/openai", "Did you mean open_clip:ViT-B-32/openai"),
        ("zzzzzz", "is unknown. Expected"),
        ("", "is unknown. Expected"),
        ("timm:", "is unknown. Expected"),
    ],
)
def test_the_nearest_name_is_offered(given: str, meant: str) -> None:
    with pytest.raises(BackboneError) as caught:
        load_backbone(given, device="cpu")
    assert meant in str(caught.value)


def test_a_typo_in_a_model_of_timm(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("labkit.data.hub.hub_answers", lambda: False)
    with pytest.raises(BackboneError, match=r"Did you mean timm:resnet50 "):
        load_backbone("timm:resnet5o", device="cpu")
