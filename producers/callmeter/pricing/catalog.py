"""Which entries of a book speak for a provider and a model.

First the rule of genai-prices (a provider by id, else by its pattern, else by the model's name;
then its models in order, then those of its fallbacks). What that rule leaves open is rewritten, one
step at a time, from the spellings of other tools to the one the book knows.
"""

from __future__ import annotations

import re
from datetime import date
from typing import NamedTuple

from callmeter.pricing.book import OWN, Entry, PriceBook
from callmeter.pricing.matching import FirstMatch, Predicate, compile_match, specificity

#: Provider names of OpenTelemetry, LiteLLM and LangChain that the patterns of genai-prices would
#: miss or give to another provider (``azure.ai.openai`` contains "openai").
PROVIDER_ALIASES = {
    "azure.ai.openai": "azure",
    "azure.ai.inference": "azure",
    "azure_openai": "azure",
    "azure-openai": "azure",
    "azureopenai": "azure",
    "azure_ai": "azure",
    "azure_text": "azure",
    "gcp.gen_ai": "google",
    "x_ai": "x-ai",
    "fireworks_ai": "fireworks",
    "aws.bedrock": "aws",
}
#: Names of Claude 3 on Bedrock as people write them.
_BEDROCK_SHORT = {
    "claude-3-haiku": "claude-3-haiku-20240307",
    "claude-3-sonnet": "claude-3-sonnet-20240229",
    "claude-3-opus": "claude-3-opus-20240229",
}
_BEDROCK_MODEL = re.compile(
    r"(?:[a-z-]{2,8}\.)?(?:ai21|amazon|anthropic|cohere|deepseek|meta|mistral|openai|qwen|writer)\."
)
_COMPACT_DATE = re.compile(r"-(20[0-9]{2})([0-9]{2})([0-9]{2})(?=-|:|$)")


class Found(NamedTuple):
    """An entry that matches; ``variants`` is false where a fallback's special prices do not
    apply.
    """

    entry: Entry
    variants: bool


class Catalog:
    """Look-ups in one book. Not cheap (some 10 to 100 us): the pricer remembers what it found."""

    def __init__(self, book: PriceBook) -> None:
        self._providers = {provider.id: provider for provider in book.providers}
        self._by_name: list[tuple[str, Predicate]] = [
            (each.id, compile_match(each.match)) for each in book.providers if each.match
        ]
        self._by_model: list[tuple[str, Predicate]] = [
            (each.id, compile_match(each.model_match))
            for each in book.providers
            if each.model_match
        ]
        self._own = [entry for entry in book.entries if entry.source == OWN]
        self._entries: dict[str, list[Entry]] = {}
        for entry in book.entries:
            if entry.source != OWN:
                self._entries.setdefault(entry.provider, []).append(entry)
        self._first = {
            provider: FirstMatch([entry.match for entry in entries])
            for provider, entries in self._entries.items()
        }

    def find(self, provider: str | None, model: str) -> tuple[Found, ...]:
        """The entries to ask, best first: own ones, then one of genai-prices; empty if none
        fits.
        """
        name = (provider or "").lower().strip()
        ref = model.lower()
        if name == "litellm":  # its models are called "<provider>/<model>"
            head, slash, tail = ref.partition("/")
            known = bool(slash) and self.provider_id(head) is not None
            name, ref = (head, tail) if known else ("", ref)
        while True:
            found = self._find(name, ref)
            if found:
                return found
            rewritten = self._rewrite(name, ref)
            if rewritten is None:
                return ()
            name, ref = rewritten

    def provider_id(self, name: str) -> str | None:
        """The book's id of a provider named in lower case, ``None`` if it is not recognised."""
        name = PROVIDER_ALIASES.get(name, name)
        if name in self._providers:
            return name
        return next((id_ for id_, test in self._by_name if test(name)), None)

    def _find(self, name: str, ref: str) -> tuple[Found, ...]:
        if name:
            canonical = self.provider_id(name)
        else:
            canonical = next((id_ for id_, test in self._by_model if test(ref)), None)
        found = [Found(entry, True) for entry in self._find_own(name, canonical, ref)]
        if canonical is not None:
            listed = self._find_listed(canonical, ref)
            if listed is not None:
                found.append(listed)
        return tuple(found)

    def _find_own(self, name: str, canonical: str | None, ref: str) -> list[Entry]:
        ranked: list[tuple[bool, int, Entry]] = []
        for entry in self._own:
            fit = specificity(entry.match, ref)
            named = entry.provider == name
            if fit and (named or entry.provider == canonical or (not name and not canonical)):
                ranked.append((named, fit, entry))
        if not name and canonical is None and len({entry.provider for _, _, entry in ranked}) > 1:
            return []  # several providers sell a model of this name: which one is not known
        ranked.sort(key=lambda each: each[:2], reverse=True)
        return [entry for _, _, entry in ranked]

    def _find_listed(self, provider: str, ref: str) -> Found | None:
        for spelling in dict.fromkeys((ref, _dashed_dates(ref))):
            for seller in (provider, *self._providers[provider].fallbacks):
                position = self._first[seller](spelling) if seller in self._first else None
                if position is not None:
                    return Found(self._entries[seller][position], seller == provider)
        return None

    def _rewrite(self, name: str, ref: str) -> tuple[str, str] | None:
        """One step towards a name the book knows; every step is taken at most once."""
        if ref.startswith("arn:") and "/" in ref:
            return name or "aws", ref.rsplit("/", 1)[1]
        if not name and "/" in ref:
            head, tail = ref.split("/", 1)
            if self.provider_id(head) is not None:
                return head, tail
        if not name and _BEDROCK_MODEL.match(ref):
            return "aws", ref
        canonical = self.provider_id(name) if name else None
        if canonical == "azure" and ref.startswith("gpt-35-"):
            return name, "gpt-3.5-" + ref.removeprefix("gpt-35-")
        if canonical == "aws" and ref in _BEDROCK_SHORT:
            return name, _BEDROCK_SHORT[ref]
        return None


def _dashed_dates(ref: str) -> str:
    """``gpt-5.2-20251211`` -> ``gpt-5.2-2025-12-11``, where that is a date."""

    def dashed(match: re.Match[str]) -> str:
        year, month, day = match.groups()
        try:
            date(int(year), int(month), int(day))
        except ValueError:
            return match[0]
        return f"-{year}-{month}-{day}"

    return _COMPACT_DATE.sub(dashed, ref)
