"""What the tokens between blocks are called in a file that `lowering` made from a spec."""

EMBEDDING = "embedding"  # what the tokens that enter the first block are called in the file


def stream_name(block):
    """What the tokens that leave a block, counted from 0, are called in the file."""
    return f"stream_after_block_{block}"
