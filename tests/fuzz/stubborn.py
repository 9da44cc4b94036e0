"""A worker that sleeps at seed 1 and dies at seed 2, for the tests."""

import os
import time


def work(pipe):
    pipe.send("ready")
    while (seed := pipe.recv()) is not None:
        if seed == 1:
            time.sleep(60)
        if seed == 2:
            os.abort()
        pipe.send({"seed": seed, "outcome": "right"})
