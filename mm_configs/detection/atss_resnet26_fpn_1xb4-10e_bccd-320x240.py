_base_ = './atss_san10-patchwise_fpn_1xb4-10e_bccd-320x240.py'
model = dict(
    backbone=dict(_delete_=True, type='sa_layers.ResNet', depth=26, out_indices=(1, 2, 3)))
