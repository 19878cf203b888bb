_base_ = './san10-patchwise_upernet_4xb4-160k_ade20k-512x512.py'
model = dict(
    backbone=dict(
        depth=19,
        init_cfg=dict(checkpoint='work_dirs/san19-patchwise_8xb32-coslr-100e_in1k/epoch_100.pth')))
