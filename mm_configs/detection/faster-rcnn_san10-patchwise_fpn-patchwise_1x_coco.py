_base_ = './faster-rcnn_san10-patchwise_fpn_1x_coco.py'
model = dict(neck=dict(conv_cfg=dict(type='sa_layers.PatchwiseSelfAttention')))
sync_bn = 'torch'
