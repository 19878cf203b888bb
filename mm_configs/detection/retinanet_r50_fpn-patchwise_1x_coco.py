# Self-attention in place of the feature pyramid's convolutions.
_base_ = 'mmdet::retinanet/retinanet_r50_fpn_1x_coco.py'
model = dict(neck=dict(conv_cfg=dict(type='sa_layers.PatchwiseSelfAttention')))
sync_bn = 'torch'  # batch statistics of the attention's mapping over all processes
