_base_ = './san10-patchwise_fpn_4xb2-80k_cityscapes-512x1024.py'
model = dict(
    backbone=dict(
        depth=19,
        init_cfg=dict(checkpoint='work_dirs/san19-patchwise_8xb32-coslr-100e_in1k/epoch_100.pth')))
