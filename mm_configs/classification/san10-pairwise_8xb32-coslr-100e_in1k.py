_base_ = '../_base_/recipes/imagenet_8xb32-coslr-100e.py'
model = dict(
    backbone=dict(
        _delete_=True, type='sa_layers.SAN', depth=10, attention='pairwise', out_indices=(4, )))
