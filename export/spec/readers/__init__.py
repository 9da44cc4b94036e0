"""What reads a Keras model into a `ViTSpec`."""
