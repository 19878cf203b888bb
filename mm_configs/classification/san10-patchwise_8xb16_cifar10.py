_base_ = './san10-pairwise_8xb16_cifar10.py'
model = dict(backbone=dict(attention='patchwise'))
