"""Peak memory of training, evaluating and generating on a GPU, in bytes, part by part.

What a block saves for its backward pass, bytes a token in half precision (E residual, Q queries, K
keys, M the MLP's first product, D its last product's input):

| part | eager | compiled |
| --- | --- | --- |
| queries, keys, values, output | 4 Q + 4 K | the same |
| MLP | 2 M; gated 2 M + 2 D | 2 M, the rest is computed again |
| norms | 2 E each; RMS norms 4 E (fp32) | 2 E each, and 2 E for the stream |
| an adapted layer of input I | 2 I, and I for the dropout mask | the same; nothing for the first |

Compiled, with the dropout inside the product (from `LEAST_WIDTH`) or none, adapters save only their
inputs in the MLP, each once: those in attention are saved anyway.

A checkpointed block saves its input alone, 2 E. Frozen weights are dequantised for each product and
never saved. Beside what is saved lives one of: a chunk of logits, which its gradient takes the
place of; the gradients inside a block and one dequantised weight.

The table was checked against the tensors that autograd saves, and those that the compiler's
partitioner chooses, of one block of each kind.
"""

from __future__ import annotations

from dataclasses import dataclass

from tripletune.extraction.slot_memory import MOST_PROMPT_TOKENS, round_places
from tripletune.training.dropped_product import LEAST_WIDTH
from tripletune.training.network_size import NetworkSize

__all__ = [
    "OPTIMIZER_BYTES",
    "Moment",
    "Policy",
    "Row",
    "predict_evaluation",
    "predict_generation",
    "predict_training",
    "saved_bytes",
]

_HALF = 2
_HEAD_CHUNK = 1024
_WORKSPACE = 64 << 20
"""Of the matrix libraries: 32 MiB on Hopper for each thread that computes, less elsewhere."""
_IN_FLIGHT = 3
OPTIMIZER_BYTES = 8
"""Of Adam, for a parameter."""
_PARAMETER, _GRADIENT = 4, 4


@dataclass(frozen=True, slots=True)
class Row:
    """What one micro-batch holds.

    Attributes:
        tokens: Padding included.
        labelled: Tokens that are learnt from.
    """

    tokens: int
    labelled: int


@dataclass(frozen=True, slots=True)
class Policy:
    """How activations are kept and blocks are run.

    Attributes:
        checkpointed: How many blocks, from the first, compute their activations again.
        compiled: Whether blocks are compiled.
        offload: Whether what checkpointed blocks save waits in host memory.
        dropout: On the adapters' inputs.
    """

    checkpointed: int
    compiled: bool
    offload: bool = False
    dropout: bool = True


@dataclass(frozen=True, slots=True)
class Moment:
    """The fullest moment of something, part by part, in bytes.

    Attributes:
        weights: The network.
        adapter: LoRA with its gradients and its optimizer's state.
        kept: Activations saved, or keys and values.
        passing: What lives only then: logits, gradients, a dequantised weight, workspaces.
    """

    weights: int
    adapter: int
    kept: int
    passing: int

    @property
    def total(self) -> int:
        """The sum: the peak."""
        return self.weights + self.adapter + self.kept + self.passing

    def scaled(self, factor: float) -> Moment:
        """The same with that many times the activations and what passes."""
        kept, passing = int(factor * self.kept), int(factor * self.passing)
        return Moment(self.weights, self.adapter, kept, passing)


def saved_bytes(size: NetworkSize, policy: Policy) -> tuple[int, int]:
    """What a block saves a token, before its MLP and from there on (see the module's table)."""
    count, plain = size.norms
    attention = 4 * size.query_width + 4 * size.key_width + 4 * size.heads
    mlp = _HALF * size.mlp_in
    if size.head_norms:
        attention += (2 if policy.compiled else 4) * (size.query_width + size.key_width)
    adapters = _adapter_bytes(size, policy)
    if policy.compiled:
        return attention + 4 * size.width + adapters, mlp + _HALF * size.width * (count - 1)
    norm = (2 if plain else 4) * size.width
    if size.is_gated:
        mlp += _HALF * size.mlp_out
    return attention + norm + adapters, mlp + norm * (count - 1)


def _adapter_bytes(size: NetworkSize, policy: Policy) -> int:
    """What a block's adapters save a token beside what the rest of it saves."""
    each = _HALF + (1 if policy.dropout else 0)
    if not policy.compiled:
        return sum(each * width for width in size.adapted_widths)
    if policy.dropout:
        apart = sum(each * width for width in size.adapted_widths[1:] if width < LEAST_WIDTH)
        inside = [width for width in size.adapted_mlp_inputs if width >= LEAST_WIDTH]
    else:
        apart, inside = 0, list(size.adapted_mlp_inputs)
    return apart + _HALF * sum(inside)


