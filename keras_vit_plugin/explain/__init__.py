"""What the model looked at, and how it trained: arrays in, pictures out."""

from keras_vit_plugin.explain.attention import attention_maps, attention_rollout, token_attention
from keras_vit_plugin.explain.explanation import (
    Explanation,
    explain_photo,
    explanation_of,
    patch_filters,
    position_similarity,
)
from keras_vit_plugin.explain.page import explanation_page
from keras_vit_plugin.explain.pictures import (
    draw_attention,
    draw_explanation,
    draw_predictions,
    draw_training_curves,
    training_curves,
    write_explanation,
)

__all__ = [
    "Explanation",
    "attention_maps",
    "attention_rollout",
    "draw_attention",
    "draw_explanation",
    "draw_predictions",
    "draw_training_curves",
    "explain_photo",
    "explanation_of",
    "explanation_page",
    "patch_filters",
    "position_similarity",
    "token_attention",
    "training_curves",
    "write_explanation",
]
