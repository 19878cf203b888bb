_base_ = ['mmdet::dino/dino-4scale_r50_8xb2-12e_coco.py', '../_base_/models/backbone_san10-pairwise_coco.py']
checkpoint = 'work_dirs/san19-pairwise_8xb32-coslr-100e_in1k/epoch_100.pth'
model = dict(
    backbone=dict(
        _base_.san,
        _delete_=True,
        depth=19,
        out_indices=(2, 3, 4),
        init_cfg=dict(_base_.san.init_cfg, checkpoint=checkpoint)))
