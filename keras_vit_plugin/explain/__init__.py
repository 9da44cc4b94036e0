"""What the model looked at, and how it trained: arrays in, pictures out."""

from keras_vit_plugin.explain.attention import attention_maps, attention_rollout, token_attention
from keras_vit_plugin.explain.pictures import draw_attention, draw_predictions, draw_training_curves

__all__ = [
    "attention_maps",
    "attention_rollout",
    "draw_attention",
    "draw_predictions",
    "draw_training_curves",
    "token_attention",
]
