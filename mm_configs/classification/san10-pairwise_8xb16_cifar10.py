# For images of 32 to 64 pixels: the first and the last stage have no pooling, and kernel sizes shrink with the
# map. At 32 pixels the stages are 32, 16, 8, 4 and 4 pixels wide.
_base_ = [
    'mmpretrain::_base_/models/resnet50.py',
    'mmpretrain::_base_/datasets/cifar10_bs16.py',
    'mmpretrain::_base_/schedules/cifar10_bs128.py',
    'mmpretrain::_base_/default_runtime.py'
]
model = dict(
    backbone=dict(
        _delete_=True,
        type='sa_layers.SAN',
        depth=10,
        attention='pairwise',
        strides=(1, 2, 2, 2, 1),
        kernel_sizes=(3, 7, 7, 5, 5),
        out_indices=(4, )),
    head=dict(num_classes=10, topk=(1, )))
