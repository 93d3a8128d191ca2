"""The rows of a generation: what they share, the guide of each, and what each has written."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Literal, Protocol, get_args

from torch import Tensor

from tripletune.errors import ConfigError
from tripletune.extraction.choice import Choice, choose_tokens
from tripletune.extraction.sampling import draw_gumbel
from tripletune.extraction.states import TokenArray

__all__ = [
    "Generated",
    "GenerationMethod",
    "GenerationOptions",
    "OnToken",
    "Row",
    "TokenGuide",
    "choose_for_rows",
    "prepare_guides",
]

GenerationMethod = Literal["auto", "batch", "slots"]
OnToken = Callable[[int, int, float], None]


@dataclass(frozen=True, slots=True)
class Generated:
    """What one row wrote.

    Attributes:
        token_ids: The tokens, without the end token.
        log_probabilities: Of each token, and of the end token if there is one; renormalised over
            the allowed tokens where a guide restricts them.
        is_complete: Whether it ended by itself, not by the limit.
    """

    token_ids: tuple[int, ...]
    log_probabilities: tuple[float, ...]
    is_complete: bool


@dataclass(frozen=True, slots=True)
class GenerationOptions:
    """How to generate.

    Attributes:
        end_token_id: The token that ends an answer.
        pad_token_id: What to pad with.
        max_new_tokens: Longest answer, end token included.
        batch_size: Rows computed together; fewer where a GPU has no room for so many.
        method: See the text of `generate`; `auto` takes slots on a GPU, for models that can be fed
            so, when there is more than one prompt.
        use_cuda_graphs: Whether slots on a GPU replay a recorded step.
        bidirectional_prompt: As `BatchReader`.
        room: Bytes of a GPU's memory that generation may take. None: what is free when it begins.

    Raises:
        ConfigError: a limit is below 1, or there is no such method.
    """

    end_token_id: int
    pad_token_id: int
    max_new_tokens: int = 256
    batch_size: int = 16
    method: GenerationMethod = "auto"
    use_cuda_graphs: bool = True
    bidirectional_prompt: bool = False
    room: int | None = None

    def __post_init__(self) -> None:
        if self.batch_size < 1 or self.max_new_tokens < 1:
            raise ConfigError(
                f"batch_size, max_new_tokens: {self.batch_size!r}, {self.max_new_tokens!r}; need "
                "at least 1"
            )
        if self.method not in get_args(GenerationMethod):
            accepted = ", ".join(get_args(GenerationMethod))
            raise ConfigError(f"method: {self.method!r} is none of {accepted}")


class TokenGuide(Protocol):
    """Says, token by token, what a row may write."""

    @property
    def is_finished(self) -> bool:
        """Whether the row ends here, which is asked after every token."""
        ...

    def prepare(self) -> None:
        """Does what can be done before the first token, while the model reads the prompt."""
        ...

    def allowed(self) -> TokenArray | None:
        """The ids that may come next, of which there may be none, which ends the row; None: all.

        The guides of one call all give ids, or all give None.
        """
        ...

    def advance(self, token_id: int) -> None:
        """Takes note of the token that was chosen."""
        ...


@dataclass(slots=True)
class Row:
    """One prompt's answer so far."""

    index: int
    guide: TokenGuide | None
    end_token_id: int
    limit: int
    on_token: OnToken | None
    seed: int | None
    token_ids: list[int] = field(default_factory=list)
    log_probabilities: list[float] = field(default_factory=list)
    num_read: int = 0

    def take(self, token: int, score: float) -> Generated | None:
        """Notes a token (-1: none); the answer when it is finished by it."""
        if token < 0:
            return self.finish(is_complete=True)
        self.log_probabilities.append(score)
        is_end = token == self.end_token_id
        if not is_end:
            self.token_ids.append(token)
            if self.guide is not None:
                self.guide.advance(token)
        if self.on_token is not None:
            self.on_token(self.index, token, score)
        if is_end or (self.guide is not None and self.guide.is_finished):
            return self.finish(is_complete=True)
        if len(self.token_ids) == self.limit:
            return self.finish(is_complete=False)
        return None

    def take_forced(self) -> Generated | None:
        """Notes the tokens that the guide leaves no choice about."""
        while self.guide is not None:
            allowed = self.guide.allowed()
            if allowed is None or len(allowed) > 1:
                return None
            finished = self.take(int(allowed[0]) if len(allowed) else -1, 0.0)
            if finished is not None:
                return finished
        return None

    def finish(self, *, is_complete: bool) -> Generated:
        """The answer as it stands."""
        return Generated(tuple(self.token_ids), tuple(self.log_probabilities), is_complete)


def prepare_guides(rows: Sequence[Row]) -> None:
    """Has guides do what can be done before the first token."""
    for row in rows:
        if row.guide is not None:
            row.guide.prepare()


def choose_for_rows(
    logits: Tensor, rows: Sequence[Row], places: Sequence[int] | None = None
) -> Choice:
    """The next token of each row, from those that its guide allows.

    Args:
        logits: (P, V).
        rows: B rows; guides of all or of none.
        places: Which of the P each row is. None: B is P.
    """
    allowed = [row.guide.allowed() for row in rows if row.guide is not None]
    known = [ids for ids in allowed if ids is not None]
    noise = [
        draw_gumbel(row.seed, len(row.token_ids), ids)
        for row, ids in zip(rows, known, strict=False)
        if row.seed is not None
    ]
    return choose_tokens(logits, known or None, places=places, noise=noise or None)
