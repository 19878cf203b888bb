# The backbone of every detector for COCO: a SAN10, pairwise, in place of a ResNet-50 whose first stage is frozen.
# A frozen stage needs trained weights, so training stops if the checkpoint does not exist. The classifier's config
# writes this one. For another: --cfg-options model.backbone.init_cfg.checkpoint=FILE
san = dict(
    type='sa_layers.SAN',
    depth=10,
    attention='pairwise',
    out_indices=(1, 2, 3, 4),
    frozen_stages=1,
    norm_eval=True,
    init_cfg=dict(
        type='Pretrained',
        checkpoint='work_dirs/san10-pairwise_8xb32-coslr-100e_in1k/epoch_100.pth',
        prefix='backbone.'))
