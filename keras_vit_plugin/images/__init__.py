"""How photos become the pixels that a model takes."""
