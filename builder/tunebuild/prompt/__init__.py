"""The prompt contract: one renderer for training and serving. Imports neither torch nor transformers."""

from tunebuild.prompt.detokenizer import Detokenizer
from tunebuild.prompt.directory import base_template, load_prompt, save_prompt, special_tokens
from tunebuild.prompt.example import Example, Samples
from tunebuild.prompt.golden import GoldenVector, Mismatch, check_golden, load_golden, make_golden
from tunebuild.prompt.messages import Conversation, Message
from tunebuild.prompt.renderer import PromptSettings, Renderer
from tunebuild.prompt.template import PromptRefused, PromptTemplate
from tunebuild.prompt.tokenizer import PromptTokenizer

__all__ = [
    "Conversation",
    "Detokenizer",
    "Example",
    "GoldenVector",
    "Message",
    "Mismatch",
    "PromptRefused",
    "PromptSettings",
    "PromptTemplate",
    "PromptTokenizer",
    "Renderer",
    "Samples",
    "base_template",
    "check_golden",
    "load_golden",
    "load_prompt",
    "make_golden",
    "save_prompt",
    "special_tokens",
]
