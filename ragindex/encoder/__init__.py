"""Encoders: any decoder language model, made bidirectional, as a text encoder. Importing this loads no torch."""

from ragindex.encoder.checkpoint import Checkpoint, EncoderConfig
from ragindex.encoder.encoder import Encoder, TextEncoder
from ragindex.encoder.prompts import PROMPT_STYLES, Example, Prompts, Task
from ragindex.encoder.quantise import Quantiser
from ragindex.encoder.resolve import find_checkpoint
from ragindex.encoder.rope import RopeScaling
from ragindex.encoder.windows import SpanPlan

__all__ = [
    "PROMPT_STYLES",
    "Checkpoint",
    "Encoder",
    "EncoderConfig",
    "Example",
    "Prompts",
    "Quantiser",
    "RopeScaling",
    "SpanPlan",
    "Task",
    "TextEncoder",
    "find_checkpoint",
]
