_base_ = '../_base_/recipes/imagenet_8xb32-coslr-100e.py'
model = dict(
    backbone=dict(_delete_=True, type='sa_layers.ResNet', depth=26, out_indices=(3, )))