def predict_training(size: NetworkSize, row: Row, policy: Policy) -> Moment:
    """The fullest moment of a micro-batch's forward and backward pass."""
    tokens, depth = row.tokens, policy.checkpointed
    before, after = saved_bytes(size, policy)
    block = (before + after) * tokens
    ends = row.labelled if size.is_native else tokens
    last = before * tokens + after * ends
    entry = _HALF * size.width * tokens
    shallow = min(depth, _IN_FLIGHT) if policy.offload else depth
    inputs = shallow * entry
    plain = size.layers - depth  # blocks that save everything, the last ones
    kept = inputs + (block * (plain - 1) + last if plain else 0)
    moments = [
        (kept, _head_bytes(size, row.labelled)),
        (kept + (0 if plain else last), _gradient_bytes(size, tokens, ends)),
    ]
    if plain > 1:
        moments.append((kept - last, _gradient_bytes(size, tokens, tokens)))
    if depth > (0 if plain else 1):
        moments.append((inputs + block, _gradient_bytes(size, tokens, tokens)))
    tables = 8 * (size.query_width // size.heads) * tokens
    kept, passing = max(moments, key=sum)
    each = _PARAMETER + OPTIMIZER_BYTES + _GRADIENT + _HALF
    return Moment(
        size.weight_bytes, each * size.trainable, kept, passing + tables + entry + _WORKSPACE
    )


def predict_evaluation(size: NetworkSize, row: Row) -> Moment:
    """The fullest moment of the loss of one evaluation batch."""
    passing = _forward_bytes(size) * row.tokens + _weight(size)
    head = _head_bytes(size, row.labelled) + _HALF * size.width * row.tokens
    return Moment(size.weight_bytes, _idle_adapter(size), 0, max(passing, head) + _WORKSPACE)


def predict_generation(
    size: NetworkSize, *, batch: int, sentences: int, prompt: int, answer: int
) -> Moment:
    """The fullest moment of extracting from sentences.

    Args:
        size: Of the network.
        batch: Sentences computed together.
        sentences: How many there are in all.
        prompt: Tokens of the longest prompt.
        answer: Tokens of the longest answer.
    """
    slots = max(1, min(batch, sentences))
    at_once = min(slots, max(1, MOST_PROMPT_TOKENS // max(prompt, 1))) * prompt
    cache = size.cache_bytes * slots * round_places(prompt + answer)
    # A rotation of two rows is written out in fp32.
    rotation = 4 * size.width + 2 * (size.query_width + 2 * size.key_width) + 18 * size.query_width
    each = max(_forward_bytes(size), rotation if size.rotates_apart else 0)
    reading = each * at_once + _weight(size)
    logits = 10 * slots * size.vocabulary
    # Later prompts are read beside a step's logits, the first ones before there are any.
    passing = reading + logits if sentences > slots else max(reading, logits)
    return Moment(size.weight_bytes, _idle_adapter(size), cache, passing + _WORKSPACE)


def _idle_adapter(size: NetworkSize) -> int:
    return (_PARAMETER + OPTIMIZER_BYTES) * size.trainable


def _weight(size: NetworkSize) -> int:
    return _HALF * size.largest_weight


def _head_bytes(size: NetworkSize, labelled: int) -> int:
    """A chunk's logits, and the states and gradients of all labelled tokens."""
    chunk = min(labelled, _HEAD_CHUNK)
    return _HALF * chunk * size.vocabulary + 3 * _HALF * size.width * labelled


def _gradient_bytes(size: NetworkSize, tokens: int, ends: int) -> int:
    """What the backward pass of a block holds beside what was saved, its MLP over `ends` tokens."""
    stream = _HALF * size.width
    mlp = ends * (stream + _HALF * size.mlp_in)
    projections = _HALF * (size.query_width + 2 * size.key_width)
    attention = tokens * (stream + 2 * projections + _HALF * size.query_width)
    return max(
        mlp + ends * _HALF * size.mlp_in,
        mlp + _weight(size),
        attention,
        tokens * (stream + projections) + _weight(size),
    )


def _forward_bytes(size: NetworkSize) -> int:
    """What the forward pass of a block holds a token, without gradients."""
    projections = _HALF * (size.query_width + 2 * size.key_width)
    return 2 * _HALF * size.width + max(2 * _HALF * size.mlp_in, 3 * projections)
