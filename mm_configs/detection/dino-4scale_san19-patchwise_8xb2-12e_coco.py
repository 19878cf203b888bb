_base_ = './dino-4scale_san19-pairwise_8xb2-12e_coco.py'
model = dict(
    backbone=dict(
        attention='patchwise',
        init_cfg=dict(checkpoint='work_dirs/san19-patchwise_8xb32-coslr-100e_in1k/epoch_100.pth')))
