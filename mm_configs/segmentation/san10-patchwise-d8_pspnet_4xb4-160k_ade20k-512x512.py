# The backbone starts from random weights; encoder_san10-patchwise.py says how to start from a checkpoint.
_base_ = [
    '../_base_/models/pspnet_san10-patchwise-d8.py',
    '../_base_/datasets/ade20k.py',
    '../_base_/schedules/160k.py',
    '../_base_/runtime/segmentation.py',
]
model = dict(
    data_preprocessor=dict(size=(512, 512)))
