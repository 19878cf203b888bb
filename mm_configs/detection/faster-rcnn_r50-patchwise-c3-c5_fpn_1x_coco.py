# Self-attention where the ResNet's last three stages have their 3x3 convolutions: the place of a deformable one, hence
# the argument's name. The ResNet's `conv_cfg` would replace the stem and the 1x1 convolutions too.
_base_ = 'mmdet::faster_rcnn/faster-rcnn_r50_fpn_1x_coco.py'
model = dict(
    backbone=dict(
        norm_eval=False,  # the attention's own norms have no statistics yet
        dcn=dict(type='sa_layers.PatchwiseSelfAttention'),
        stage_with_dcn=(False, True, True, True)))
sync_bn = 'torch'
