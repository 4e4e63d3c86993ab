"""Learning rules: each leaves gradients for the loop's optimisers, and the loop is the same for all.

A rule is a function (network, lesson) -> logits_BV that is to lower the lesson's loss: it leaves gradients in
``weight.grad`` of the weights that it teaches, and None at those that it does not.
"""

from collections.abc import Callable

from torch import Tensor

from aunn_model.network import Network
from aunn_model.rules.backpropagation import backpropagation
from aunn_model.rules.delta import delta
from aunn_model.rules.feedback_alignment import feedback_alignment
from aunn_model.rules.forward_gradient import forward_gradient
from aunn_model.rules.lesson import Lesson
from aunn_model.rules.predictive_coding import predictive_coding

Rule = Callable[[Network, Lesson], Tensor]

RULES: dict[str, Rule] = {
    "backpropagation": backpropagation,
    "feedback_alignment": feedback_alignment,
    "forward_gradient": forward_gradient,
    "predictive_coding": predictive_coding,
    "delta": delta,
}
