"""The one place that talks to Vowpal Wabbit: numbers in, numbers out, state as verified bytes.

What VW does on bad input, and what this module does about it (measured on 9.11.9):

* Text is a label injection (a newline starts a new example). No text from outside reaches VW here:
  features are pairs (non-negative integer index, finite float), labels are formatted numbers.
* NaN gives a NaN pmf and a huge value does lasting damage. Both are refused before the call.
* ``parse()`` without ``finish_example`` leaks 246 KB, a ``learn`` that raises 96 KB. Examples are
  made once per workspace and refilled (6 us in place of 11 us for a fresh one), and made anew after
  a native error.
* ``finish_example`` advances counters that ``save`` stores. It is never called here, so that
  predicting leaves no trace in the state. Learning rates that decay with the example counter would
  therefore not decay: the options that need it (``--sgd``) are not on the allow-list.
* ``save`` to a missing folder or a full disk raises nothing, and a truncated model file loads
  without an error. The file is written to a private directory and read back; the bytes travel with
  their length and SHA-256, which are checked before VW sees any of them.
* A model file carries options, and options can write files. A file is loaded only when its option
  string is the one this workspace's own arguments give, the rest of the header is what this build
  writes, and what follows is whole records of weights, in order, in range and finite.
* Not every option is stored in the model file (``--loss_function`` is not): a workspace is always
  reopened with its full arguments plus ``-i``.

The class is not thread-safe: one workspace, one thread.
"""

from __future__ import annotations

import hashlib
import math
import re
import struct
import tempfile
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import TypeVar

import numpy as np
import pylibvw
from vowpalwabbit.pyvw import Example, Workspace

from bandit_router.errors import ConfigError, DecisionError, InputError, SnapshotError

Feature = tuple[int, float]
"""One feature: (index >= 0, finite value). VW keeps the index modulo 2**bit_precision."""

Namespaces = Mapping[str, list[Feature]]
"""Features of one example: one lower-case letter per namespace."""

ALLOWED_OPTIONS = frozenset(
    {
        "--adaptive", "--bit_precision", "--cb_explore_adf", "--cb_type", "--clip_p", "--coin",
        "--epsilon", "--ftrl", "--ftrl_alpha", "--ftrl_beta", "--gamma_exponent", "--gamma_scale",
        "--ignore_linear", "--initial_t", "--interactions", "--invariant", "--l1", "--l2",
        "--learning_rate", "--link", "--logistic_max", "--logistic_min", "--loss_function",
        "--noconstant", "--normalized", "--power_t", "--quadratic", "--random_seed", "--squarecb",
    }
)  # fmt: skip
_VALUE = re.compile(r"[a-z0-9_][a-z0-9_.+-]{0,31}\Z")
_ALWAYS = ("--quiet", "--save_resume", "--preserve_performance_counters")
_L1_LIMIT = 1e6
_MAGIC = b"BRVW1"

T = TypeVar("T")


@lru_cache(maxsize=8192)
def token_index(token: str) -> int:
    """A stable 32-bit index for any text; the text itself never reaches VW."""
    digest = hashlib.blake2b(token.encode("utf-8", "surrogatepass"), digest_size=4).digest()
    return int.from_bytes(digest, "little")


