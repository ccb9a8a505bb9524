from small_sgd import FusedSGD  # noqa: F401
