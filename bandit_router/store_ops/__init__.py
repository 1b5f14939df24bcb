"""What can be asked of a stored log: go on from it, rebuild the model from it, explain a decision.

All three rest on one law: the state of a learner is a function of its recipe and the log.
"""

from bandit_router.store_ops.explain import Explanation, ModelView, explain
from bandit_router.store_ops.rebuild import Rebuilt, rebuild
from bandit_router.store_ops.resume import SALT, fresh_loop, policy_of, resume

__all__ = [
    "SALT",
    "Explanation",
    "ModelView",
    "Rebuilt",
    "explain",
    "fresh_loop",
    "policy_of",
    "rebuild",
    "resume",
]