class VowpalWorkspace:
    """One VW learner: predict and learn from hashed features, save and load as bytes.

    Args:
        arguments: VW options as separate tokens, from :data:`ALLOWED_OPTIONS`, in their long form,
            each value a short token of ``[a-z0-9_.+-]``. The options that make resuming bit-exact
            are added here.

    Raises:
        ConfigError: an option is not allowed, or VW refuses the combination.
    """

    def __init__(self, arguments: Sequence[str]) -> None:
        _check_arguments(arguments)
        self._arguments = [*_ALWAYS, *arguments]
        self._open(None)
        untrained = _model(self.save())
        self._header = _header_of_model(untrained)
        self._fixed_bytes = len(untrained)  # everything before the weights, of which it has none
        self._mask = (1 << self._header[1]) - 1

    # -- single-line learners (regression, logistic) ------------------------------------------

    def predict(self, namespaces: Namespaces) -> float:
        """VW's raw prediction (before any link VW was not told of), without a base.

        Raises:
            InputError: a feature is not finite, or the values are out of range.
        """
        _check_values(namespaces)

        def run() -> float:
            example = self._plain(0, namespaces)
            pylibvw.vw.predict(self._vw, example)
            return float(example.get_simplelabel_prediction())

        return self._guard(run)

    def learn(
        self, namespaces: Namespaces, label: float, weight: float = 1.0, base: float = 0.0
    ) -> float:
        """One gradient step towards ``label``, from a prediction that starts at ``base``.

        Returns what :meth:`predict` would have returned before the step, within float32 rounding.

        ``base`` is VW's "initial" value: the learner fits what is left over it. ``--ftrl`` and
        plain gradient descent honour it; ``--coin`` silently does not.

        Raises:
            InputError: a number is not finite, the weight is negative, or values are out of range.
        """
        _check_values(namespaces)
        _check_numbers(label=label, weight=weight, base=base)
        if weight < 0.0:
            raise InputError(f"example weight {weight!r} must not be negative")

        def run() -> float:
            self._labelled.set_label_string(f"{label:.9g} {weight:.9g} {base:.9g}")
            pylibvw.vw.learn(self._vw, self._fill(self._labelled, namespaces))
            return float(self._labelled.get_simplelabel_prediction()) - base

        return self._guard(run)

    def weight(self, index: int) -> float:
        """The learned weight of one feature: what a value of 1 adds to :meth:`predict`.

        Holds for learners that are linear without interactions. It takes .3 us, where filling an
        example takes 10 and more.
        """
        return float(pylibvw.vw.get_weight(self._vw, index & self._mask, 0))

    # -- contextual bandits with action features (cb_explore_adf) -----------------------------

    def predict_actions(self, shared: Namespaces, actions: Sequence[Namespaces]) -> list[float]:
        """The pmf over ``actions``, in their order, as VW gives it (float32 sums).

        Raises:
            InputError: a feature is not finite, or there is no action.
            DecisionError: VW's answer is not a pmf.
        """
        examples = self._guard(lambda: self._fill_all(shared, actions, None, ""))
        self._guard(lambda: pylibvw.vw.predict_multi(self._vw, examples))
        pmf = [float(p) for p in examples[0].get_prediction(self._prediction_type)]
        if len(pmf) != len(actions) or not abs(math.fsum(pmf) - 1.0) < 1e-3 or min(pmf) < 0.0:
            raise DecisionError(f"Vowpal Wabbit returned no valid pmf: {pmf}")
        return pmf

    def learn_actions(
        self,
        shared: Namespaces,
        actions: Sequence[Namespaces],
        chosen: int,
        cost: float,
        probability: float,
    ) -> None:
        """Learn the cost of the chosen action, drawn with ``probability`` in (0, 1].

        Raises:
            InputError: a number is not finite, ``probability`` is outside (0, 1] (a probability
                of 0 would freeze an mtr learner for good), or ``chosen`` is no action.
        """
        _check_numbers(cost=cost, probability=probability)
        if not 0.0 < probability <= 1.0:
            raise InputError(f"propensity {probability!r} must be above 0 and at most 1")
        if not 0 <= chosen < len(actions):
            raise InputError(f"chosen action {chosen} is not one of {len(actions)} actions")
        label = f"0:{cost:.9g}:{probability:.9g}"
        examples = self._guard(lambda: self._fill_all(shared, actions, chosen, label))
        self._guard(lambda: pylibvw.vw.learn_multi(self._vw, examples))

    # -- state ----------------------------------------------------------------------------------

    def save(self) -> bytes:
        """The whole state. Equal state gives equal bytes.

        Raises:
            SnapshotError: VW wrote nothing (disk full, no temporary directory).
        """
        with tempfile.TemporaryDirectory(prefix="bandit-router-vw-") as folder:
            path = Path(folder, "model.vw")
            pylibvw.vw.save(self._vw, str(path))
            try:
                model = path.read_bytes()
            except OSError as error:
                raise SnapshotError(f"Vowpal Wabbit saved no model: {error}") from error
        _header_of_model(model)
        return _MAGIC + struct.pack("<Q", len(model)) + hashlib.sha256(model).digest() + model

    def load(self, state: bytes) -> None:
        """Replace the state by one :meth:`save` gave for the same arguments.

        Raises:
            SnapshotError: the bytes are truncated, damaged, or of a workspace with other options.
                VW has seen none of them then.
        """
        model = _model(state)
        if _header_of_model(model) != self._header:
            raise SnapshotError(
                "this Vowpal Wabbit model was saved with other options or version",
                reason="bad_option",
            )
        _check_weights(
            model[self._fixed_bytes :],
            short=len(model) < self._fixed_bytes,
            per_weight=_floats_per_weight(self._arguments),
            bits=self._header[1],
        )
        self._open(model)

    def _open(self, model: bytes | None) -> None:
        with tempfile.TemporaryDirectory(prefix="bandit-router-vw-") as folder:
            arguments = list(self._arguments)
            if model is not None:
                path = Path(folder, "model.vw")
                path.write_bytes(model)
                arguments += ["--initial_regressor", str(path)]
            try:
                self._vw = Workspace(arg_list=arguments)
            except RuntimeError as error:
                wrong = ConfigError if model is None else SnapshotError
                raise wrong(f"Vowpal Wabbit refused {self._arguments}: {error}") from error
        self._prediction_type = self._vw.get_prediction_type()
        self._open_pools()

    # -- examples -------------------------------------------------------------------------------
    # Setting an empty label leaves the old one, and a cb label is appended to the old one. So an
    # example that was ever labelled is never predicted with, and cb labels go on fresh examples.

    def _open_pools(self) -> None:
        self._unlabelled: list[Example] = []
        self._labelled = Example(self._vw)
        self._shared = Example(self._vw)
        if "--cb_explore_adf" in self._arguments:
            self._shared.set_label_string("shared")

    def _fill(self, example: Example, namespaces: Namespaces) -> Example:
        """Empty ``example`` and fill it anew; a label, if any, must be set before."""
        while pylibvw.example.pop_namespace(example):
            pass
        for letter, features in namespaces.items():
            code = ord(letter)
            pylibvw.example.push_namespace(example, code)
            example.push_feature_list(self._vw, code, 0, features)
        self._vw.setup_example(example)
        return example

    def _plain(self, slot: int, namespaces: Namespaces) -> Example:
        while len(self._unlabelled) <= slot:
            self._unlabelled.append(Example(self._vw))
        return self._fill(self._unlabelled[slot], namespaces)

    def _fill_all(
        self, shared: Namespaces, actions: Sequence[Namespaces], chosen: int | None, label: str
    ) -> list[Example]:
        if not actions:
            raise InputError("a decision needs at least one action")
        for namespaces in (shared, *actions):
            _check_values(namespaces)
        examples = [self._fill(self._shared, shared)]
        for index, namespaces in enumerate(actions):
            if index == chosen:
                labelled = Example(self._vw)
                labelled.set_label_string(label)
                examples.append(self._fill(labelled, namespaces))
            else:
                examples.append(self._plain(index, namespaces))
        return examples

    def _guard(self, call: Callable[[], T]) -> T:
        try:
            return call()
        except RuntimeError as error:
            self._open_pools()
            raise DecisionError(f"Vowpal Wabbit failed: {error}") from error


