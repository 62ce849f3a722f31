"""Finds what in an indexed text looks as if it were written for a model: orders that would override the prompt, turns
and tool calls of chat templates, characters that hide text.

A heuristic, made to be quiet on ordinary documents: it finds attempts that use known words and marks, and a careful
attacker gets past it. A flag therefore informs and never hides; what keeps quoted text from posing as anything else
is `ragindex.search.quoting`. docs/context.md has the rates that were measured.

Kinds:

- "instruction": an order to drop earlier instructions or to reveal the prompt, a text that addresses the model
  ("if you are an AI …"), a change of its role. English, and the order to ignore in nine more languages.
- "role": a control token or a role line of a chat template (`<|im_start|>`, `[INST]`, `### System:`, `system: you …`),
  a written-out dialogue of human and assistant.
- "tool-call": marks or JSON of a tool call or its result.
- "hidden": Unicode tag characters outside of flag emoji, runs of zero-width characters or variation selectors,
  bidirectional overrides (the trick of CVE-2021-42574).
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from ragindex.search.folding import fold

__all__ = ["Flag", "FlagKind", "find_flags", "flag_kinds", "hidden_spans"]

FlagKind = Literal["instruction", "role", "tool-call", "hidden"]


@dataclass(frozen=True, slots=True)
class Flag:
    """`text[start:end]` looks like this kind of thing."""

    kind: FlagKind
    start: int
    end: int


def find_flags(text: str) -> tuple[Flag, ...]:
    """Everything suspicious in a text, in order, kinds mixed; empty for nearly every ordinary text."""
    folded = fold(text)
    found = [Flag("hidden", start, end) for start, end in hidden_spans(text)]
    found += [Flag("role", *match.span()) for match in _INST.finditer(text)]
    for kind, patterns in _PATTERNS.items():
        for pattern in patterns:
            for match in pattern.finditer(folded.text):
                found.append(Flag(kind, folded.origin[match.start()], folded.origin[match.end() - 1] + 1))
    return tuple(sorted(_disjoint(found), key=lambda flag: (flag.start, flag.end, flag.kind)))


def flag_kinds(*texts: str) -> tuple[FlagKind, ...]:
    """The kinds of the flags of some texts, each once, in the order of the module's list."""
    found = {flag.kind for text in texts for flag in find_flags(text)}
    return tuple(kind for kind in _KINDS if kind in found)


def hidden_spans(text: str) -> Iterator[tuple[int, int]]:
    """Spans (start, end) of characters that hide something."""
    if text.isascii():
        return
    for match in _HIDDEN.finditer(text):
        if match.lastgroup != "innocent":
            yield match.span()
    if not any(unicodedata.bidirectional(character) in {"R", "AL"} for character in text):
        # Directions of embedded text are ordinary beside Arabic or Hebrew, and a trick without.
        yield from (match.span() for match in _BIDI.finditer(text))


def _disjoint(flags: list[Flag]) -> list[Flag]:
    """Overlapping flags of a kind as one."""
    kept: list[Flag] = []
    for flag in sorted(flags, key=lambda flag: (flag.kind, flag.start)):
        if kept and kept[-1].kind == flag.kind and flag.start < kept[-1].end:
            kept[-1] = Flag(flag.kind, kept[-1].start, max(kept[-1].end, flag.end))
        else:
            kept.append(flag)
    return kept


_KINDS: tuple[FlagKind, ...] = ("instruction", "role", "tool-call", "hidden")

_HIDDEN = re.compile(
    "(?P<innocent>\U0001f3f4[\U000e0030-\U000e007a]{3,6}\U000e007f)"  # the flags of England, Scotland, Wales
    "|[\U000e0000-\U000e007f]+"
    "|[\u00ad\u034f\u115f\u1160\u180e\u200b-\u200f\u2060-\u2064\u3164\ufeff\uffa0]{4,}"
    "|[\ufe00-\ufe0f\U000e0100-\U000e01ef]{2,}"
    "|[\u202d\u202e]"
)
_BIDI = re.compile("[\u202a\u202b\u2066-\u2068]")
_INST = re.compile(r"\[/?(?:INST|SYSTEM_PROMPT)\]")  # in lower case an index of somebody's array

