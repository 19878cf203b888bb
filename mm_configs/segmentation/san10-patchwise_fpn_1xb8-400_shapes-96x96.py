# The demo: five kinds of shapes over photographs, learned in minutes on two CPU cores.
_base_ = [
    '../_base_/models/fpn_san10-pairwise.py',
    '../_base_/datasets/shapes_segmentation.py',
    '../_base_/runtime/segmentation.py',
]
max_iters = 300
crop_size = (96, 96)
model = dict(
    data_preprocessor=dict(size=crop_size),
    neck=dict(out_channels=128),
    decode_head=dict(in_channels=[128] * 4, channels=64, num_classes=6))
optim_wrapper = dict(
    type='OptimWrapper',
    optimizer=dict(type='AdamW', lr=2e-3, weight_decay=0.05),
    clip_grad=dict(max_norm=5.0))
param_scheduler = [
    dict(type='LinearLR', start_factor=0.1, by_epoch=False, begin=0, end=20),
    dict(type='CosineAnnealingLR', by_epoch=False, begin=20, end=max_iters, eta_min=2e-5),
]
train_cfg = dict(type='IterBasedTrainLoop', max_iters=max_iters, val_interval=max_iters)
val_cfg = dict(type='ValLoop')
test_cfg = dict(type='TestLoop')
default_hooks = dict(
    timer=dict(type='IterTimerHook'),
    logger=dict(type='LoggerHook', interval=20, log_metric_by_epoch=False),
    param_scheduler=dict(type='ParamSchedulerHook'),
    checkpoint=dict(type='CheckpointHook', by_epoch=False, interval=50, max_keep_ckpts=1),
    sampler_seed=dict(type='DistSamplerSeedHook'),
    visualization=dict(type='SegVisualizationHook'))
randomness = dict(seed=0)
