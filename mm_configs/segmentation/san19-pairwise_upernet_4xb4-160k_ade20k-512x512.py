_base_ = './san10-patchwise_upernet_4xb4-160k_ade20k-512x512.py'
model = dict(backbone=dict(depth=19, attention='pairwise'))
