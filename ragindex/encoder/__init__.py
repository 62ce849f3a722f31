"""Encoders: any decoder language model, made bidirectional, as a text encoder. Importing this loads no torch."""

from ragindex.encoder.checkpoint import Checkpoint, EncoderConfig, find_checkpoint
from ragindex.encoder.encoder import Encoder, TextEncoder
from ragindex.encoder.prompts import PROMPT_STYLES, Prompts

__all__ = ["PROMPT_STYLES", "Checkpoint", "Encoder", "EncoderConfig", "Prompts", "TextEncoder", "find_checkpoint"]
