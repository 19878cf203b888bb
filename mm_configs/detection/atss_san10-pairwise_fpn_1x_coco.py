_base_ = ['mmdet::atss/atss_r50_fpn_1x_coco.py', '../_base_/models/backbone_san10-pairwise_coco.py']
model = dict(backbone=dict(_base_.san, _delete_=True))
