_base_ = './san10-patchwise-d8_pspnet_4xb4-160k_ade20k-512x512.py'
model = dict(
    backbone=dict(
        attention='pairwise',
        init_cfg=dict(checkpoint='work_dirs/san10-pairwise_8xb32-coslr-100e_in1k/epoch_100.pth')))
