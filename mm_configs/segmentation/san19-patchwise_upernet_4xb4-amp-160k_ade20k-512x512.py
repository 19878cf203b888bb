_base_ = './san19-patchwise_upernet_4xb4-160k_ade20k-512x512.py'
optim_wrapper = dict(type='AmpOptimWrapper', loss_scale='dynamic')
