_base_ = './san10-patchwise-d8_deeplabv3plus_4xb4-160k_ade20k-512x512.py'
model = dict(backbone=dict(attention='pairwise'))