def _check_arguments(arguments: Sequence[str]) -> None:
    for token in arguments:
        if token.startswith("--"):
            if token not in ALLOWED_OPTIONS:
                raise ConfigError(f"Vowpal Wabbit option {token!r} is not on the allow-list")
        elif not _VALUE.match(token):
            raise ConfigError(f"Vowpal Wabbit option value {token!r} must match [a-z0-9_.+-]")


def _check_values(namespaces: Namespaces) -> None:
    total = 0.0
    for features in namespaces.values():
        for _, value in features:
            total += abs(value)
    if not total <= _L1_LIMIT:
        raise InputError(f"features must be finite, with an L1 norm of at most {_L1_LIMIT:g}")


def _check_numbers(**numbers: float) -> None:
    for name, value in numbers.items():
        if not abs(value) <= _L1_LIMIT:
            raise InputError(f"{name} {value!r} must be finite and within +-{_L1_LIMIT:g}")


def _model(state: bytes) -> bytes:
    """The model file's bytes from :meth:`VowpalWorkspace.save`'s envelope, verified."""
    start = len(_MAGIC) + 8 + 32
    if state[: len(_MAGIC)] != _MAGIC or len(state) < start:
        raise SnapshotError("not a saved Vowpal Wabbit state")
    (length,) = struct.unpack_from("<Q", state, len(_MAGIC))
    model = state[start:]
    if length != len(model) or hashlib.sha256(model).digest() != state[start - 32 : start]:
        raise SnapshotError("a saved Vowpal Wabbit state is truncated or damaged")
    return model


