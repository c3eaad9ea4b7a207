"""Norms folded into the convolutions before them, for inference.

Which convolution feeds which norm is seen by running the network once. A pair is folded when both
are used once: RetinaNet's head runs one convolution at five levels with a norm for each, and those
stay.
"""

from __future__ import annotations

import copy
from collections import Counter
from contextlib import ExitStack
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval


@torch.no_grad()
def folded(network: nn.Module, images: Tensor) -> tuple[nn.Module, int]:
    """A copy of `network` in evaluation mode whose norms are folded where that is possible, and how
    many are.
    """
    twin = copy.deepcopy(network).eval()
    pairs = _pairs(twin, images)
    for conv_name, norm_name in pairs.items():
        conv, norm = twin.get_submodule(conv_name), twin.get_submodule(norm_name)
        assert isinstance(conv, nn.Conv2d)
        assert isinstance(norm, nn.BatchNorm2d)
        twin.set_submodule(conv_name, fuse_conv_bn_eval(conv, norm))
        twin.set_submodule(norm_name, nn.Identity())
    return twin, len(pairs)


def _pairs(network: nn.Module, images: Tensor) -> dict[str, str]:
    """Convolution → the norm that alone reads its output, both used once."""
    made: dict[int, tuple[str, Tensor]] = {}  # holds the outputs, so that no address comes twice
    found: dict[str, str] = {}
    used: Counter[str] = Counter()

    def after(name: str, layer: Any, out: Tensor) -> None:
        used[name] += 1
        made[id(out)] = name, out

    def before(name: str, given: Tensor) -> None:
        used[name] += 1
        if id(given) in made:
            found[made[id(given)][0]] = name

    with ExitStack() as hooks:
        for name, layer in network.named_modules():
            if isinstance(layer, nn.Conv2d):
                hook = layer.register_forward_hook(
                    lambda layer, given, out, name=name: after(name, layer, out)
                )
            elif isinstance(layer, nn.BatchNorm2d):
                hook = layer.register_forward_pre_hook(
                    lambda layer, given, name=name: before(name, given[0])
                )
            else:
                continue
            hooks.callback(hook.remove)
        network(images)
    return {c: n for c, n in found.items() if used[c] == used[n] == 1}
