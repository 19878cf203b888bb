# Self-attention in place of the four 3x3 convolutions of the mask head.
_base_ = 'mmdet::mask_rcnn/mask-rcnn_r50_fpn_1x_coco.py'
model = dict(
    roi_head=dict(mask_head=dict(conv_cfg=dict(type='sa_layers.PatchwiseSelfAttention'))))
sync_bn = 'torch'
