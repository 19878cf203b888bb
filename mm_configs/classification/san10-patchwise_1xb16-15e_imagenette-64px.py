# Ten classes of photographs, from scratch. The recipe is that of `make evidence` on two cores, except that it takes all
# training images instead of 300 of each class. imagenette.yml lists weights for this config, and how to make them.
_base_ = [
    'mmpretrain::_base_/models/resnet50.py', '../_base_/datasets/imagenette.py',
    'mmpretrain::_base_/default_runtime.py'
]
max_epochs = 15
model = dict(
    backbone=dict(
        _delete_=True,
        type='sa_layers.SAN',
        depth=10,
        attention='patchwise',
        out_indices=(4, )),
    head=dict(
        num_classes=10,
        topk=(1, ),
        init_cfg=None,
        loss=dict(_delete_=True, type='LabelSmoothLoss', label_smooth_val=0.1, mode='original')))
optim_wrapper = dict(optimizer=dict(type='SGD', lr=0.006, momentum=0.9, weight_decay=1e-4))
param_scheduler = dict(
    type='CosineAnnealingLR', by_epoch=True, begin=0, end=max_epochs, convert_to_iter_based=True)
train_cfg = dict(by_epoch=True, max_epochs=max_epochs, val_interval=1)
val_cfg = dict()
test_cfg = dict()
default_hooks = dict(checkpoint=dict(max_keep_ckpts=2))
randomness = dict(seed=0)
