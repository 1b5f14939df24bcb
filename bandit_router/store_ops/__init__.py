"""What can be asked of a stored log: go on from it, rebuild the model from it, explain a decision.

All three rest on one law: the state of a learner is a function of its recipe and the log.
"""

from bandit_router.store_ops.catalog import catalog_changes
from bandit_router.store_ops.explain import Explanation, ModelView, drawn_by, explain
from bandit_router.store_ops.rebuild import Rebuilt, newest_snapshot, rebuild
from bandit_router.store_ops.resume import (
    SALT,
    PolicyMaker,
    fresh_loop,
    policy_of,
    refuse,
    refused_rows,
    resume,
)

__all__ = [
    "SALT",
    "Explanation",
    "ModelView",
    "PolicyMaker",
    "Rebuilt",
    "catalog_changes",
    "drawn_by",
    "explain",
    "fresh_loop",
    "newest_snapshot",
    "policy_of",
    "rebuild",
    "refuse",
    "refused_rows",
    "resume",
]
