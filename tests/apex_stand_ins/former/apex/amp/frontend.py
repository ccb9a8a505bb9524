import small_amp


def initialize(
    models,
    optimizers=None,
    enabled=True,
    opt_level="O1",
    cast_model_type=None,
    patch_torch_functions=None,
    keep_batchnorm_fp32=None,
    master_weights=None,
    loss_scale=None,
    cast_model_outputs=None,
    num_losses=1,
    verbosity=1,
    min_loss_scale=None,
    max_loss_scale=2.0**24,
):
    return small_amp.initialize(models, optimizers, opt_level, loss_scale, combine_grad=False)


def scale_loss(loss, optimizers, loss_id=0, model=None, delay_unscale=False, delay_overflow_check=False):
    return small_amp.scale_loss(loss, optimizers, delay_unscale)


def state_dict(destination=None):
    return small_amp.state_dict()
