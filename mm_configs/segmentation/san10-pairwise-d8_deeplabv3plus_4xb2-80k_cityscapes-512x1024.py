_base_ = './san10-patchwise-d8_deeplabv3plus_4xb2-80k_cityscapes-512x1024.py'
model = dict(
    backbone=dict(
        attention='pairwise',
        init_cfg=dict(checkpoint='work_dirs/san10-pairwise_8xb32-coslr-100e_in1k/epoch_100.pth')))