def _floats_per_weight(arguments: Sequence[str]) -> int:
    """How many numbers VW keeps of each weight: itself, and what its step size needs."""
    if "--coin" in arguments:
        return 6
    if "--ftrl" in arguments:
        return 3
    named = sum(option in arguments for option in ("--adaptive", "--normalized", "--invariant"))
    if named == 0:
        return 3  # all three are on
    return 1 + ("--adaptive" in arguments) + ("--normalized" in arguments)


def _check_weights(data: bytes, *, short: bool, per_weight: int, bits: int) -> None:
    """Raise SnapshotError unless ``data`` is what VW writes: (index, numbers), ascending."""
    record = np.dtype([("index", "<u4"), ("numbers", "<f4", (per_weight,))])
    if short or len(data) % record.itemsize:
        raise SnapshotError("a Vowpal Wabbit model is cut off or padded", reason="truncated")
    found = np.frombuffer(data, record)
    index = found["index"].astype(np.int64)
    if index.size and not (index[-1] < 1 << bits and (np.diff(index) > 0).all()):
        raise SnapshotError("a Vowpal Wabbit model's weights are out of order or out of range")
    if not np.isfinite(found["numbers"]).all():
        raise SnapshotError("a Vowpal Wabbit model holds a weight that is not finite")


def _header_of_model(model: bytes) -> tuple[str, int, str]:
    """(version, bit precision, options) of a binary VW model file.

    Layout (``save_load_header`` of VW 9): version and model id as length-prefixed C strings,
    ``m``, min and max label (float32), bit precision, lda, ngram count, skip count (uint32),
    options as a length-prefixed C string.
    """
    try:
        version, at = _c_string(model, 0)
        name, at = _c_string(model, at)
        kind, low, high, bits, lda, ngrams, skips = struct.unpack_from("<cffIIII", model, at)
        options, _ = _c_string(model, at + struct.calcsize("<cffIIII"))
    except (struct.error, UnicodeDecodeError, ValueError) as error:
        raise SnapshotError(f"not a Vowpal Wabbit model file: {error}") from error
    usual = kind == b"m" and not name and math.isfinite(low) and math.isfinite(high)
    if not usual or lda or ngrams or skips:
        raise SnapshotError("not a Vowpal Wabbit model file of a kind this package writes")
    return version, bits, options


def _c_string(data: bytes, at: int) -> tuple[str, int]:
    (length,) = struct.unpack_from("<I", data, at)
    text = data[at + 4 : at + 4 + length]
    if len(text) != length or not text.endswith(b"\0"):
        raise ValueError("a string in its header is cut off")
    return text[:-1].decode("ascii"), at + 4 + length
