"""What a training tells somebody else's log, epoch by epoch: TensorBoard, or a hook of your own."""
