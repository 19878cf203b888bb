_base_ = ['mmdet::common/ms-poly_3x_coco-instance.py', 'mmdet::_base_/models/mask-rcnn_r50_fpn.py']
model = dict(
    backbone=dict(
        _delete_=True,
        type='sa_layers.SAN',
        depth=19,
        attention='patchwise',
        out_indices=(1, 2, 3, 4),
        frozen_stages=1,
        norm_eval=True,
        init_cfg=dict(
            type='Pretrained',
            checkpoint='work_dirs/san19-patchwise_8xb32-coslr-100e_in1k/epoch_100.pth',
            prefix='backbone.')))
optim_wrapper = dict(type='AmpOptimWrapper')
