# Street scenes in 11 classes, from scratch, in minutes on two CPU cores. The ResNet-26 beside it has the same recipe.
# The backbone starts from random weights; encoder_san10-patchwise.py says how to start from a checkpoint.
_base_ = [
    '../_base_/models/fpn_san10-patchwise.py',
    '../_base_/datasets/camvid.py',
    '../_base_/runtime/segmentation.py',
]
max_iters = 1000
model = dict(
    # images whose sides are no multiples of 32 are padded in tests, too: maps of stride 32 then cover them
    data_preprocessor=dict(size={{_base_.crop_size}}, test_cfg=dict(size_divisor=32)),
    neck=dict(out_channels=64),
    decode_head=dict(
        in_channels=[64] * 4,
        channels=64,
        num_classes=11,
        # the square root of the median frequency over the frequency of each class, counted in the training images
        loss_decode=dict(
            class_weight=[0.53, 0.45, 2.19, 0.39, 1.00, 0.65, 1.96, 1.40, 0.89, 2.52, 2.98])))
optim_wrapper = dict(
    type='OptimWrapper',
    optimizer=dict(type='AdamW', lr=2e-3, betas=(0.9, 0.99), weight_decay=0.05, fused=True),
    clip_grad=dict(max_norm=5.0))
param_scheduler = [
    dict(type='LinearLR', start_factor=0.05, by_epoch=False, begin=0, end=50),
    dict(type='CosineAnnealingLR', by_epoch=False, begin=50, end=max_iters, eta_min=2e-5),
]
train_cfg = dict(type='IterBasedTrainLoop', max_iters=max_iters, val_interval=max_iters)
val_cfg = dict(type='ValLoop')
test_cfg = dict(type='TestLoop')
default_hooks = dict(
    timer=dict(type='IterTimerHook'),
    logger=dict(type='LoggerHook', interval=50, log_metric_by_epoch=False),
    param_scheduler=dict(type='ParamSchedulerHook'),
    checkpoint=dict(type='CheckpointHook', by_epoch=False, interval=max_iters // 10, max_keep_ckpts=2),
    sampler_seed=dict(type='DistSamplerSeedHook'),
    visualization=dict(type='SegVisualizationHook'))
randomness = dict(seed=0)
