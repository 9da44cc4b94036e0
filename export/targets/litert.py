"""`litert`: ai-edge-litert 2.x, on phones, computers and in Python."""

from .target import Target

LITERT = Target(name="litert", runtime="ai-edge-litert 2.x", version="2.21")
