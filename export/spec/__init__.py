"""The model as float64 arrays, and an oracle that computes it."""
