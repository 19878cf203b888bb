_base_ = './san15-pairwise_8xb32-coslr-100e_in1k.py'
optim_wrapper = dict(type='AmpOptimWrapper', loss_scale='dynamic')
