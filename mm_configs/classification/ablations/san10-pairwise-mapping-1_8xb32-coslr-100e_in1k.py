_base_ = '../san10-pairwise_8xb32-coslr-100e_in1k.py'
model = dict(backbone=dict(mapping_layers=1))
