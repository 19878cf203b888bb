# PSPNet on a SAN10.
# Output stride 8: the last two stages are dilated instead of strided.
_base_ = './encoder-auxiliary_san10-patchwise.py'
model = dict(
    backbone=dict(strides=(2, 2, 2, 1, 1), dilations=(1, 1, 1, 2, 4)),
    decode_head=dict(
        type='PSPHead',
        in_channels=2048,
        in_index=3,
        pool_scales=(1, 2, 3, 6),
        channels=512,
        dropout_ratio=0.1,
        num_classes=150,
        norm_cfg={{_base_.norm_cfg}},
        align_corners=False,
        loss_decode=dict(
            type='CrossEntropyLoss', use_sigmoid=False, loss_weight=1.0)))
