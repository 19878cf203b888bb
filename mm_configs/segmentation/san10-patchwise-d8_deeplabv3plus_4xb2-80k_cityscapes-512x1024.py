# The backbone starts from random weights; encoder_san10-patchwise.py says how to start from a checkpoint.
_base_ = [
    '../_base_/models/deeplabv3plus_san10-patchwise-d8.py',
    '../_base_/datasets/cityscapes.py',
    '../_base_/schedules/80k.py',
    '../_base_/runtime/segmentation.py',
]
model = dict(
    data_preprocessor=dict(size=(512, 1024)),
    decode_head=dict(num_classes=19),
    auxiliary_head=dict(num_classes=19))
