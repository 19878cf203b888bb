_base_ = './san10-patchwise_fpn_4xb4-160k_ade20k-512x512.py'
model = dict(backbone=dict(depth=19))
