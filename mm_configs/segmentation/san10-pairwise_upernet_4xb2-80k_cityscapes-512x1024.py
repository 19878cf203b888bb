_base_ = './san10-patchwise_upernet_4xb2-80k_cityscapes-512x1024.py'
model = dict(backbone=dict(attention='pairwise'))
