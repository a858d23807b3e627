"""Questions about an imported network that pruning and training both have."""

from torch import fx, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.conv import _ConvNd


def output_count(layer: nn.Module) -> int:
    """Channels that a layer makes or carries; of a recurrent layer the hidden units of all its layers and directions.

    >>> output_count(nn.Conv2d(3, 8, 1)), output_count(nn.LSTM(3, 4, bidirectional=True)), output_count(nn.ReLU())
    (8, 8, 0)
    """
    if isinstance(layer, nn.RNNBase):
        return layer.hidden_size * layer.num_layers * (2 if layer.bidirectional else 1)
    if isinstance(layer, nn.Linear):
        return layer.out_features
    if isinstance(layer, nn.LayerNorm):
        return layer.normalized_shape[-1]
    if isinstance(layer, nn.GroupNorm):
        return layer.num_channels
    return layer.out_channels if isinstance(layer, _ConvNd) else int(getattr(layer, "num_features", 0))


def norm_behind(module: fx.GraphModule, name: str) -> str | None:
    """The name of the BatchNorm that alone reads a layer, which is used once; None where there is none."""
    nodes = [node for node in module.graph.nodes if node.op == "call_module" and node.target == name]
    users = [user for node in nodes for user in node.users]
    if len(users) != 1 or users[0].op != "call_module":
        return None
    behind = str(users[0].target)
    return behind if isinstance(module.get_submodule(behind), _BatchNorm) else None
