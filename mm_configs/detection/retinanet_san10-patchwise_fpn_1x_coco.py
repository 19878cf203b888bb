_base_ = './retinanet_san10-pairwise_fpn_1x_coco.py'
model = dict(
    backbone=dict(
        attention='patchwise',
        init_cfg=dict(checkpoint='work_dirs/san10-patchwise_8xb32-coslr-100e_in1k/epoch_100.pth')))
