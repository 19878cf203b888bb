_base_ = './faster-rcnn_san19-patchwise_fpn_1x_coco.py'
optim_wrapper = dict(type='AmpOptimWrapper')
