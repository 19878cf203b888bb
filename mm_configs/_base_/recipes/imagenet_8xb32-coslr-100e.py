# Exactly the recipe of the paper's code: 100 epochs of SGD with a cosine schedule stepped by epoch, no warm-up, weight
# decay on every parameter, label smoothing, PIL's (torchvision's) resizing, PyTorch's default initialisation.
_base_ = [
    'mmpretrain::_base_/models/resnet50.py',
    'mmpretrain::_base_/datasets/imagenet_bs32.py',
    'mmpretrain::_base_/schedules/imagenet_bs256_coslr.py',
    'mmpretrain::_base_/default_runtime.py'
]
model = dict(
    head=dict(
        init_cfg=None,
        loss=dict(
            _delete_=True,
            type='LabelSmoothLoss',
            # the other 999 classes share 0.1; by default mmpretrain spreads it over all 1000
            label_smooth_val=0.1 * 1000 / 999,
            mode='original')))
train_pipeline = [
    dict(type='LoadImageFromFile', imdecode_backend='pillow'),
    dict(type='RandomResizedCrop', scale=224, backend='pillow'),
    dict(type='RandomFlip', prob=0.5, direction='horizontal'),
    dict(type='PackInputs')
]
test_pipeline = [
    dict(type='LoadImageFromFile', imdecode_backend='pillow'),
    dict(type='ResizeEdge', scale=256, edge='short', backend='pillow'),
    dict(type='CenterCrop', crop_size=224),
    dict(type='PackInputs')
]
train_dataloader = dict(dataset=dict(pipeline=train_pipeline))
val_dataloader = dict(batch_size=100, dataset=dict(pipeline=test_pipeline))
test_dataloader = val_dataloader
default_hooks = dict(checkpoint=dict(max_keep_ckpts=3, save_best='accuracy/top1'))
