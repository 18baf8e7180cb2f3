"""Which NVIDIA driver a CUDA release needs."""

# Oldest Linux driver of each CUDA major release, which minor releases of that major also run on.
# Source: NVIDIA's CUDA release notes, table of minor version compatibility.
_DRIVER_OF_CUDA = {11: 450, 12: 525, 13: 580}


def needed_driver(cuda: str) -> int:
    """Major version of the oldest driver for a CUDA release such as ``13.0``."""
    return _DRIVER_OF_CUDA.get(int(cuda.split(".")[0]), max(_DRIVER_OF_CUDA.values()))
