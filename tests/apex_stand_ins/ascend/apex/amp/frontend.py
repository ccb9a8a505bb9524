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
    dynamic_init_scale=2.0**16,
    scale_growth_factor=2.0,
    scale_backoff_factor=0.5,
    scale_window=2000,
    min_loss_scale=None,
    max_loss_scale=2.0**24,
    combine_grad=None,
    combine_ddp=None,
    ddp_replica_count=4,
    user_cast_preferred=None,
    check_combined_tensors=None,
):
    fused = getattr(optimizers, "is_npu_fused_optimizer", False)
    if fused and opt_level not in ("O1", "O2"):
        raise RuntimeError("npu fused optimizer can only be used when opt_level='O1' or opt_level='O2'")
    return small_amp.initialize(models, optimizers, opt_level, loss_scale, bool(combine_grad or fused))


def scale_loss(loss, optimizers, loss_id=0, model=None, delay_unscale=False, delay_overflow_check=False):
    return small_amp.scale_loss(loss, optimizers, delay_unscale)


def state_dict(destination=None):
    return small_amp.state_dict()
