_base_ = './faster-rcnn_san10-pairwise_fpn_1x_coco.py'
model = dict(
    backbone=dict(
        depth=19,
        init_cfg=dict(checkpoint='work_dirs/san19-pairwise_8xb32-coslr-100e_in1k/epoch_100.pth')))
