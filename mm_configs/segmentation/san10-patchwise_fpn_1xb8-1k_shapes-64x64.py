# The demo: three kinds of shapes over photographs, learned in minutes on two CPU cores.
_base_ = [
    '../_base_/models/fpn_san10-patchwise.py',
    '../_base_/datasets/shapes_segmentation.py',
    '../_base_/runtime/segmentation.py',
]
crop_size = (64, 64)
max_iters = 1200
model = dict(
    data_preprocessor=dict(size=crop_size),
    neck=dict(out_channels=64),
    decode_head=dict(
        in_channels=[64] * 4,
        channels=32,
        num_classes=4,
        # background covers three quarters of the pixels
        loss_decode=dict(class_weight=[0.6, 1.0, 1.0, 1.0])))
optim_wrapper = dict(
    type='OptimWrapper',
    optimizer=dict(type='AdamW', lr=4e-3, betas=(0.9, 0.99), weight_decay=0.05, fused=True),
    clip_grad=dict(max_norm=5.0))
param_scheduler = [
    dict(type='LinearLR', start_factor=0.05, by_epoch=False, begin=0, end=20),
    dict(type='CosineAnnealingLR', by_epoch=False, begin=20, end=max_iters, eta_min=4e-5),
]
train_cfg = dict(type='IterBasedTrainLoop', max_iters=max_iters, val_interval=max_iters)
val_cfg = dict(type='ValLoop')
test_cfg = dict(type='TestLoop')
default_hooks = dict(
    timer=dict(type='IterTimerHook'),
    logger=dict(type='LoggerHook', interval=50, log_metric_by_epoch=False),
    param_scheduler=dict(type='ParamSchedulerHook'),
    checkpoint=dict(type='CheckpointHook', by_epoch=False, interval=200, max_keep_ckpts=2),
    sampler_seed=dict(type='DistSamplerSeedHook'),
    visualization=dict(type='SegVisualizationHook'))
randomness = dict(seed=0)
