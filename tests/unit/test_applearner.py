"""What an app's store refuses to be opened with."""

from __future__ import annotations

from dataclasses import replace

import pytest
from support.streaming import plan

from bandit_router.errors import ConfigError
from bandit_router.streaming.applearner import AppLearner


def test_another_salt_is_refused_because_the_draws_could_not_be_explained(tmp_path):
    before = plan("x", tmp_path)
    AppLearner.open(before).close()
    with pytest.raises(ConfigError, match=r"app\.salt is 'other', but its decisions were drawn"):
        AppLearner.open(replace(before, salt="other"))
    AppLearner.open(before).close()
