"""Runs images through files with MediaPipe's ImageClassifier, and prints what it answers as JSON, a line a file.

    python run_mediapipe.py IMAGES.npy MODEL ...

A line holds, per image, `[index, label, score]` of every class, the most likely first. It is a process of its own
because MediaPipe brings another TensorFlow Lite.
"""

import json
import sys

import mediapipe
import numpy as np
from mediapipe.tasks.python import BaseOptions, vision

pixels, *models = sys.argv[1:]
for model in models:
    options = vision.ImageClassifierOptions(base_options=BaseOptions(model_asset_path=model))
    with vision.ImageClassifier.create_from_options(options) as classifier:
        images = [mediapipe.Image(image_format=mediapipe.ImageFormat.SRGB, data=data) for data in np.load(pixels)]
        answers = [classifier.classify(image).classifications[0].categories for image in images]
        print(json.dumps([[[item.index, item.category_name, item.score] for item in answer] for answer in answers]))
