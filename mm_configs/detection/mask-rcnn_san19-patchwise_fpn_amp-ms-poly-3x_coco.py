_base_ = [
    'mmdet::common/ms-poly_3x_coco-instance.py', 'mmdet::_base_/models/mask-rcnn_r50_fpn.py',
    '../_base_/models/backbone_san10-pairwise_coco.py'
]
checkpoint = 'work_dirs/san19-patchwise_8xb32-coslr-100e_in1k/epoch_100.pth'
model = dict(
    backbone=dict(
        _base_.san,
        _delete_=True,
        depth=19,
        attention='patchwise',
        init_cfg=dict(_base_.san.init_cfg, checkpoint=checkpoint)))
optim_wrapper = dict(type='AmpOptimWrapper')
