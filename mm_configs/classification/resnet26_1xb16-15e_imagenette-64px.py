_base_ = './san10-patchwise_1xb16-15e_imagenette-64px.py'
model = dict(
    backbone=dict(_delete_=True, type='sa_layers.ResNet', depth=26, out_indices=(3, )))
