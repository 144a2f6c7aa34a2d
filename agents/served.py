"""A team's responses sampled by a server that holds its adapters: vLLM, by its HTTP API.

:meth:`ServedEngine.answer` stands where :func:`textmarl.agents.answering.answer` does. Conversations are encoded here and
sent as token ids; each agent's adapter is written where the server can read it and loaded by ``/load_lora_adapter``;
tokens and their log-probabilities come back from ``/completions``. Scoring and updates never leave this process.

What is asked of the server (vLLM 0.10.2 or later): `--enable-lora`, the environment variable
`VLLM_ALLOW_RUNTIME_LORA_UPDATING`, and `--logprobs-mode processed_logprobs`, because log-probabilities must be those of
the distribution that sampled: after temperature, top_k and top_p (vLLM's default is the one before).
"""

from __future__ import annotations

import functools
import json
import logging
import math
import shutil
import zlib
from collections.abc import Callable, Mapping
from collections.abc import Sequence as Seq
from concurrent.futures import as_completed
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from textmarl.agents.answering import answer, encode
from textmarl.agents.connection import Connection, Fault, ServerError, read_choices
from textmarl.agents.conversation import Conversation, Response
from textmarl.agents.generation import Sequence
from textmarl.agents.policy import Policy
from textmarl.agents.sampling import Sampling

logger = logging.getLogger(__name__)

#: Nats per token (`sampling_kl`) beyond which local scoring and the server are no longer told apart by rounding alone.
LARGEST_SAMPLING_KL = 0.05

_LOADED_ALREADY = "already been loaded"
_NOT_THERE = ("cannot be found", "Failed to remove")
#: What the server says, and what to do about it.
_REMEDIES = {
    "max_lora_rank": "start the server with a --max-lora-rank that is large enough, or lower team.lora_rank",
    "LoRA is not enabled": "start the server with --enable-lora",
    "No adapter found": "the server must see trainer.adapter_folder under the same path as this process",
    "does not exist": "the server has lost the adapter (was it started anew?); a resumed run loads it again",
    "max_model_len": "start the server with a --max-model-len that holds the prompt and sampling.max_new_tokens",
    "maximum context length": "start the server with a --max-model-len that holds the prompt and "
    "sampling.max_new_tokens",
    "HTTP 404": "give the address that ends in /v1, and start the server with --enable-lora and the environment "
    "variable VLLM_ALLOW_RUNTIME_LORA_UPDATING=True, without which vLLM has no route to load adapters",
}


@dataclass(frozen=True)
class Published:
    """The version of an adapter that the server holds."""

    name: str
    folder: Path
    weights: dict[str, Tensor]


