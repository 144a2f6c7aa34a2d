"""One agent's language model: it answers conversations and scores answers.

A policy has a network, a tokenizer and the name of its adapter in the network; several policies may share one network
and differ by their adapters alone, or share the adapter, too.
"""

from __future__ import annotations

import contextlib
import hashlib
import logging
import re
from collections.abc import Callable, Iterator
from collections.abc import Sequence as Seq
from pathlib import Path

import torch
from peft import PeftModel
from torch.nn import Parameter
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from textmarl.agents.adapters import AdapterBank
from textmarl.agents.answering import answer
from textmarl.agents.captured import why_unrecorded
from textmarl.agents.conversation import Conversation, NoRoomError, Response, without_thinking
from textmarl.agents.models import no_progress_bars
from textmarl.agents.prefix import why_plain
from textmarl.agents.sampling import Sampling
from textmarl.agents.scoring import Scores, score_plain, score_shared

logger = logging.getLogger(__name__)


class Policy:
    """A language model that plays one agent.

    Args:
        name: The agent's name.
        network: A causal language model, or a peft model with the adapter ``parameter_set``.
        tokenizer: The network's tokenizer; a chat template is used if it has one.
        reference: The policy that KL is measured to where the network has no adapter to switch off: a frozen copy.
        chat_template_kwargs: Passed to the chat template.
        thinking: ``"strip"`` removes everything up to ``</think>`` from the text that the environment gets.
        parameter_set: The name of what it trains; policies of one network and one name here are the same function.
            Default: the agent's own.
        capture_decoding: On a GPU, record decoding steps and repeat them (:mod:`textmarl.agents.captured`).
    """

    def __init__(
        self,
        name: str,
        network: PreTrainedModel | PeftModel,
        tokenizer: PreTrainedTokenizerBase,
        reference: PreTrainedModel | None = None,
        chat_template_kwargs: dict | None = None,
        thinking: str = "keep",
        parameter_set: str | None = None,
        capture_decoding: bool = True,
    ):
        self.name = name
        self.parameter_set = name if parameter_set is None else parameter_set
        self.network = network
        self.tokenizer = tokenizer
        self.reference = reference
        self.chat_template_kwargs = chat_template_kwargs or {}
        self.thinking = thinking
        self.model: PreTrainedModel = network.get_base_model() if isinstance(network, PeftModel) else network
        self.stop_ids = stop_token_ids(self.model, tokenizer)
        self.why_plain = why_plain(self.model)
        self.shares_prompts = not self.why_plain
        captures = capture_decoding and self.shares_prompts and self.device.type == "cuda"
        self.why_unrecorded = why_unrecorded(self.model) if captures else ""
        self.captures_decoding = captures and not self.why_unrecorded
        self._adapted = False
        if reference is not None:
            why_plain(reference)

    @property
    def device(self) -> torch.device:
        """Where the network is."""
        return self.model.device

    @property
    def has_adapter(self) -> bool:
        """Whether the policy trains an adapter on a frozen base (else its full weights)."""
        return isinstance(self.network, PeftModel)

    @property
    def path(self) -> str:
        """How it writes and learns, in words: on the fast path (docs/engine.md), or why not."""
        if self.shares_prompts:
            recorded = "; decoding steps recorded" if self.captures_decoding else ""
            if self.why_unrecorded:
                recorded = f"; decoding steps not recorded, for {self.why_unrecorded}"
            return f"prompts shared, in generation and in the update{recorded}"
        return f"generated and scored by the library's plain path, for {self.why_plain}"

    @property
    def is_adapted(self) -> bool:
        """Whether the network computes with this policy's adapter now (:meth:`adapted`)."""
        return self._adapted

    def parameters(self) -> dict[str, Parameter]:
        """Return what this policy trains, by name: its adapter, or every weight."""
        if not self.has_adapter:
            return dict(self.model.named_parameters())
        own = re.compile(rf"\.lora_\w+\.{re.escape(self.parameter_set)}(\.|$)")
        return {name: p for name, p in self.model.named_parameters() if own.search(name)}

    def digest(self) -> str:
        """Return hexadecimal digits that tell this policy's weights from others.

        Read are all numbers that it trains, and of each tensor of a frozen base the first thousand, which differ
        between models and are read at once however large they are. Adapters of other agents do not count.
        """
        trained = self.parameters()
        read = hashlib.sha256()
        for name, weight in self.model.named_parameters():
            if name not in trained and ".lora_" in name:
                continue
            numbers = weight.detach().flatten()
            numbers = numbers if name in trained else numbers[:1000]
            read.update(f"{name} {tuple(weight.shape)} {weight.dtype}\n".encode())
            read.update(numbers.float().cpu().numpy().tobytes())
        return read.hexdigest()[:16]

    def save_adapter(self, folder: str | Path) -> None:
        """Write this policy's adapter to ``folder/<parameter_set>``, an ordinary peft folder."""
        with no_progress_bars():
            self.network.save_pretrained(folder, selected_adapters=[self.parameter_set])
        (Path(folder) / self.parameter_set / "README.md").unlink(missing_ok=True)  # peft's blank form

    def encode(self, conversation: Conversation) -> list[int]:
        """Turn a conversation into the token ids that ask for the next answer.

        With a chat template: the template, generation prompt added. Without: the messages' texts, separated by blank
        lines, and a blank line to answer after. Lone surrogates become U+FFFD, which every tokenizer can read.
        """
        messages = [{**message, "content": readable(message["content"])} for message in conversation]
        if self.tokenizer.chat_template is not None:
            ids = self.tokenizer.apply_chat_template(
                messages,
                add_generation_prompt=True,
                tokenize=True,
                return_dict=True,
                **self.chat_template_kwargs,
            )["input_ids"]
        else:
            ids = self.tokenizer("\n\n".join([m["content"] for m in messages] + [""]))["input_ids"]
        if not ids:
            raise ValueError(
                f"agent {self.name!r}: the conversation has no tokens; expected some text to answer"
            )
        return list(ids)

    def generate(
        self,
        conversations: Seq[Conversation],
        sampling: Sampling,
        generator: torch.Generator,
        n: int = 1,
        batch_size: int = 64,
        on_tokens: Callable[[int], None] | None = None,
    ) -> list[list[Response]]:
        """Sample ``n`` responses to each conversation; see :func:`textmarl.agents.answering.answer`.

        Args:
            conversations: C conversations.
            sampling: Temperature, truncation, longest response.
            generator: Where the randomness comes from.
            n: Responses per conversation.
            batch_size: Most responses decoded at once; bounds memory and does not change the result beyond rounding.
            on_tokens: Called with the number of tokens that each decoding step added.

        Returns:
            C lists of n responses.

        Raises:
            NoRoomError: A conversation leaves no room for an answer; nothing was sampled.
        """
        return answer(
            {self.name: self},
            {self.name: conversations},
            sampling,
            {self.name: generator},
            n,
            batch_size,
            on_tokens,
        )[self.name]

    def check_room(self, prompts: list[list[int]], sampling: Sampling) -> None:
        """Refuse prompts that leave no room for an answer in what the model can read.

        Raises:
            NoRoomError: Says how long the longest prompt is, and what to do.
        """
        config = self.model.config.get_text_config()
        reads = config.max_position_embeddings if hasattr(config, "max_position_embeddings") else None
        lengths = [len(prompt) for prompt in prompts]
        longest = max(lengths, default=0)
        if reads is not None and longest + sampling.max_new_tokens > reads:
            raise NoRoomError(
                f"agent {self.name!r}: a conversation of {longest} tokens and an answer of {sampling.max_new_tokens} "
                f"exceed the {reads} tokens that the model reads; shorten the task or sampling.max_new_tokens, or "
                "use a model with a longer context",
                agent=self.name,
                place=lengths.index(longest),
            )

    def text(self, token_ids: list[int], prompt_ids: Seq[int] = ()) -> str:
        """Return the text of a response: special tokens left out, and thinking where it is to be stripped.

        Thinking that was cut at the token limit leaves no answer: an empty text. It has begun where the response says
        ``<think>``, or where the prompt's template ends with it.
        """
        text = self.tokenizer.decode(token_ids, skip_special_tokens=True)
        if self.thinking == "keep":
            return text
        begun = self.tokenizer.decode(list(prompt_ids[-8:])).rstrip().endswith("<think>")
        return without_thinking(text, begun)

    def score(
        self,
        prompts: list[list[int]],
        responses: list[list[list[int]]],
        sampling: Sampling,
        states: bool = False,
    ) -> Scores:
        """Score responses under the current policy, with gradients for its own parameters.

        Args:
            prompts: U prompts as token ids.
            responses: For each prompt the token ids of its responses.
            sampling: The distribution that sampled them.
            states: Return the hidden states as well.
        """
        score = score_shared if self.shares_prompts else score_plain
        with self.adapted():
            return score(self.model, prompts, responses, sampling, states)

    @torch.no_grad()
    def score_reference(
        self, prompts: list[list[int]], responses: list[list[list[int]]], sampling: Sampling
    ) -> Scores:
        """Score responses under the reference policy: the base without adapter, or the frozen copy.

        Raises:
            ValueError: The policy has full weights and no copy was kept.
        """
        score = score_shared if self.shares_prompts else score_plain
        if self.has_adapter:
            with self.network.disable_adapter():
                return score(self.model, prompts, responses, sampling)
        if self.reference is None:
            raise ValueError(
                f"agent {self.name!r} trains its full weights and has no reference policy; "
                'create the team with reference="copy" to measure KL to the initial weights'
            )
        return score(self.reference, prompts, responses, sampling)

    @contextlib.contextmanager
    def adapted(self) -> Iterator[None]:
        """Within this context the network computes with this policy's adapter (:mod:`textmarl.agents.adapters`).

        Entered again inside itself it does nothing, so an update enters it once for all its passes.
        """
        if not self.has_adapter or self._adapted:
            yield
            return
        self.network.set_adapter(self.parameter_set)
        self._adapted = True
        try:
            with AdapterBank(self.model, [self.parameter_set]):
                yield
        finally:
            self._adapted = False


def stop_token_ids(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> frozenset[int]:
    """Return the tokens that end a response: the tokenizer's and those of the model's generation settings."""
    declared = model.generation_config.eos_token_id if model.generation_config is not None else None
    several = declared if isinstance(declared, list) else [declared]
    return frozenset(i for i in (*several, tokenizer.eos_token_id) if i is not None)


def readable(text: str) -> str:
    """Replace lone surrogates, which no tokenizer can encode, by U+FFFD."""
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
