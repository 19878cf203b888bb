# One object per crop, three kinds of shapes over photographs, from scratch, in minutes on two CPU cores.
_base_ = [
    'mmpretrain::_base_/models/resnet50.py',
    '../_base_/datasets/shapes_classification.py',
    'mmpretrain::_base_/default_runtime.py'
]
max_epochs = 10
model = dict(
    backbone=dict(
        _delete_=True,
        type='sa_layers.SAN',
        depth=10,
        attention='patchwise',
        out_indices=(4, )),
    head=dict(num_classes=3, topk=(1, )))
optim_wrapper = dict(
    optimizer=dict(type='AdamW', lr=2e-3, betas=(0.9, 0.99), weight_decay=0.05, fused=True),
    # with three classes and 2048 features, the backbone's learning rate would make the logits jump
    paramwise_cfg=dict(custom_keys=dict(head=dict(lr_mult=0.05))),
    clip_grad=dict(max_norm=5.0))
param_scheduler = [
    dict(type='LinearLR', start_factor=0.05, by_epoch=False, begin=0, end=20),
    dict(
        type='CosineAnnealingLR', by_epoch=True, begin=0, end=max_epochs, eta_min=2e-5,
        convert_to_iter_based=True)
]
train_cfg = dict(by_epoch=True, max_epochs=max_epochs, val_interval=1)
val_cfg = dict()
test_cfg = dict()
default_hooks = dict(
    logger=dict(interval=10), checkpoint=dict(max_keep_ckpts=2, save_best='accuracy/top1'))
randomness = dict(seed=0)
