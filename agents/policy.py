"""One agent's language model: it answers conversations and scores answers.

A policy has a network, a tokenizer and the name of its adapter in the network; several policies may share one network
and differ by their adapters alone.
"""

from __future__ import annotations

import contextlib
import hashlib
import logging
import re
from collections.abc import Callable, Iterator
from collections.abc import Sequence as Seq

import torch
from peft import PeftModel
from torch.nn import Parameter
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from textmarl.agents import prefix
from textmarl.agents.conversation import Conversation, Response, without_thinking
from textmarl.agents.generation import generate_plain, generate_shared
from textmarl.agents.merged import merge, unmerge
from textmarl.agents.sampling import Sampling
from textmarl.agents.scoring import Scores, score_plain, score_shared

logger = logging.getLogger(__name__)


class Policy:
    """A language model that plays one agent.

    Args:
        name: The agent's name.
        network: A causal language model, or a peft model with an adapter called ``name``.
        tokenizer: The network's tokenizer; a chat template is used if it has one.
        reference: The policy that KL is measured to where the network has no adapter to switch off: a frozen copy.
        chat_template_kwargs: Passed to the chat template.
        thinking: ``"strip"`` removes everything up to ``</think>`` from the text that the environment gets.
    """

    def __init__(
        self,
        name: str,
        network: PreTrainedModel | PeftModel,
        tokenizer: PreTrainedTokenizerBase,
        reference: PreTrainedModel | None = None,
        chat_template_kwargs: dict | None = None,
        thinking: str = "keep",
    ):
        self.name = name
        self.network = network
        self.tokenizer = tokenizer
        self.reference = reference
        self.chat_template_kwargs = chat_template_kwargs or {}
        self.thinking = thinking
        self.model: PreTrainedModel = network.get_base_model() if isinstance(network, PeftModel) else network
        self.stop_ids = stop_token_ids(self.model, tokenizer)
        self.shares_prompts = shares_prompts(self.model)
        self._merged = False
        if reference is not None:
            shares_prompts(reference)

    @property
    def device(self) -> torch.device:
        """Where the network is."""
        return self.model.device

    @property
    def has_adapter(self) -> bool:
        """Whether the policy trains an adapter on a frozen base (else its full weights)."""
        return isinstance(self.network, PeftModel)

    def parameters(self) -> dict[str, Parameter]:
        """Return what this policy trains, by name: its own adapter, or every weight."""
        if not self.has_adapter:
            return dict(self.model.named_parameters())
        own = re.compile(rf"\.lora_\w+\.{re.escape(self.name)}(\.|$)")
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
        """Sample ``n`` responses to each conversation.

        Equal conversations beside each other are encoded once. ``generator`` (on the CPU) is the agent's own random
        stream: it is read once per call, for exactly ``len(conversations) * n * max_new_tokens`` numbers.

        Args:
            conversations: C conversations.
            sampling: Temperature, truncation, longest response.
            generator: Where the randomness comes from.
            n: Responses per conversation.
            batch_size: Most responses decoded at once; bounds memory and does not change the result beyond rounding.
            on_tokens: Called with the number of tokens that each decoding step added.

        Returns:
            C lists of n responses.
        """
        prompts = [self.encode(conversation) for conversation in conversations]
        self.check_room(prompts, sampling)
        uniform = torch.rand(len(prompts) * n, sampling.max_new_tokens, generator=generator)
        sample = generate_shared if self.shares_prompts else generate_plain
        responses: list[Response] = []
        asked = [prompt for prompt in prompts for _ in range(n)]
        with self.merged_weights():
            for start, unique, repeats in runs_of_equal(asked, batch_size):
                rows = slice(start, start + len(unique) * repeats)
                sequences = sample(
                    self.model, unique, repeats, self.stop_ids, sampling, uniform[rows], on_tokens
                )
                for row, sequence in enumerate(sequences):
                    responses.append(
                        Response(
                            text=self.text(sequence.token_ids, unique[row // repeats]),
                            token_ids=sequence.token_ids,
                            logprobs=sequence.logprobs,
                            finish=sequence.finish,
                            prompt_ids=unique[row // repeats],
                        )
                    )
        return [responses[i * n : (i + 1) * n] for i in range(len(prompts))]

    def check_room(self, prompts: list[list[int]], sampling: Sampling) -> None:
        """Refuse prompts that leave no room for an answer in what the model can read.

        Raises:
            ValueError: Says how long the longest prompt is, and what to do.
        """
        config = self.model.config.get_text_config()
        reads = config.max_position_embeddings if hasattr(config, "max_position_embeddings") else None
        longest = max(map(len, prompts), default=0)
        if reads is not None and longest + sampling.max_new_tokens > reads:
            raise ValueError(
                f"agent {self.name!r}: a conversation of {longest} tokens and an answer of {sampling.max_new_tokens} "
                f"exceed the {reads} tokens that the model reads; shorten the task or sampling.max_new_tokens, or "
                "use a model with a longer context"
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

    def score(self, prompts: list[list[int]], responses: list[list[list[int]]], sampling: Sampling) -> Scores:
        """Score responses under the current policy, with gradients for its own parameters.

        Args:
            prompts: U prompts as token ids.
            responses: For each prompt the token ids of its responses.
            sampling: The distribution that sampled them.
        """
        score = score_shared if self.shares_prompts else score_plain
        with self.merged_weights():
            return score(self.model, prompts, responses, sampling)

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
    def merged_weights(self) -> Iterator[None]:
        """Within this context the network computes with the adapter added into its weights.

        One matrix product a layer instead of three, in sampling and in scoring alike, so that both see the same
        numbers; gradients still reach the adapter alone (:class:`textmarl.agents.merged.MergedLinear`). The sum is
        taken in float32 from the adapter's masters and rounded once to the network's precision. The frozen weights
        stay as they are. Entered again inside itself it does nothing, so an update merges once for all its passes.
        """
        if not self.has_adapter or self._merged:
            yield
            return
        self.network.set_adapter(self.name)
        layers = merge(self.model, self.name)
        self._merged = True
        try:
            yield
        finally:
            self._merged = False
            unmerge(layers)


def stop_token_ids(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> frozenset[int]:
    """Return the tokens that end a response: the tokenizer's and those of the model's generation settings."""
    declared = model.generation_config.eos_token_id if model.generation_config is not None else None
    several = declared if isinstance(declared, list) else [declared]
    return frozenset(i for i in (*several, tokenizer.eos_token_id) if i is not None)


def runs_of_equal(prompts: list[list[int]], most: int) -> Iterator[tuple[int, list[list[int]], int]]:
    """Cut prompts into batches of at most ``most`` in which every distinct prompt stands equally often.

    Yields:
        Index of the batch's first prompt, its distinct prompts in order, and how often each stands.
    """
    runs: list[tuple[list[int], int]] = []
    for prompt in prompts:
        if runs and runs[-1][0] == prompt and runs[-1][1] < most:
            runs[-1] = (prompt, runs[-1][1] + 1)
        else:
            runs.append((prompt, 1))
    start = 0
    while runs:
        repeats = runs[0][1]
        count = 1
        while count < len(runs) and runs[count][1] == repeats and (count + 1) * repeats <= most:
            count += 1
        yield start, [prompt for prompt, _ in runs[:count]], repeats
        start += count * repeats
        runs = runs[count:]


def readable(text: str) -> str:
    """Replace lone surrogates, which no tokenizer can encode, by U+FFFD."""
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


@torch.no_grad()
def shares_prompts(model: PreTrainedModel) -> bool:
    """Switch ``model`` to shared prompts if it can, and say whether it can.

    A model that claims to is asked for proof: on a short prompt both paths must give the same logits.
    """
    if not prefix.supported(model):
        return False
    probe = [[i % model.config.get_text_config().vocab_size for i in (5, 3, 7, 2, 6)]]
    ids = torch.tensor(probe, device=model.device)
    expected = model(input_ids=ids, use_cache=False).logits[0, -1].float()
    before = model.config._attn_implementation
    model.set_attn_implementation(prefix.ATTENTION)
    try:
        shared, _ = prefix.SharedPrefix.encode(model, [probe[0][:3]])
        state = shared.extend(model, ids[:, 3:])[0, -1]
        actual = model.get_output_embeddings()(state).float()
        tolerance = 1e-3 if model.dtype in (torch.float32, torch.float64) else 0.1
        close = bool(torch.allclose(actual, expected, atol=tolerance * float(expected.abs().max())))
    except (
        Exception
    ) as error:  # whatever a model's code makes of a foreign cache, it then takes the plain path
        logger.debug("%s cannot share prompts: %r", type(model).__name__, error)
        close = False
    if not close:
        model.set_attn_implementation(before)
    return close
