"""SpineNet's networks in PyTorch, usable on their own: genotypes, backbones, RetinaNet, counts."""
