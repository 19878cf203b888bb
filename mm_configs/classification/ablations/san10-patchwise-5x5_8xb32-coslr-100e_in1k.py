_base_ = '../san10-patchwise_8xb32-coslr-100e_in1k.py'
model = dict(backbone=dict(kernel_sizes=(3, 5, 5, 5, 5)))