class ServedEngine:
    """Samples the responses of policies with LoRA adapters on one base, which the server serves.

    Args:
        connection: To the server; its address is the API's base, ``http://localhost:8000/v1``.
        folder: Where adapters are written, this run's own; the server must see it under the same path.
        warn: Told what a person should know.
    """

    def __init__(
        self, connection: Connection, folder: str | Path, warn: Callable[[str], None] = logger.warning
    ):
        self.connection = connection
        self.folder = Path(folder).resolve()
        # Runs that share a server have folders of their own.
        self.prefix = f"{zlib.crc32(str(self.folder).encode()):08x}"
        self.warn = warn
        self.published: dict[str, Published] = {}
        self._warned = False

    def answer(
        self,
        policies: Mapping[str, Policy],
        conversations: Mapping[str, Seq[Conversation]],
        sampling: Sampling,
        generators: Mapping[str, torch.Generator],
        n: int = 1,
        batch_size: int = 64,
        on_tokens: Callable[[int], None] | None = None,
        on_answered: Callable[[str, int, list[Response]], None] = lambda agent, index, responses: None,
    ) -> dict[str, list[list[Response]]]:
        """Sample ``n`` responses to each conversation of each agent; arguments are those of ``answering.answer``.

        A conversation is one request, with a seed from its agent's generator, which is read once per call for
        ``conversations`` numbers: a run repeats where the server answers a seed alike. As many requests are under way
        at once as have ``batch_size`` responses together.

        Raises:
            NoRoomError: A conversation leaves no room for an answer; nothing was sampled.
            ServerError: The server gave no usable answer; the message says what to do.
            ValueError: A policy trains its full weights.
        """
        prompts = encode(policies, conversations, sampling)
        self.load({agent: policies[agent] for agent in prompts})
        self.connection.concurrency = max(1, batch_size // n)
        answers = {}
        for agent, own in prompts.items():
            # vLLM gives the k-th of n responses the seed + k: with 53 bits, seeds of different requests do not meet.
            seeds = torch.randint(2**53, (len(own),), generator=generators[agent]).tolist()
            for place, (prompt, seed) in enumerate(zip(own, seeds, strict=True)):
                name = self.published[policies[agent].parameter_set].name
                task = functools.partial(self._complete, name, policies[agent], prompt, sampling, n, seed)
                answers[self.connection.submit(task)] = agent, place
        responses: dict[str, list[list[Response]]] = {
            agent: [[] for _ in own] for agent, own in prompts.items()
        }
        try:
            for future in as_completed(answers):
                agent, place = answers[future]
                prompt = prompts[agent][place]
                responses[agent][place] = [
                    Response(
                        text=policies[agent].text(each.token_ids, prompt),
                        token_ids=each.token_ids,
                        logprobs=each.logprobs,
                        finish=each.finish,
                        prompt_ids=prompt,
                    )
                    for each in future.result()
                ]
                if on_tokens is not None:
                    on_tokens(sum(each.tokens for each in responses[agent][place]))
                on_answered(agent, place, responses[agent][place])
        except BaseException:
            for future in answers:
                future.cancel()
            raise
        return responses

    def load(self, policies: Mapping[str, Policy]) -> None:
        """Bring the server's adapters up to date; one whose weights are those that it holds is left alone.

        Every version has a name of its own: what a server keeps of a former one (prefix caches) is never taken for
        the new one's.

        Raises:
            ServerError: An adapter cannot be loaded; the message says what to do.
            ValueError: A policy trains its full weights.
        """
        if not self.published:  # what a process that was killed has left
            for old in self.folder.glob(f"{self.prefix}-*"):
                shutil.rmtree(old, ignore_errors=True)
        for agent, policy in policies.items():
            if not policy.has_adapter:
                raise ValueError(
                    f"agent {agent!r} trains its full weights, and a server takes adapters only; use "
                    'team.tuning="lora", or sample in this process (no trainer.generation_server)'
                )
            weights = {name: weight.detach() for name, weight in policy.parameters().items()}
            own = policy.parameter_set
            before = self.published.get(own)
            if before is not None and all(
                torch.equal(weights[name], w) for name, w in before.weights.items()
            ):
                continue
            self._unload(own)
            name = f"{self.prefix}-{own}-{policy.digest()}"
            folder = self.folder / name
            policy.save_adapter(folder)
            try:
                self._ask("load_lora_adapter", {"lora_name": name, "lora_path": str(folder / own)}, bytes)
            except ServerError as error:
                if _LOADED_ALREADY not in str(error):  # by an attempt whose answer was lost
                    raise
            kept = {part: weight.clone() for part, weight in weights.items()}
            self.published[own] = Published(name, folder, kept)

    def close(self) -> None:
        """Take the adapters off the server and their files off the disk; a server that is gone is no error."""
        for own in list(self.published):
            try:
                self._unload(own)
            except ServerError as error:
                self.warn(f"the adapter {own!r} may still be on the server: {error}")
        if self.folder.is_dir() and not any(self.folder.iterdir()):
            self.folder.rmdir()

    def watch(self, metrics: Mapping[str, float]) -> None:
        """Warn, once, if local scoring is far from what the server sampled from.

        Args:
            metrics: A step's, among them ``sampling_kl/<agent>`` in nats per token.
        """
        measured = {name: value for name, value in metrics.items() if name.startswith("sampling_kl/")}
        name, sampling_kl = max(measured.items(), key=lambda item: item[1], default=("", 0.0))
        if sampling_kl <= LARGEST_SAMPLING_KL or self._warned:
            return
        self._warned = True
        self.warn(
            f"the server's distribution is far from this process's ({name} {sampling_kl:.3f} nats per "
            "token; rounding gives 0.01 or less): gradients are biased. Start the server with --logprobs-mode "
            "processed_logprobs, with the same base model, and with team.dtype as its --dtype"
        )

    # ------------------------------------------------------------------------------------------- inside

    def _complete(
        self, name: str, policy: Policy, prompt: list[int], sampling: Sampling, n: int, seed: int
    ) -> list[Sequence]:
        fields = {
            "model": name,
            "prompt": prompt,
            "n": n,
            "seed": seed,
            "max_tokens": sampling.max_new_tokens,
            "temperature": sampling.temperature,
            "top_p": sampling.top_p,
            "top_k": sampling.top_k or -1,
            # What is not sent comes from the model's generation settings.
            "min_p": 0.0,
            "repetition_penalty": 1.0,
            "presence_penalty": 0.0,
            "frequency_penalty": 0.0,
            # Exactly the policy's own tokens end a response, and they are part of it.
            "ignore_eos": True,
            "stop_token_ids": sorted(policy.stop_ids),
            "include_stop_str_in_output": True,
            "logprobs": 0,
            "return_token_ids": True,
        }
        vocabulary = policy.model.get_input_embeddings().weight.shape[0]
        read = functools.partial(read_sequences, prompt, sampling, n, policy.stop_ids, vocabulary)
        return self._ask("completions", fields, read)

    def _unload(self, parameter_set: str) -> None:
        before = self.published.pop(parameter_set, None)
        if before is None:
            return
        try:
            self._ask("unload_lora_adapter", {"lora_name": before.name}, bytes)
        except ServerError as error:
            if not any(words in str(error) for words in _NOT_THERE):
                raise
            logger.info("%s had been removed before: %s", before.name, error)
        shutil.rmtree(before.folder, ignore_errors=True)

    def _ask(self, route: str, fields: dict[str, Any], read: Callable[[bytes], Any]) -> Any:
        address = f"{self.connection.url}/{route}"
        final = (*_REMEDIES, *_NOT_THERE, _LOADED_ALREADY)
        try:
            return self.connection.ask(address, json.dumps(fields).encode("ascii"), read, final)
        except ServerError as error:
            advice = next((advice for words, advice in _REMEDIES.items() if words in str(error)), None)
            raise ServerError(f"{address}: {error}" + (f"; {advice}" if advice else "")) from error


class LocalEngine:
    """Samples in this process, where no adapter is to be brought anywhere."""

    answer = staticmethod(answer)

    def load(self, policies: Mapping[str, Policy]) -> None:
        """Do nothing: the policies are here."""

    def watch(self, metrics: Mapping[str, float]) -> None:
        """Do nothing: sampling and scoring are of one model."""

    def close(self) -> None:
        """Do nothing."""


def make_engine(
    server: str | None, adapter_folder: str | None, run: Path, warn: Callable[[str], None]
) -> LocalEngine | ServedEngine:
    """Return what samples a run's responses.

    Args:
        server: The address of the server's API; None samples in this process.
        adapter_folder: Where adapters are written, which several runs may share; None: inside the run.
        run: The run directory.
        warn: Told what a person should know.
    """
    if server is None:
        return LocalEngine()
    folder = run / "served_adapters"
    if adapter_folder is not None:
        folder = Path(adapter_folder) / f"{run.name}-{zlib.crc32(str(run.resolve()).encode()):08x}"
    return ServedEngine(Connection(server), folder, warn)


def read_sequences(
    prompt: list[int],
    sampling: Sampling,
    n: int,
    stop_ids: frozenset[int],
    vocabulary: int,
    body: bytes,
) -> list[Sequence]:
    """Read the ``n`` responses of a completion.

    Raises:
        Fault: The body is no completion, or not what was asked for.
    """
    _, choices = read_choices(body)
    by_index = {choice.get("index"): choice for choice in choices}
    if len(choices) != n or by_index.keys() != set(range(n)):
        raise Fault(f"asked for {n} responses, got {len(choices)} numbered {list(by_index)}", retry=False)
    return [read_sequence(prompt, sampling, stop_ids, vocabulary, by_index[index]) for index in range(n)]


def read_sequence(
    prompt: list[int], sampling: Sampling, stop_ids: frozenset[int], vocabulary: int, choice: dict[str, Any]
) -> Sequence:
    """Read one response of a completion.

    Raises:
        Fault: It is not what was asked for; trying again would not help.
    """
    ids, given = choice.get("token_ids"), choice.get("logprobs")
    logprobs = given.get("token_logprobs") if isinstance(given, dict) else None
    if not isinstance(ids, list) or not ids or not isinstance(logprobs, list):
        raise Fault(
            "a response has no token_ids or no logprobs.token_logprobs, which training needs; vLLM 0.10.2 or later "
            "sends them",
            retry=False,
        )
    if len(ids) != len(logprobs) or len(ids) > sampling.max_new_tokens:
        raise Fault(
            f"a response has {len(ids)} tokens and {len(logprobs)} log-probabilities; expected as many of both, at "
            f"most {sampling.max_new_tokens}",
            retry=False,
        )
    if not all(type(i) is int and 0 <= i < vocabulary for i in ids):
        raise Fault(
            f"a response has token ids outside of the {vocabulary} that the model knows; the server must serve the "
            "team's own base model",
            retry=False,
        )
    if not all(type(p) in (int, float) and math.isfinite(p) and p <= 1e-4 for p in logprobs):
        raise Fault(
            "a response has log-probabilities that are none (above 0, or not finite); start the server with "
            "--logprobs-mode processed_logprobs",
            retry=False,
        )
    if choice.get("prompt_token_ids") not in (None, prompt):
        raise Fault(
            "the server has answered another prompt than the one sent (prompt_token_ids)", retry=False
        )
    stopped = ids[-1] in stop_ids
    if any(i in stop_ids for i in ids[:-1]) or not (stopped or len(ids) == sampling.max_new_tokens):
        raise Fault(
            f"a response of {len(ids)} tokens (finish_reason {choice.get('finish_reason')!r}) ends neither at the "
            f"policy's end-of-sequence token nor at sampling.max_new_tokens {sampling.max_new_tokens}; the server's "
            "--max-model-len must hold prompt and response, and nothing else may cut responses short",
            retry=False,
        )
    numbers = [0.0] * len(ids) if sampling.temperature == 0 else [float(p) for p in logprobs]
    return Sequence(ids, numbers, "stop" if stopped else "length")
