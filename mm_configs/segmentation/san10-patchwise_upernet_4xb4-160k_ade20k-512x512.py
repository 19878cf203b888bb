_base_ = [
    '../_base_/models/upernet_san10-patchwise.py',
    '../_base_/datasets/ade20k.py',
    '../_base_/schedules/160k.py',
    '../_base_/runtime/segmentation.py',
]
model = dict(
    data_preprocessor=dict(size=(512, 512)),
    backbone=dict(
        init_cfg=dict(
            type='Pretrained',
            checkpoint='work_dirs/san10-patchwise_8xb32-coslr-100e_in1k/epoch_100.pth',
            prefix='backbone.')))
