_base_ = './san10-patchwise_1xb16-15e_imagenette-64px.py'
model = dict(backbone=dict(attention='pairwise'))
