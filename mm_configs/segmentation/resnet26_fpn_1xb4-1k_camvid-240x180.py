_base_ = './san10-patchwise_fpn_1xb4-1k_camvid-240x180.py'
model = dict(
    backbone=dict(_delete_=True, type='sa_layers.ResNet', depth=26, out_indices=(0, 1, 2, 3)))
