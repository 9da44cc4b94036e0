"""`quantize="auto"`: the cheapest file that held-out images show to be good enough."""
