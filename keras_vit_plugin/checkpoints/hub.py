"""Checkpoints from the Hugging Face hub."""


def download(repository, filename="model.safetensors"):
    """Downloads a file of a hub repository into the hub's local cache and returns its path.

    Raises:
        ImportError: `huggingface_hub` is not installed.
        ConnectionError: the file is neither in the cache nor reachable.
    """
    try:
        import huggingface_hub
        from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError
    except ImportError as error:
        raise ImportError("Pretrained weights need: pip install 'keras-vit-plugin[checkpoints]'") from error
    try:
        return huggingface_hub.hf_hub_download(repo_id=repository, filename=filename)
    except (HfHubHTTPError, LocalEntryNotFoundError, OSError) as error:
        raise ConnectionError(
            f"{filename} of {repository} could not be had from the Hugging Face hub ({error}). On a machine without "
            "network, copy the file there and pass weights=PATH."
        ) from error
