# A self-attention block after the 3x3 convolution of each block of the ResNet's last three stages.
_base_ = 'mmdet::faster_rcnn/faster-rcnn_r50_fpn_1x_coco.py'
model = dict(
    backbone=dict(
        norm_eval=False,  # the blocks' norms have no pretrained statistics
        plugins=[
            dict(
                cfg=dict(type='sa_layers.SelfAttentionPlugin', attention='patchwise', kernel_size=7),
                stages=(False, True, True, True),
                position='after_conv2')
        ]))
sync_bn = 'torch'
