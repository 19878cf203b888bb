# ATSS on three kinds of shapes over photographs, from scratch, in minutes on two CPU cores.
_base_ = [
    '../_base_/models/atss_san10-patchwise.py', '../_base_/datasets/shapes_detection.py',
    'mmdet::_base_/schedules/schedule_1x.py', 'mmdet::_base_/default_runtime.py'
]
max_epochs = 6
model = dict(
    bbox_head=dict(
        num_classes=3,
        # objects of 19 to 45 pixels
        anchor_generator=dict(octave_base_scale=5, strides=[4, 8, 16, 32])))
optim_wrapper = dict(
    optimizer=dict(_delete_=True, type='AdamW', lr=4e-3, betas=(0.9, 0.99), weight_decay=0.05, fused=True),
    clip_grad=dict(max_norm=10.0))
param_scheduler = [
    dict(type='LinearLR', start_factor=0.05, by_epoch=False, begin=0, end=20),
    dict(
        type='CosineAnnealingLR', by_epoch=True, begin=0, end=max_epochs, eta_min=4e-5,
        convert_to_iter_based=True)
]
train_cfg = dict(max_epochs=max_epochs, val_interval=3)
auto_scale_lr = dict(base_batch_size=8)
default_hooks = dict(logger=dict(interval=10), checkpoint=dict(max_keep_ckpts=2))
randomness = dict(seed=0)