# The patterns below see folded text: lower case, no invisible characters, look-alikes made Latin.
_EARLIER = "previous|prior|preceding|above|earlier|foregoing|former|original|initial|system|developer|your"
_FILLING = "all|any|every|of|the|these|those|this|and|or|other|own|existing|current|given|safety|hidden|secret"
_WORDS = rf"\s+(?:(?:{_FILLING})\s+){{0,4}}(?:{_EARLIER})\s+(?:(?:{_FILLING}|{_EARLIER})\s+){{0,4}}"
_MODEL = (
    r"(?:an? |the |any |all )?(?:ai|llm|(?:large )?language model|ai (?:assistant|agent|model)|chat ?bot|chatgpt)s?"
)

_INSTRUCTION = (
    (
        r"\b(?:ignore|disregard|forget|override|bypass|discard|(?:do not|don['’]?t|stop) (?:follow|obey)(?:ing)?"
        rf"|pay no attention to){_WORDS}(?:instruction|prompt|directive|direction)s?\b"
    ),
    # Rules are overridden in many a manual; only a model is told to forget its training.
    (
        rf"\b(?:ignore|disregard|forget|(?:do not|don['’]?t|stop) (?:follow|obey)(?:ing)?){_WORDS}"
        r"(?:command|guideline|rule|context|conversation|training)s?\b"
    ),
    (
        r"\b(?:ignore|disregard|forget)\s+(?:everything|anything|all|whatever)\s+(?:that\s+)?"
        r"(?:(?:is|was|came|comes|has been|have been)\s+)?(?:above\b|before (?:this|now)|you (?:were|have been) told"
        r"|i (?:told|said)|said (?:so far|above|before))"
    ),
    r"\bnew (?:system )?(?:instructions?|directives?|prompt)\s*:",
    rf"\bif you(?:['’]re| are) {_MODEL}\b",
    rf"\b(?:notes?|message|instructions?|attention|notice|important|reminder)[\s:,]+(?:to|for)?\s*{_MODEL}\s*[:!,—]",
    (
        r"\byou are (?:now )?an? (?:helpful|harmless|unrestricted|uncensored|unfiltered|jailbroken|evil)\b[\w, -]{0,40}"
        r"\b(?:assistant|ai|model|chatbot|agent)\b"
    ),
    r"\byou are now (?:dan\b|in (?:\w+ )?(?:developer|god|debug|admin|dan|jailbreak|maintenance)[ -]mode)",
    r"\b(?:enable|enter|activate|switch to) (?:developer|god|dan|jailbreak|do anything now)[ -]mode\b",
    (
        r"\bfrom now on,? you (?:are|will|must|shall) (?:an?|act|answer|respond|reply|obey|follow|ignore|only|always"
        r"|never|pretend|behave)\b"
    ),
    (
        r"\b(?:reveal|print|repeat|show|output|leak|disclose|tell|send|write out|give)\s+(?:me\s+|us\s+)?"
        r"(?:your|the)\s+(?:(?:full|entire|complete|exact|hidden|secret|initial|original)\s+)*"
        r"(?:system|developer|hidden|secret|initial)\s+(?:prompt|message|instructions?)\b"
    ),
    r"\b(?:do not|don['’]?t|never) (?:tell|inform|let)\s+the\s+user\s+(?:about|that|of|know|anything)\b",
    r"\b(?:do not|don['’]?t|never) (?:mention|reveal|disclose) (?:these|this|the above) (?:instruction|prompt|message)",
    r"\byour (?:new|real|actual|true) (?:task|goal|objective|purpose|instructions?) (?:is|are)(?: now)?(?: to\b|\s*:)",
)
# The same order, to ignore what came before, in German, French, Spanish, Portuguese, Italian, Russian, Chinese,
# Japanese and Korean.
_ELSEWHERE = (
    (
        r"\b(?:ignorier|vergiss|missacht)\w*(?:\s+\w+){0,3}\s+(?:vorherig|vorig|bisherig|obig|vorangegangen|früher)\w*"
        r"\s+(?:anweisung|instruktion|befehl|vorgabe|regel|prompt)"
    ),
    (
        r"\b(?:ignore[rz]?|oublie[rz]?)(?:\s+\w+){0,3}\s+(?:instructions?|consignes?|directives?|ordres?)"
        r"\s+(?:pr[eé]c[eé]dent|ant[eé]rieur|ci-dessus)"
    ),
    (
        r"\b(?:ignor|olvid|esque[cç]|desconsider|dimentic)\w*(?:\s+\w+){0,4}\s+(?:instru[cç]|istruz|indica|directri|ordin)\w*"
        r"(?:\s+\w+){0,1}?\s+(?:anterior|previ|precedent|acima)"
    ),
    (
        r"\b(?:ignor|olvid|esque[cç]|dimentic)\w*(?:\s+\w+){0,3}\s+(?:anterior|previ|precedent)\w*"
        r"\s+(?:instru[cç]|istruz|indica|directri|ordin)"
    ),
    (
        r"(?:игнориру|забуд|не следуй)\w*(?:\s+\w+){0,3}\s+(?:предыдущ|прежн|вышеуказанн)\w*"
        r"\s+(?:инструкц|указани|команд|правил)"
    ),
    r"(?:忽略|无视|無視|忘记|忘記)[^。\n]{0,8}(?:之前|以上|先前|前面|上述|上面)[^。\n]{0,6}(?:指令|指示|说明|說明|提示|命令|规则|規則)",
    r"(?:以前|これまで|上記|前|先)の[^。\n]{0,6}(?:指示|命令|指令|プロンプト)[^。\n]{0,6}(?:無視|忘れ)",
    r"(?:이전|위의?|앞의?)[^.\n]{0,6}(?:지시|명령|프롬프트)[^.\n]{0,8}(?:무시|잊)",
)
_ROLE = (
    r"<\|[a-z][\w.▁ -]{0,40}(?:\|>|>)",  # ChatML, Llama 3 and 4, Phi, Harmony, Cohere, DeepSeek (in full width)
    r"<</?sys>>|</?(?:start|end)_of_turn>",
    r"^[ \t]*</?(?:system|system[-_](?:prompt|message|reminder|instructions?)|assistant|human)>",
    r"^[ \t]*#{2,4} ?(?:system|instruction|response|assistant|human)(?: prompt| message)?\s*:",
    r"^[ \t>*#]*(?:system|developer) (?:prompt|message|instructions?)[*\s]*:",
    r"^[ \t>*#]*(?:system|assistant|developer)[*\s]*:[*\s]*(?:you (?:are|must|will|should)\b|ignore\b|disregard\b)",
    r"^[ \t]*human: [^\n]*\n+(?:[^\n]*\n+){0,3}?assistant:",
)
_TOOL_CALL = (
    (
        r"</?(?:tool_calls?|tool_use|tool_results?|tool_response|tool_outputs?|function_calls?|function_results?"
        r"|antml:\w+)>"
    ),
    r"<(?:antml:)?invoke name=|<function=\w+>",
    r"\[/?(?:tool_calls|tool_results|available_tools)\]",
    r"```tool_(?:code|call|outputs?)\b",
    r"\"tool_calls\"\s*:\s*\[",
    r"\{\s*\"(?:name|tool|function)\"\s*:\s*\"[\w.-]{1,80}\"\s*,\s*\"(?:arguments|parameters|tool_input)\"\s*:\s*\{",
    r"\bto=functions\.\w+",
    r"^action\s*:[^\n]+\n+action input\s*:",
)


def _compiled(patterns: tuple[str, ...]) -> tuple[re.Pattern[str], ...]:
    return tuple(re.compile(pattern, re.MULTILINE) for pattern in patterns)


_PATTERNS: dict[FlagKind, tuple[re.Pattern[str], ...]] = {
    "instruction": _compiled((*_INSTRUCTION, *(fold(pattern).text for pattern in _ELSEWHERE))),
    "role": _compiled(_ROLE),
    "tool-call": _compiled(_TOOL_CALL),
}
