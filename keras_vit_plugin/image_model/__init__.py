"""Any Keras model of images: what it takes, and what its outputs mean."""
