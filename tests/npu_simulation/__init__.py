"""A simulated Ascend NPU, for tests only: PyTorch's device type `npu` in the CPU's memory, with the CPU's kernels."""
