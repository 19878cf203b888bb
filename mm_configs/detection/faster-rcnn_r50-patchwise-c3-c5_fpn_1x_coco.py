# Self-attention in place of the 3x3 convolutions of the ResNet's last three stages. `dcn` is the ResNet's argument for
# deformable convolutions; its `conv_cfg` would also replace the stem and the 1x1 convolutions.
_base_ = 'mmdet::faster_rcnn/faster-rcnn_r50_fpn_1x_coco.py'
model = dict(
    backbone=dict(
        norm_eval=False,  # the attention's norms have no pretrained statistics
        dcn=dict(type='sa_layers.PatchwiseSelfAttention'),
        stage_with_dcn=(False, True, True, True)))
sync_bn = 'torch'
