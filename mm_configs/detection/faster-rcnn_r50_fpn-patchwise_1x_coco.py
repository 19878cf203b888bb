# Self-attention where the feature pyramid has its convolutions.
_base_ = 'mmdet::faster_rcnn/faster-rcnn_r50_fpn_1x_coco.py'
model = dict(neck=dict(conv_cfg=dict(type='sa_layers.PatchwiseSelfAttention')))
sync_bn = 'torch'  # the attention's mapping is normalised over all images of the batch
