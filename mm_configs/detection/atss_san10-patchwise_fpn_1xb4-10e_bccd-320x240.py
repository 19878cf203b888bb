# Blood cells of three kinds, from scratch, in minutes on two CPU cores. The ResNet-26 beside it has the same recipe.
# To start the backbone from a checkpoint, add (in bash, which expands the braces)
#   --cfg-options model.backbone.init_cfg.{type=Pretrained,checkpoint=FILE,prefix=backbone.}
_base_ = [
    '../_base_/models/atss_san10-patchwise.py', '../_base_/datasets/bccd.py', 'mmdet::_base_/schedules/schedule_1x.py',
    'mmdet::_base_/default_runtime.py'
]
max_epochs = 10
model = dict(
    backbone=dict(out_indices=(2, 3, 4)),
    neck=dict(in_channels=[512, 1024, 2048], num_outs=3),
    bbox_head=dict(
        num_classes=3,
        # half of the platelets, red and white cells have sides of 20, 51 and 94 pixels or less at 320 x 240
        anchor_generator=dict(octave_base_scale=3, strides=[8, 16, 32])))
optim_wrapper = dict(
    optimizer=dict(_delete_=True, type='AdamW', lr=2e-3, betas=(0.9, 0.99), weight_decay=0.05, fused=True),
    clip_grad=dict(max_norm=10.0))
param_scheduler = [
    dict(type='LinearLR', start_factor=0.05, by_epoch=False, begin=0, end=50),
    dict(
        type='CosineAnnealingLR', by_epoch=True, begin=0, end=max_epochs, eta_min=2e-5,
        convert_to_iter_based=True)
]
train_cfg = dict(max_epochs=max_epochs, val_interval=max_epochs)
auto_scale_lr = dict(base_batch_size=4)
default_hooks = dict(logger=dict(interval=10), checkpoint=dict(max_keep_ckpts=2))
randomness = dict(seed=0)
