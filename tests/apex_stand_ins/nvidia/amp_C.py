"""In place of NVIDIA's compiled kernels."""
