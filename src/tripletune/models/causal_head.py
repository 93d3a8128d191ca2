"""Logits or a loss from hidden states: the `forward` of a network with a language-model head."""

from __future__ import annotations

from typing import Any

from torch import Tensor
from transformers.cache_utils import Cache
from transformers.modeling_outputs import CausalLMOutputWithPast

from tripletune.models.loss import compute_causal_loss, find_labelled

__all__ = ["CausalHead"]


class CausalHead:
    """Adds `forward` to a model that has a base model, `transformer`, and output embeddings."""

    transformer: Any

    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Any = None,
        position_ids: Tensor | None = None,
        past_key_values: Cache | None = None,
        inputs_embeds: Tensor | None = None,
        labels: Tensor | None = None,
        use_cache: bool | None = None,
        logits_to_keep: int | Tensor | None = None,
        num_items_in_batch: int | Tensor | None = None,
        num_labels: int | None = None,
        output_hidden_states: bool | None = None,
        output_attentions: bool | None = None,
        return_dict: bool | None = None,
        **kwargs: Any,
    ) -> CausalLMOutputWithPast | tuple[Any, ...]:
        """Logits (B, S, V), or the loss when `labels` are given.

        Args:
            input_ids: See the base model's `forward`, as for the arguments not listed here.
            attention_mask: See there.
            position_ids: See there.
            past_key_values: See there.
            inputs_embeds: See there.
            labels: (B, S) token ids, -100 where nothing is to be learnt; shifted inside. With
                labels, logits are made for labelled positions only and not returned, unless
                `logits_to_keep` is given.
            use_cache: See there.
            logits_to_keep: Number of last positions (0: all) or their indices.
            num_items_in_batch: Divide the summed loss by this, not by the labels counted here.
            num_labels: How many labels there are, where that is known beforehand.
            output_hidden_states: See there.
            output_attentions: See there.
            return_dict: False for a plain tuple.
            **kwargs: Passed to the attention implementation.
        """
        only_loss = labels is not None and logits_to_keep is None and not output_hidden_states
        labelled = None if labels is None else find_labelled(labels, num_labels)
        outputs = self.transformer(
            input_ids=input_ids,
            attention_mask=attention_mask,
            position_ids=position_ids,
            past_key_values=past_key_values,
            inputs_embeds=inputs_embeds,
            use_cache=use_cache,
            output_hidden_states=output_hidden_states,
            output_attentions=output_attentions,
            kept_tokens=labelled.places if labelled is not None and only_loss else None,
            **kwargs,
        )
        hidden_states = outputs.last_hidden_state
        head = self.get_output_embeddings()  # type: ignore[attr-defined]
        loss, logits = None, None
        if labelled is not None:
            loss = compute_causal_loss(
                hidden_states, head, labelled, num_items_in_batch=num_items_in_batch
            )
        if labels is None or logits_to_keep is not None:
            kept: Any = logits_to_keep
            if not isinstance(kept, Tensor):
                kept = slice(-kept, None) if kept else slice(None)
            logits = head(hidden_states[:, kept])
        result = CausalLMOutputWithPast(
            loss=loss,
            logits=logits,
            past_key_values=outputs.past_key_values,
            hidden_states=outputs.hidden_states,
            attentions=outputs.attentions,
        )
        return result.to_tuple() if return_dict is False else result
