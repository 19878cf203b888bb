# Common to all segmentors with a SAN10.
# The backbone starts from random weights. To start from a classifier's checkpoint, trained with a config of this
# package or converted from the authors' by `python -m sa_layers.convert`, add (in bash, which expands the braces):
#   --cfg-options model.backbone.init_cfg.{type=Pretrained,checkpoint=FILE,prefix=backbone.}
norm_cfg = dict(type='BN', requires_grad=True)
model = dict(
    type='EncoderDecoder',
    data_preprocessor=dict(
        type='SegDataPreProcessor',
        mean=[123.675, 116.28, 103.53],
        std=[58.395, 57.12, 57.375],
        bgr_to_rgb=True,
        pad_val=0,
        seg_pad_val=255),
    backbone=dict(
        type='sa_layers.SAN',
        depth=10,
        attention='patchwise',
        out_indices=(1, 2, 3, 4),
        norm_cfg=norm_cfg),
    train_cfg=dict(),
    test_cfg=dict(mode='whole'))
